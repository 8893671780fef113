"""Curves at equal compute and at equal code: the best size for a budget.

Units of one budget are parabolas over log2 of a size; their best points follow
a power law of the budget, best = a * budget^b. A parabola whose best point
lies at an edge of what was run, or beyond, says nothing of it and is refused.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping

import numpy as np

from vitok import accounting, errors, sizes
from vitok.scaling import fits
from vitok.scaling.responses import RESPONSES

TOLERANCE = 0.01  # Of the budget, by accounting.


@dataclasses.dataclass(frozen=True)
class Curve:
  """Units of one budget over a size: y = c0 + c1 z + c2 z^2, z = log2 x.

  Attributes:
    budget: which.
    coefficients: c0 to c2.
    best: log2 of the best size; its replicates.
    value: y at the best size.
    range: log2 of the smallest and the largest size.
    inside: share of the replicates with a best size within the range.
  """
  budget: float
  coefficients: np.ndarray
  best: float
  best_R: np.ndarray
  value: float
  range: tuple[float, float]
  inside: float

  def line(self, x: np.ndarray) -> np.ndarray:
    """The parabola at these sizes."""
    return np.polyval(self.coefficients[::-1], np.log2(x))


@dataclasses.dataclass(frozen=True)
class Power:
  """Best sizes over budgets.

  Attributes:
    curves: one per budget, by rising budget.
    exponent: (b, its replicates).
    factor: log2 of a.
  """
  curves: tuple[Curve, ...]
  exponent: tuple[float, np.ndarray]
  factor: float


def curve(data: fits.Data, x: str, y: str, *, budget: float = 0.0,
          least: int = 4) -> Curve:
  """The parabola through units over log2 of a size.

  Args:
    data: units of one budget.
    x: column of the size.
    y: the response, which says whether large or small is good.
    budget: for the record.
    least: distinct sizes needed.

  Raises:
    InputError: fewer sizes, or a parabola without a best point.
  """
  fits.check_distinct(data.rows, [x], least)
  z_U = fits.logarithms(data.rows, [x])[:, 0]
  middle, ends = z_U.mean(), (z_U.min(), z_U.max())
  inverse = np.linalg.pinv(np.vander(z_U - middle, 3, increasing=True))
  c, c_Rx3 = inverse @ data.y_U, data.y_RxU @ inverse.T
  up = RESPONSES[y].better
  if up * c[2] >= 0:
    raise errors.InputError(x, None, 'has no best value: the curve bends the '
                            'other way')
  best = middle - c[1] / (2 * c[2])
  bent_R = up * c_Rx3[:, 2] < 0
  best_R = middle - c_Rx3[:, 1] / np.where(bent_R, 2 * c_Rx3[:, 2], np.inf)
  # Without a best point there is only a better end.
  end_R = np.where(up * c_Rx3[:, 1] > 0, ends[1], ends[0])
  best_R = np.clip(np.where(bent_R, best_R, end_R), *ends)
  inside = np.mean((best_R > ends[0]) & (best_R < ends[1]))
  # About z = 0 instead of the middle.
  whole = np.array([c[0] - c[1] * middle + c[2] * middle**2,
                    c[1] - 2 * c[2] * middle, c[2]])
  return Curve(budget, whole, float(best), best_R,
               float(c[0] - c[1]**2 / (4 * c[2])), ends, float(inside))


def inside(data: fits.Data, x: str, y: str, *,
           least: int = 4) -> tuple[float, np.ndarray]:
  """How far the best size lies from the nearer end of those run, in doublings.

  Returns:
    The distance (negative: beyond) and its replicates, where a best size
    beyond an end counts as at it.
  """
  found = curve(data, x, y, least=least)
  low, high = found.range
  return (float(min(found.best - low, high - found.best)),
          np.minimum(found.best_R - low, high - found.best_R))


def power_law(data: fits.Data, x: str, budget: str, y: str, *,
              least: int = 4, level: float = 0.9) -> Power:
  """The power law of the best size over budgets.

  Args:
    data: units of all budgets.
    x: column of the size.
    budget: column of the budget, exactly equal for the units of one.
    y: the response.
    least: distinct sizes needed in each budget.
    level: share of replicates that need a best size inside.

  Raises:
    InputError: fewer than three budgets, too few sizes in one, or one whose
      best size is not inside the sizes run or is below its own patch PCA.
  """
  budgets = sorted({row[budget] for row in data.rows})
  if len(budgets) < 3:
    raise errors.InputError(budget, None, f'has {len(budgets)} values; a power '
                            'law needs 3')
  curves = []
  for value in budgets:
    part = data.where(**{budget: value})
    try:
      found = curve(part, x, y, budget=value, least=least)
    except errors.InputError as error:
      raise errors.InputError(f'{budget} {value:.3g}', None,
                              str(error)) from error
    low, high = found.range
    if not low < found.best < high or found.inside < level:
      raise errors.InputError(
          f'{budget} {value:.3g}', None, f'the best {x} is not inside what was '
          f'run: inside in {found.inside:.0%} of the replicates, '
          f'{level:.0%} needed')
    top = part.rows[int(np.argmax(RESPONSES[y].better * part.y_U))]
    if top.get('below_pca'):
      raise errors.InputError(
          f'{budget} {value:.3g}', None,
          f'even its best unit, {top["unit"]}, is below its own patch PCA')
    curves.append(found)
  logs = np.log2(np.array(budgets, float))
  weights = (logs - logs.mean()) / np.sum((logs - logs.mean())**2)
  best = np.array([found.best for found in curves])
  best_RxB = np.stack([found.best_R for found in curves], 1)
  slope = float(weights @ best)
  return Power(tuple(curves), (slope, best_RxB @ weights),
               float(best.mean() - slope * logs.mean()))


def candidates(budget: float, names: Iterable[str], *, resolution: int,
               batch: int, steps: tuple[int, int], frames: int = 1,
               least: int = 4, **options) -> dict[str, int]:
  """Sizes that spend a budget, and for how many steps.

  Args:
    budget: FLOPs of a whole run's training steps.
    names: of sizes to try (`vitok.sizes`).
    resolution, frames, batch: of the runs.
    steps: the fewest and the most that a run may take.
    least: sizes that must be found.
    **options: of the model, as `accounting.describe` takes them.

  Returns:
    {name: steps} within 1% of the budget, by rising cost of a step.

  Raises:
    InputError: fewer than `least`; the nearest is the budget of those tried
      that has the most.
  """
  cost = {name: batch * accounting.describe(
      sizes.parse(name), frames, resolution, **options)['flops']['train_step']
          for name in names}

  def fitting(wanted):
    found = {name: max(1, round(wanted / cost[name]))
             for name in sorted(cost, key=cost.get)}
    return {name: count for name, count in found.items()
            if steps[0] <= count <= steps[1]
            and abs(count * cost[name] - wanted) <= TOLERANCE * wanted}

  found = fitting(budget)
  if len(found) < least:
    others = [budget * 2.0**(power / 4) for power in range(-48, 49)]
    nearest = max(others, key=lambda other: (
        min(len(fitting(other)), least), -abs(np.log2(other / budget))))
    raise errors.InputError(
        'budget', budget, f'{len(found)} of {len(cost)} sizes are within '
        f'{TOLERANCE:.0%} of it in {steps[0]} to {steps[1]} steps; {least} '
        'are needed', f'{nearest:.3g}' if len(fitting(nearest)) >= least
        else None)
  return found


def towers(widths: Iterable[int], depths: Iterable[tuple[int, int]], *,
           head: int, patch: int, channels: int) -> list[str]:
  """Names of every width with every (encoder, decoder) depth.

  Args:
    widths: of both towers.
    depths: pairs.
    head: width of an attention head.
    patch, channels: of the code.
  """
  return [str(sizes.Size(
      *(sizes.Tower(width, depth, width // head) for depth in pair), 1, patch,
      channels)) for width, pair in itertools.product(widths, depths)]


def spread(found: Mapping[str, int], count: int) -> dict[str, int]:
  """`count` of the candidates, spread evenly over the log of their steps."""
  names = list(found)
  wanted = np.linspace(*np.log(
      [found[names[0]], found[names[-1]]]), count)
  chosen = [min(names, key=lambda name: abs(np.log(found[name]) - target))
            for target in wanted]
  return {name: found[name] for name in dict.fromkeys(chosen)}

