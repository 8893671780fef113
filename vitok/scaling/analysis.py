"""From the workdir of a sweep to everything that its report shows."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vitok import errors
from vitok.scaling import (
    bootstrap,
    checks,
    fits,
    forecast,
    regression,
    runs,
    table,
    verdicts,
)
from vitok.scaling.responses import RESPONSES, value

LEVEL = 0.9  # Of every interval that belongs to no claim.
HELD_OUT = ('code_floats', 'patch')


@dataclasses.dataclass(frozen=True)
class Law:
  """A response over a size, fitted to the units of the law.

  Attributes:
    x, y: columns.
    fit: the straight law, or None if it is refused. Its other terms are what
      the claims about x take into account: E, where towers vary too.
    curved: the same with a quadratic term, or None.
    held_out: {column: {value: (error, low, high)}}; predicted - observed.
    refused: why there is no fit, or ''.
    where: {column: value} of the units, if all claims about x agree on them.
  """
  x: str
  y: str
  fit: fits.Fit | None = None
  curved: fits.Fit | None = None
  held_out: dict = dataclasses.field(default_factory=dict)
  refused: str = ''
  where: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two things measured on the same images: a - b in dB.

  Attributes:
    kind: 'null' (a configuration and its own PCA) or 'size' (two of equal E).
    difference, low, high: its mean, and interval over seeds and images.
    sd: of the difference between images.
    sd_unpaired: of a alone between images, which pairing removes.
  """
  kind: str
  a: str
  b: str
  difference: float
  low: float
  high: float
  sd: float
  sd_unpaired: float


@dataclasses.dataclass(frozen=True)
class Analysis:
  """A sweep, judged.

  Attributes:
    sweep: what was read.
    rows: a dict per unit (`table.COLUMNS` and the unit's factors).
    data: finished units by response, for those that all units have.
    verdicts: one per claim, in order.
    laws: one per size that a claim is over and response.
    pairs: paired differences of PSNR.
    regressions: each response on all columns that vary apart.
    forecast: what `forecast.json` holds, {} if nothing or if it was changed.
  """
  sweep: runs.Sweep
  rows: tuple[dict, ...]
  data: dict[str, fits.Data]
  verdicts: tuple[verdicts.Verdict, ...]
  laws: tuple[Law, ...]
  pairs: tuple[Pair, ...]
  regressions: tuple[regression.Regression, ...] = ()
  forecast: dict = dataclasses.field(default_factory=dict)

  @property
  def missing(self) -> list[str]:
    """Names of the units that have not finished."""
    return [row['unit'] for row in self.rows
            if row['state'] in ('running', 'missing')]

  @property
  def failed(self) -> dict[str, str]:
    """{unit: why it failed}."""
    return {row['unit']: row['error'] for row in self.rows if row['error']}

  @property
  def sizes(self) -> list[str]:
    """Columns that the laws are over."""
    return list(dict.fromkeys(law.x for law in self.laws))

  def law(self, x: str, y: str = 'psnr') -> Law:
    """The law of y over x."""
    return next(law for law in self.laws if (law.x, law.y) == (x, y))


def analyse(workdir, *, count: int = bootstrap.COUNT) -> Analysis:
  """Reads a sweep, finished or not, and judges its claims.

  Args:
    workdir: of the sweep.
    count: replicates of the bootstrap.

  Raises:
    InputError: there is no sweep, or its files do not fit together.
  """
  sweep = runs.load_runs(workdir)
  rows = tuple(table.rows(sweep))
  images = {run.name: run.images for run in sweep.done}

  def of(y, level=LEVEL):
    made = _measurable(rows, y)
    return fits.responses(made, [images[row['unit']] for row in made], y,
                          level=level, count=count)

  defined = [y for y in RESPONSES if all(
      value(row, y) is not None for row in _measurable(rows, y))]
  data = {y: of(y) for y in defined}
  judged = tuple(_judge(claim, sweep, rows, data, of)
                 for claim in sweep.claims)
  names = dict.fromkeys(
      'code_floats' if claim.rule == 'equal_slopes' else claim.x[0]
      for claim in sweep.claims)
  laws = tuple(_law(checks.unflagged(data[y]), x, y, _held(x, sweep.claims),
                    _where(x, sweep.claims))
               for x in names or ('code_floats',) for y in defined)
  found = (regression.regress(checks.unflagged(data[y]), y, level=LEVEL)
           for y in defined)
  return Analysis(sweep, rows, data, judged, laws,
                  tuple(_pairs(sweep, data['psnr'], images)),
                  tuple(one for one in found if one), _forecast(sweep))


