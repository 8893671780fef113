"""From points of a design to units: seeds, longer runs, rates, arms.

Units are a fixed design. The law is fitted to the 'law' units; the others
answer one question each: would the law be another after more steps, at
another learning rate, under another loss?
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping

from vitok.sweeps.experiment import Unit
from vitok.sweeps.scales import GENERATORS, SCALES


@dataclasses.dataclass(frozen=True)
class Point:
  """One configuration of a design.

  Attributes:
    name: label of the configuration: 'p8c16'.
    overrides: {dotted config key: value}, without seed and rate;
      'total_steps' is what a law unit trains.
    rate: `optimizer.learning_rate` of its law units.
    columns: factors of all its units, columns of the report's table.
  """
  name: str
  overrides: dict
  rate: float
  columns: dict = dataclasses.field(default_factory=dict)

  def unit(self, label: str, factors: dict, *, seed: int = 0, ratio: int = 1,
           multiple: float = 1.0, changes: Mapping = ()) -> Unit:
    """One run of this configuration.

    Args:
      label: what follows the configuration in the unit's name.
      factors: 'role' and, for an arm, 'arm'.
      seed: of initial values, data order and noise.
      ratio: of the configuration's steps.
      multiple: of the configuration's learning rate.
      changes: overrides of an arm, on top of all others.
    """
    return Unit(
        name=f'{self.name}-{label}',
        overrides={**self.overrides, 'seed': seed,
                   'total_steps': ratio * self.overrides['total_steps'],
                   'optimizer.learning_rate': float(
                       f'{self.rate * multiple:.6g}'),
                   **dict(changes)},
        factors={'configuration': self.name, **self.columns, **factors})


def price_per_nat(scale: Mapping, floats: int) -> dict:
  """Overrides of a loss in which a nat costs the same for codes of any size.

  Args:
    scale: overrides with 'data.resolution', and 'data.frames' of clips.
    floats: of the code for which the paper's mean over the code, with its
      weight of 1e-3, has the same price. A sum is divided by the numbers of an
      example where a mean is by those of a code.
  """
  weight = 1e-3 * 3 * scale.get('data.frames', 1) * (
      scale['data.resolution']**2) / floats
  return {'loss.kl_reduction': 'sum', 'loss.kl_weight': weight}


def expand(points, *, seeds: Mapping[str, int] | int = 1,
           longer: Collection[str] = (), ratio: int = 3,
           tuned: Collection[str] = (),
           multiples: Collection[float] = (0.5, 2.0),
           arms: Mapping[str, tuple] = None,
           arm: str = '', after: tuple[str, ...] = ()) -> Iterator[Unit]:
  """The units of a design, those that share a compiled step side by side.

  Args:
    points: `Point`s.
    seeds: how many seeds each point has, or {name: number} (1 elsewhere).
    longer: names of the points also trained `ratio` times as long, once.
    ratio: see `longer`.
    tuned: names of the points also trained at other learning rates, once.
    multiples: of the point's own rate, for `tuned`.
    arms: {name of the arm: (overrides, names of its points)}.
    arm: name of the arm that all these points are, '' if they are the law.
    after: units that must be done before any of these (`Unit.after`).

  Yields:
    `Unit`s.
  """
  role = {'role': 'arm', 'arm': arm} if arm else {'role': 'law'}
  for unit in _expanded(points, seeds, longer, ratio, tuned, multiples,
                        arms or {}, role):
    yield dataclasses.replace(unit, after=after)


def _expanded(points, seeds, longer, ratio, tuned, multiples, arms, role):
  for point in points:
    count = seeds if isinstance(seeds, int) else seeds.get(point.name, 1)
    for seed in range(count):
      yield point.unit(f'seed{seed}', role, seed=seed)
    if point.name in longer:
      yield point.unit(f'{ratio}x', {'role': 'longer'}, ratio=ratio)
    if point.name in tuned:
      for multiple in multiples:
        yield point.unit(f'lr{multiple:g}', {'role': 'rate'},
                         multiple=multiple)
    for arm, (changes, names) in arms.items():
      if point.name in names:
        yield point.unit(arm, {'role': 'arm', 'arm': arm}, changes=changes)


def generators(points, preset: str) -> Iterator[Unit]:
  """DiTs on the codes of points' first seeds: two seeds each, arm 'generator'.

  Args:
    points: `Point`s of tokenizers, with a column `generated` of 0, whose units
      '...-seed0' are in the design.
    preset: key of `GENERATORS`.

  Yields:
    `Unit`s, with a column `generated` of 1.
  """
  own = GENERATORS[preset]
  for point in points:
    yield from expand([Point(
        f'{point.name}-dit', {**point.overrides, **own},
        own['optimizer.learning_rate'], {**point.columns, 'generated': 1})],
        seeds=2, arm='generator', after=(f'{point.name}-seed0',))


def tower_sizes(prefix: str, preset: str, sizes: Mapping[str, float],
                model: str, layers: Mapping = (),
                generated: bool = False) -> Iterator[Unit]:
  """A design that varies one tower: four seeds a size, ends probed.

  Args:
    prefix: of the configurations' names.
    preset: key of `SCALES`.
    sizes: {the tower's size: peak learning rate}, from small to large.
    model: name of the model, with {} for the size.
    layers: overrides that all units share.
    generated: whether each size has `generators`.

  Yields:
    `Unit`s; the smallest and the largest size also longer and at other rates.
  """
  points = [Point(prefix + name, {**SCALES[preset], **dict(layers),
                                  'model.name': model.format(name)}, rate,
                  {'generated': 0})
            for name, rate in sizes.items()]
  ends = points[0].name, points[-1].name
  yield from expand(points, seeds=4, longer=ends, tuned=ends)
  if generated:
    yield from generators(points, preset)
