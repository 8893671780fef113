"""What the size of the code leaves unexplained, and what explains it.

Response ~ log2 E + log2 L + log2 FLOPs + ... by least squares over units of
the law. R2 alone decides nothing: a grid design wins it by itself. So the rule
'suffices' asks for decibels, those that the other columns move the fitted
units by; shares of variance are in the report's table beside it.

Letters: R replicates, U units, P terms.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vitok import errors
from vitok.scaling import bootstrap, fits

# What may be told apart from E, in the order in which it is tried.
CANDIDATES = ('code_floats', 'tokens', 'encoder_flops', 'decoder_flops',
              'frames', 'steps')
# Share of a column that the others must leave: below it they are one thing.
_APART = 0.02


@dataclasses.dataclass(frozen=True)
class Regression:
  """A response on several columns at once.

  Attributes:
    y: the response.
    fit: with all the terms.
    alone: R2 of the first term alone.
    partial: {term: share of what the others leave that it explains}.
    unexplained: (rms in units of y that the other terms add to the first, low,
      high), or None with one term.
    left_out: {column: the one it does not vary apart from}.
    level: of the intervals.
  """
  y: str
  fit: fits.Fit
  alone: float
  partial: dict[str, float]
  unexplained: tuple[float, float, float] | None
  left_out: dict[str, str]
  level: float

  def slopes(self) -> dict[str, tuple[float, float, float]]:
    """{term: (y per doubling, low, high)}."""
    found = {term: self.fit.slope(term) for term in self.fit.terms}
    return {term: (slope, *bootstrap.interval(slope_R, self.level))
            for term, (slope, slope_R) in found.items()}


def regress(data: fits.Data, y: str, *, level: float = 0.9,
            candidates: Sequence[str] = CANDIDATES) -> Regression | None:
  """The regression on every candidate that varies apart from those before it.

  Args:
    data: units of the law.
    y: its response, for the record.
    level: of the intervals.
    candidates: columns; the first one that varies is the one whose remainder
      is explained.

  Returns:
    None where no two columns vary, or there are too few units for them.
  """
  terms, left_out = [], {}
  labels = len(set(data.configurations))
  for column in candidates:
    values = [row.get(column) for row in data.rows]
    if None in values or len(set(values)) < 2:
      continue
    twins = _twins(data.rows, (*terms, column))
    if twins:
      left_out[column] = next(name for name in twins if name != column)
      continue
    if len(terms) + 3 <= labels:  # One configuration more than coefficients.
      terms.append(column)
  if not terms or len(terms) + len(left_out) < 2:
    return None
  try:
    fit = fits.fit(data, terms)
  except errors.InputError:  # Too few sizes of the first one.
    return None
  total = np.sum((data.y_U - data.y_U.mean())**2)
  alone = _residual(data, terms[:1])
  full = _residual(data, terms)
  partial = {term: _share(_residual(data, [t for t in terms if t != term]),
                          full) for term in terms}
  unexplained = None
  if len(terms) > 1:
    value, value_R = added(data, terms[:1], terms[1:])
    unexplained = (value, *bootstrap.interval(value_R, level))
  return Regression(y, fit, _share(total, alone), partial, unexplained,
                    left_out, level)


def added(data: fits.Data, first: Sequence[str],
          others: Sequence[str]) -> tuple[float, np.ndarray]:
  """By how much the other columns move what the first ones alone predict.

  Rms over units, in units of the response. A sum of squares is large by noise
  alone, so the noise that the replicates show is taken off: once from the
  value, twice from replicates, which have it on top.

  Returns:
    The rms and its replicates.

  Raises:
    InputError: columns that do not vary apart, with the pair.
  """
  twins = _twins(data.rows, (*first, *others))
  if twins:
    raise errors.InputError(', '.join(twins), None,
                            'do not vary apart in this design')
  both, alone = (fits.design(data.rows, terms)[1]
                 for terms in ((*first, *others), tuple(first)))
  moved_UxU = both @ np.linalg.pinv(both) - alone @ np.linalg.pinv(alone)
  value_U, value_RxU = moved_UxU @ data.y_U, data.y_RxU @ moved_UxU.T
  noise = np.mean((value_RxU - value_RxU.mean(0))**2)
  square, square_R = np.mean(value_U**2), np.mean(value_RxU**2, 1)
  return (float(np.sqrt(max(square - noise, 0.0))),
          np.sqrt(np.maximum(square_R - 2 * noise, 0.0)))


def _twins(rows, terms):
  """A column that is nearly made of the others, and the one most like it.

  Returns:
    Their names, or () where all vary apart.
  """
  _, columns = fits.design(rows, terms)
  for number, term in enumerate(terms):
    own, others = columns[:, number + 1], np.delete(columns, number + 1, 1)
    left = own - others @ np.linalg.lstsq(others, own, rcond=None)[0]
    if np.sum(left**2) <= _APART * np.sum(own**2):
      alike = [abs(own @ columns[:, i + 1]) / np.linalg.norm(columns[:, i + 1])
               if i != number and np.any(columns[:, i + 1]) else -1.0
               for i in range(len(terms))]
      return term, terms[int(np.argmax(alike))]
  return ()


def _residual(data, terms):
  """Sum of squares that a regression leaves."""
  columns = (fits.design(data.rows, terms)[1] if terms
             else np.ones((len(data.y_U), 1)))
  return float(np.sum((data.y_U - columns @ (
      np.linalg.pinv(columns) @ data.y_U))**2))


def _share(before, after):
  return float(1 - after / before) if before else 0.0
