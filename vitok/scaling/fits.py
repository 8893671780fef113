"""Laws: regressions on log2 of sizes, with intervals and tests of fit.

y is PSNR (dB), SSIM or log2 MSE; a slope is y per doubling. Letters: R
replicates, U units, P terms.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from vitok import errors
from vitok.scaling import bootstrap, table
from vitok.scaling.claims import CODE_COLUMNS
from vitok.scaling.responses import RESPONSES
from vitok.scaling.responses import value as value_of


@dataclasses.dataclass(frozen=True)
class Data:
  """Units of a fit with their response.

  Attributes:
    rows: of `vitok.scaling.table`, one per unit.
    y_U: response.
    y_RxU: its replicates.
  """
  rows: tuple[dict, ...]
  y_U: np.ndarray
  y_RxU: np.ndarray

  def keep(self, chosen) -> 'Data':
    """The units for which `chosen` (one truth value each) is true."""
    index = np.flatnonzero(np.asarray(chosen, bool))
    return Data(tuple(self.rows[i] for i in index), self.y_U[index],
                self.y_RxU[:, index])

  def where(self, **values) -> 'Data':
    """The units whose columns have these values."""
    return self.keep([all(row.get(key) == value
                          for key, value in values.items())
                      for row in self.rows])

  @property
  def configurations(self) -> np.ndarray:
    return np.array([row['configuration'] for row in self.rows], object)


@dataclasses.dataclass(frozen=True)
class Fit:
  """y = sum of coefficients * terms, by least squares over units.

  Attributes:
    terms: columns; the regression has log2 of each, centred.
    curved: whether the last coefficient is of the first term's square.
    centre: mean of log2 of each term.
    range: smallest and largest value of the first term.
    coefficients: intercept (y at the centre), slopes, curvature if curved.
    replicates_RxP: the same for each replicate.
    r2: share of the variance of units explained.
    residual_sd: of units about the law.
    seed_sd: pooled within configurations, or None without a second seed.
    lack_of_fit: {'f', 'df', 'p'} of the F test against pure error, or None.
    leave_one_out: {configuration: predicted - observed}, each configuration
      left out in turn; those without which the law cannot be fitted are nan.
    units: how many.
  """
  terms: tuple[str, ...]
  curved: bool
  centre: np.ndarray
  range: tuple[float, float]
  coefficients: np.ndarray
  replicates_RxP: np.ndarray
  r2: float
  residual_sd: float
  seed_sd: float | None
  lack_of_fit: dict | None
  leave_one_out: dict
  units: int

  def slope(self, term: str) -> tuple[float, np.ndarray]:
    """y per doubling of `term`, and its replicates."""
    i = 1 + self.terms.index(term)
    return float(self.coefficients[i]), self.replicates_RxP[:, i]

  def curvature(self) -> tuple[float, np.ndarray]:
    """y per squared doubling of the first term, and its replicates."""
    return float(self.coefficients[-1]), self.replicates_RxP[:, -1]

  def predict(self, rows: Sequence[dict]) -> np.ndarray:
    """The law's value at each unit, whatever its other terms are."""
    logs = logarithms(rows, self.terms) - self.centre
    columns = [np.ones((len(logs), 1)), logs]
    columns += [logs[:, :1]**2] if self.curved else []
    return np.concatenate(columns, 1) @ self.coefficients

  def line(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The law along its first term, the others at their centre.

    Returns:
      y and its replicates, (..., len(x)).
    """
    z = np.log2(x) - self.centre[0]
    columns = np.zeros((len(z), len(self.coefficients)))
    columns[:, 0], columns[:, 1] = 1, z
    if self.curved:
      columns[:, -1] = z**2
    return columns @ self.coefficients, self.replicates_RxP @ columns.T


def check_distinct(rows: Sequence[dict], terms: Sequence[str],
                   needed: int) -> None:
  """Refuses a law through too few sizes.

  Of two terms together it is their product that counts: L and c of E.

  Raises:
    InputError: fewer than `needed` distinct values.
  """
  product = np.ones(len(rows))
  for term in terms:
    product = product * table.values(rows, term)
  found = len(np.unique(product))
  if found < needed:
    raise errors.InputError(
        ' * '.join(terms), None,
        f'has {found} distinct values; a law needs {needed}')


def fit(data: Data, terms: Sequence[str], *, distinct: int = 0,
        curved: bool = False) -> Fit:
  """Least squares of `data.y` on log2 of the terms.

  Args:
    data: units; flagged ones are left out by the caller.
    terms: columns of the table; the law is over the first one, unless two
      slopes are compared.
    distinct: values of the first term needed, never under 4 for the size of
      a code; 0: 3. Two are a difference between two kinds, and no law.
    curved: adds the square of the first term.

  Raises:
    InputError: too few distinct sizes, or terms that do not vary apart.
  """
  terms = tuple(terms)
  both = terms[:2] if set(terms[:2]) == {'tokens', 'channels'} else terms[:1]
  check_distinct(data.rows, both,
                 max(distinct or 3, 4 if terms[0] in CODE_COLUMNS else 0))
  centre, columns = design(data.rows, terms, curved)
  check_rank(columns, terms)
  inverse = np.linalg.pinv(columns)
  coefficients = inverse @ data.y_U
  residual_U = data.y_U - columns @ coefficients
  total = np.sum((data.y_U - data.y_U.mean())**2)
  freedom = len(data.y_U) - columns.shape[1]
  sd, lack = _lack_of_fit(data, residual_U, columns.shape[1])
  first = table.values(data.rows, terms[0]).astype(float)
  return Fit(
      terms, curved, centre, (first.min(), first.max()), coefficients,
      replicates_RxP=data.y_RxU @ inverse.T,
      r2=float(1 - np.sum(residual_U**2) / total) if total else 1.0,
      residual_sd=float(np.sqrt(np.sum(residual_U**2) / max(freedom, 1))),
      seed_sd=sd, lack_of_fit=lack,
      leave_one_out={label: error for label, (error, _) in
                     held_out(data, terms, 'configuration',
                              curved=curved).items()},
      units=len(data.y_U))


def held_out(data: Data, terms: Sequence[str], column: str, *,
             curved: bool = False) -> dict:
  """Errors of laws that never saw one value of `column`.

  Returns:
    {value: (predicted - observed, its replicates)}, mean over the units of
    that value; nan where the rest cannot carry the law.
  """
  values = np.array([row[column] for row in data.rows], object)
  errors_ = {}
  for value in dict.fromkeys(values):
    out = values == value
    centre, columns = design(data.rows, tuple(terms), curved)
    rest = columns[~out]
    if np.linalg.matrix_rank(rest) < columns.shape[1]:
      errors_[value] = (float('nan'), np.full(len(data.y_RxU), np.nan))
      continue
    weights = columns[out].mean(0) @ np.linalg.pinv(rest)
    errors_[value] = (
        float(weights @ data.y_U[~out] - data.y_U[out].mean()),
        data.y_RxU[:, ~out] @ weights - data.y_RxU[:, out].mean(1))
  return errors_


def responses(rows: Sequence[dict], images: Sequence[dict], y: str, *,
              level: float = 0.9, count: int = bootstrap.COUNT,
              seed: int = 0) -> Data:
  """The response of finished units with its replicates.

  Args:
    rows: of the table.
    images: the same units' per-image arrays: where an image has a value of
      its own, the response's column, and `group` (`<column>_group` of those
      that were taken of other images).
    y: of `vitok.scaling.responses`: a mean over images, its log2, or a number
      of all images together.
    level: coverage of intervals that will be read off.
    count: replicates.
    seed: of the bootstrap.
  """
  if not rows:
    return Data((), np.zeros(0), np.zeros((count, 0)))
  name = RESPONSES[y].column
  finish = np.log2 if RESPONSES[y].log2 else np.asarray
  if all(name in arrays for arrays in images):
    values_UxN = np.stack([arrays[name] for arrays in images])
    values_UxN = values_UxN.astype(np.float64)
    y_U = finish(values_UxN.mean(1))
    group_N = images[0].get(f'{name}_group', images[0]['group'])
    y_RxU = bootstrap.widen(
        finish(bootstrap.resample_images(values_UxN, group_N, count=count,
                                         seed=seed)),
        y_U, len(np.unique(group_N)), level)
  else:
    y_U = np.array([value_of(row, y) for row in rows])
    y_RxU = y_U + _of_sets(rows, y, count, seed)
  y_RxU = bootstrap.resample_seeds(
      y_RxU, [table.but_for_seed(row) for row in rows],
      blocks=_blocks(rows), level=level, seed=seed)
  return Data(tuple(rows), y_U, y_RxU)


def _blocks(rows):
  """Units of one model and seed: they begin with the same values, or go on from
  a run that did, and see the same batches."""
  return [f'{row["model"]} {row["seed"]}' for row in rows] if all(
      {'model', 'seed'} <= row.keys() for row in rows) else None


def _of_sets(rows, y, count, seed):
  """What other images would do to a number of all of them: (count, units).

  By its standard error, where it has one, drawn for each configuration apart:
  samples of two generators are made apart. What they are compared with is the
  same for all, so that this is too much rather than too little; seeds of a
  configuration, which are nearly alike, have it in common.
  """
  error = f'{RESPONSES[y].column}_se'
  random, drawn = np.random.default_rng((seed, 2)), {}
  for row in rows:
    label = table.but_for_seed(row)
    if label not in drawn:
      drawn[label] = random.standard_normal(count) * (row.get(error) or 0)
  return np.stack([drawn[table.but_for_seed(row)] for row in rows], 1)


def design(rows: Sequence[dict], terms: Sequence[str],
           curved: bool = False) -> tuple[np.ndarray, np.ndarray]:
  """The regression on log2 of the terms, centred.

  Returns:
    Centres of the terms, and columns: ones, the terms, and the square of the
    first one if curved.
  """
  logs = logarithms(rows, terms)
  centre = logs.mean(0)
  logs = logs - centre
  parts = [np.ones((len(logs), 1)), logs]
  return centre, np.concatenate(
      parts + ([logs[:, :1]**2] if curved else []), axis=1)


def logarithms(rows: Sequence[dict], terms: Sequence[str]) -> np.ndarray:
  """log2 of columns, (units, terms)."""
  return np.stack([np.log2(table.values(rows, term).astype(np.float64))
                   for term in terms], axis=1)


def check_rank(columns: np.ndarray, terms: Sequence[str]) -> None:
  """Refuses a regression that these columns do not determine.

  Raises:
    InputError: the terms do not vary apart.
  """
  if np.linalg.matrix_rank(columns) < columns.shape[1]:
    raise errors.InputError(', '.join(terms), None,
                            'do not vary apart in this design')


def _lack_of_fit(data, residual_U, parameters):
  """Sd between seeds, and the F test of the law against it."""
  labels = data.configurations
  groups = [np.flatnonzero(labels == label) for label in dict.fromkeys(labels)]
  pure = sum(np.sum((data.y_U[g] - data.y_U[g].mean())**2) for g in groups)
  pure_df = len(labels) - len(groups)
  if not pure_df:
    return None, None
  sd = float(np.sqrt(pure / pure_df))
  lack_df = len(groups) - parameters
  if lack_df < 1 or not pure:
    return sd, None
  lack = max(np.sum(residual_U**2) - pure, 0.0)
  f = (lack / lack_df) / (pure / pure_df)
  return sd, dict(f=float(f), df=(lack_df, pure_df),
                  p=float(stats.f.sf(f, lack_df, pure_df)))
