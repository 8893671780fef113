"""A larger run, predicted from a ladder of small ones before it starts.

Quality is a curve over log2 of the training FLOPs whose slope may drift: a
line plus an integrated random walk plus the noise of a seed. How much the
slope drifts and how noisy a run is are not estimated but averaged over, by
their likelihood on the ladder, since five rungs tell little of either; so the
interval widens by what the ladder itself shows, and by the cube of the
distance. Hours are the training steps' time, predicted likewise, plus what
else a unit takes, as on the ladder.

`forecast.json`, below the sweep's workdir, is written once, before the run:

  {'unit', 'written' (UTC), 'level', 'train_flops', 'times' (of the largest
  rung), 'ladder': [{'unit', 'train_flops', 'seconds', a column for each
  response}], 'numbers': {name: {'predicted', 'low', 'high'}}, 'sha256' of all
  the rest}

`numbers` are every response that all rungs have, and 'hours', of the whole
unit. They are of the images that the ladder was evaluated on, of one seed.

Letters: D draws, U units, R rungs.
"""

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from etils import epath

from vitok import errors, files
from vitok.scaling import fits, runs, table
from vitok.scaling.responses import RESPONSES, value

FILE, ROLE = 'forecast.json', 'forecast'
LEAST, LEVEL = 5, 0.9  # Rungs, and coverage.
X = 'train_flops'
_DRAWS = 4000
_DRIFT = 0.05  # Of the slope, per doubling: the median that the prior has.


@dataclasses.dataclass(frozen=True)
class Score:
  """A number that was predicted, and what it came to.

  Attributes:
    predicted, low, high: the median and the interval, as they were written.
    observed: of the run, or None until it has finished.
  """
  predicted: float
  low: float
  high: float
  observed: float | None

  @property
  def error(self) -> float | None:
    """Observed minus predicted."""
    return None if self.observed is None else self.observed - self.predicted

  @property
  def covered(self) -> bool | None:
    """Whether it lies in the interval."""
    return (None if self.observed is None
            else self.low <= self.observed <= self.high)


def write(workdir, unit: str, say: Callable[[str], None] = print) -> dict:
  """Predicts a unit from the sweep's law units; what stands is left alone.

  Args:
    workdir: of the sweep, whose other units are done.
    unit: of role 'forecast', not started.
    say: told the prediction and its hash.

  Raises:
    InputError: the unit has run, or started, without a forecast; a rung is
      missing; there are fewer than five.
  """
  path = epath.Path(workdir) / FILE
  if path.exists():
    return read(workdir)
  if (epath.Path(workdir) / unit / 'config.json').exists():
    raise errors.InputError(
        str(path), None, f'is missing, and {unit} has started: what is known '
        'cannot be predicted', f'{workdir}-2')
  sweep = runs.load_runs(workdir)
  flops = {row['unit']: row['train_flops'] for row in sweep.price['units']}
  stored = predict(table.rows(sweep), unit, flops[unit])
  stored['sha256'] = fingerprint(stored)
  files.write_text(path, json.dumps(stored, indent=1) + '\n', replace=False)
  stored = read(workdir)  # Of several processes, the first one's counts.
  for name, number in stored['numbers'].items():
    say(f'forecast of {unit}: {name} {number["predicted"]:.4g} '
        f'[{number["low"]:.4g}, {number["high"]:.4g}]')
  say(f'forecast: SHA-256 {stored["sha256"]}; {path}')
  return stored


def read(workdir) -> dict:
  """What `forecast.json` holds; {} where there is none.

  Raises:
    InputError: it is no forecast, or not the one that was written.
  """
  path = epath.Path(workdir) / FILE
  if not path.exists():
    return {}
  try:
    stored = json.loads(path.read_text())
    whole = stored['sha256'] == fingerprint(stored)
  except (ValueError, KeyError, TypeError) as error:
    raise errors.InputError(str(path), None,
                            f'is no forecast: {error}') from error
  if not whole:
    raise errors.InputError(str(path), None,
                            'has been changed since it was written')
  return stored


def fingerprint(stored: Mapping) -> str:
  """SHA-256 of a forecast without its own."""
  rest = {key: value for key, value in stored.items() if key != 'sha256'}
  return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def predict(rows: Sequence[dict], unit: str, flops: float) -> dict:
  """The forecast of a unit that will train for `flops`.

  Raises:
    InputError: as `write`.
  """
  ladder = [row for row in rows if row['role'] == 'law']
  waiting = [row['unit'] for row in ladder if row['state'] != 'done']
  if waiting:
    raise errors.InputError(unit, None,
                            f'is predicted from {", ".join(waiting)} too')
  fits.check_distinct(ladder, [X], LEAST)
  names = [name for name in RESPONSES
           if all(value(row, name) is not None for row in ladder)]
  z_U = fits.logarithms(ladder, [X])[:, 0]
  drawn = {name: extrapolate(z_U, [value(row, name) for row in ladder],
                             np.log2(flops))
           for name in names}
  if all(row['seconds'] for row in ladder):
    drawn['hours'] = _hours(ladder, z_U, np.log2(flops))
  tail = (1 - LEVEL) / 2
  numbers = {name: dict(zip(('low', 'predicted', 'high'), map(
      float, np.quantile(draws_D, (tail, 0.5, 1 - tail))), strict=True))
             for name, draws_D in drawn.items()}
  return dict(
      unit=unit, written=datetime.datetime.now(datetime.UTC).isoformat(),
      level=LEVEL, train_flops=flops, times=flops / 2**z_U.max(),
      ladder=[{key: row[key] for key in ('unit', X, 'seconds')}
              | {name: value(row, name) for name in names}
              for row in ladder], numbers=numbers)