def _measurable(rows, y):
  """Finished units that may have a response.

  Beside auto-encoders, generators have their samples' numbers alone: what they
  repeat of their tokenizers is there already.
  """
  done = [row for row in rows if row['state'] == 'done']
  return [row for row in done if RESPONSES[y].of_samples == (
      row['generator_parameters'] is not None)] or done


def _judge(claim, sweep, rows, data, of):
  if claim.y not in data:
    absent = RESPONSES[claim.y].column.removesuffix('_best') + '_absent'
    why = {run.numbers[absent] for run in sweep.done if absent in run.numbers}
    return verdicts.unmeasured(claim, rows, sorted(why),
                               demonstration=sweep.demonstration)
  return verdicts.judge(
      claim, rows, lambda level: (data[claim.y] if level == LEVEL
                                  else of(claim.y, level)),
      forecast=lambda: forecast.read(sweep.path),
      demonstration=sweep.demonstration)


def _forecast(sweep):
  try:
    return forecast.read(sweep.path)
  except errors.InputError:  # The verdict says what is wrong with it.
    return {}


def _held(x, claims):
  """What the claims about x take into account beside it."""
  terms = [term for claim in claims if claim.x[0] == x for term in (
      claim.x[1:] if claim.rule in ('parallel', 'optimum') else
      claim.adjust if claim.rule != 'suffices' else ())]
  return tuple(dict.fromkeys(terms))


def _where(x, claims):
  """The units that all claims over x are about, {} where they differ."""
  first, *others = [claim.where for claim in claims if claim.x[0] == x] or [{}]
  return first if all(other == first for other in others) else {}


def _law(data, x, y, held, where):
  terms, data = (x, *held), data.where(**where)
  try:
    fit = fits.fit(data, terms)
  except errors.InputError as error:
    return Law(x, y, refused=str(error), where=where)
  held_out = {}
  for column in HELD_OUT:
    found = fits.held_out(data, terms, column)
    known = {value: (error, *bootstrap.interval(error_R, LEVEL))
             for value, (error, error_R) in found.items()
             if np.isfinite(error)}
    if len(known) > 1:
      held_out[column] = known
  return Law(x, y, fit, fits.fit(data, terms, curved=True), held_out,
             where=where)


def _pairs(sweep, data, images):
  """Each configuration and its own PCA; then neighbours at equal E."""
  law = data.where(role='law')
  groups = {label: law.where(configuration=label)
            for label in dict.fromkeys(law.configurations)}

  def per_image(group):
    return np.mean([images[row['unit']]['psnr'] for row in group.rows], 0)

  nulls = {(row['tubelet'], row['patch'], row['channels']): row
           for row in sweep.nulls if row['model'] == 'pca'}
  for label, group in groups.items():
    row = group.rows[0]
    null = nulls.get((row['tubelet'], row['patch'], row['channels']))
    if null is None or row['stated_bits']:
      continue
    null_N, group_N = null['psnr_per_image'], images[row['unit']]['group']
    null_R = bootstrap.widen(
        bootstrap.resample_images(null_N[None], group_N,
                                  count=len(data.y_RxU))[:, 0],
        null_N.mean(), len(np.unique(group_N)), LEVEL)
    yield _pair('null', label, 'its PCA', group, per_image(group), null_N,
                null_R)
  by_size = {}
  for label, group in groups.items():
    row = group.rows[0]
    size = (bool(row['stated_bits']), row['stated_bits'] or row['code_floats'])
    by_size.setdefault(size, []).append(label)
  for size in sorted(by_size):
    labels = sorted(by_size[size], key=lambda label: _order(groups[label]))
    for a, b in zip(labels[1:], labels[:-1], strict=True):
      yield _pair('size', a, b, groups[a], per_image(groups[a]),
                  per_image(groups[b]), groups[b].y_RxU.mean(1))


def _pair(kind, a, b, group, a_N, b_N, b_R):
  low, high = bootstrap.interval(group.y_RxU.mean(1) - b_R, LEVEL)
  return Pair(kind, a, b, float(np.mean(a_N - b_N)), low, high,
              float(np.std(a_N - b_N, ddof=1)), float(np.std(a_N, ddof=1)))


def _order(group) -> Sequence:
  row = group.rows[0]
  return (row['tokens'], row['encoder_parameters'], row['decoder_parameters'])