def scores(stored: Mapping, rows: Sequence[dict]) -> dict[str, Score]:
  """{name: the prediction beside what the unit came to}."""
  row = next((row for row in rows if row['unit'] == stored.get('unit')), {})
  known = {name: value(row, name) for name in RESPONSES}
  if row.get('seconds'):
    known['hours'] = row['seconds'] / 3600
  return {name: Score(number['predicted'], number['low'], number['high'],
                      known.get(name))
          for name, number in stored.get('numbers', {}).items()}


def backtest(rows: Sequence[dict]) -> dict[str, Score]:
  """The same rule asked for the ladder's top rung from those below it."""
  ladder = [row for row in rows if row['role'] == 'law'
            and row['state'] == 'done']
  top = max((row[X] for row in ladder), default=0)
  below = [row for row in ladder if row[X] < top]
  if len({row[X] for row in below}) < LEAST - 1:
    return {}
  z_U, tail = fits.logarithms(below, [X])[:, 0], (1 - LEVEL) / 2
  found = {}
  for name in RESPONSES:
    if all(value(row, name) is not None for row in ladder):
      low, middle, high = np.quantile(
          extrapolate(z_U, [value(row, name) for row in below], np.log2(top)),
          (tail, 0.5, 1 - tail))
      # Of one seed, as the forecast is.
      one = next(row for row in ladder if row[X] == top)
      found[name] = Score(float(middle), float(low), float(high),
                          value(one, name))
  return found


def extrapolate(z_U: np.ndarray, y_U: np.ndarray, z: float, *,
                seed: int = 0) -> np.ndarray:
  """Draws of y of one run at z, from runs at smaller z.

  y = a + b z + drift * (integrated random walk) + noise, flat in a and b. The
  drift's prior is half Cauchy, with a median of a twentieth of the slope per
  doubling; the noise's is flat in its logarithm. On simulated ladders of five
  rungs, two seeds each, 90% intervals then cover 100% where the truth is
  straight, and 95% where it saturates.

  Args:
    z_U: log2 of the size of the runs; equal ones differ in their seed.
    y_U: what they came to.
    z: log2 of the size predicted.
    seed: of the draws.

  Returns:
    (D,) draws.
  """
  z_U, y_U = np.asarray(z_U, float), np.asarray(y_U, float)
  start = z_U.min()
  columns = np.stack([np.ones_like(z_U), z_U - start], 1)
  at = np.array([1, z - start])
  line, *_ = np.linalg.lstsq(columns, y_U, rcond=None)
  scale = max(np.ptp(y_U), 1e-9)
  slope = max(abs(line[1]), 1e-3 * scale)
  walk_UxU = _walk(z_U[:, None] - start, z_U[None] - start)
  walk_U, walk = _walk(z_U - start, z - start), _walk(z - start, z - start)
  drifts = _DRIFT * slope * np.geomspace(1e-2, 30, 25)
  # Half Cauchy, on a grid that is even in the logarithm.
  prior = np.log(drifts) - np.log1p((drifts / (_DRIFT * slope))**2)
  found = []
  for drift, weight in zip(drifts, prior, strict=True):
    for noise in scale * np.geomspace(3e-4, 1, 25):
      inner = drift**2 * walk_UxU + noise**2 * np.eye(len(z_U))
      outer = drift**2 * walk_U
      solved = np.linalg.solve(inner, np.column_stack([columns, y_U, outer]))
      gram = columns.T @ solved[:, :2]
      beta = np.linalg.solve(gram, columns.T @ solved[:, 2])
      rest = y_U - columns @ beta
      weighed = np.linalg.solve(inner, rest)
      likelihood = -0.5 * (np.linalg.slogdet(inner)[1]
                           + np.linalg.slogdet(gram)[1] + rest @ weighed)
      mean = at @ beta + outer @ weighed
      gap = at - columns.T @ solved[:, 3]
      variance = (drift**2 * walk - outer @ solved[:, 3]
                  + gap @ np.linalg.solve(gram, gap) + noise**2)
      found.append((likelihood + weight, mean, max(variance, 0.0)))
  log, mean, variance = np.array(found).T
  share = np.exp(log - log.max())
  random = np.random.default_rng(seed)
  chosen = random.choice(len(log), _DRAWS, p=share / share.sum())
  return (mean[chosen]
          + np.sqrt(variance[chosen]) * random.standard_normal(_DRAWS))


def _walk(a, b):
  """Covariance of a random walk's integral at a and b, both from its start."""
  low, high = np.minimum(a, b), np.maximum(a, b)
  return low**2 * (3 * high - low) / 6


def _hours(ladder, z_U, z):
  """Draws of a unit's hours: its steps, and what else it takes."""
  steps_U = table.values(ladder, 'seconds_step')
  other_U = table.values(ladder, 'seconds') - steps_U
  steps_D = 2**extrapolate(z_U, np.log2(steps_U), z)
  random, count = np.random.default_rng(1), len(ladder)
  spread = other_U.std(ddof=1) * np.sqrt(1 + 1 / count)
  other_D = other_U.mean() + spread * random.standard_t(count - 1, _DRAWS)
  return (steps_D + np.maximum(other_D, 0)) / 3600
