"""From points of a design to units: seeds, longer runs, rates, arms.

Units are a fixed design. The law is fitted to the 'law' units; the others
answer one question each: would the law be another after more steps, at
another learning rate, under another loss?
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping

from vitok.sweeps.experiment import Unit


@dataclasses.dataclass(frozen=True)
class Point:
  """One configuration of a design.

  Attributes:
    name: label of the configuration: 'p8c16'.
    overrides: {dotted config key: value}, without seed, steps and rate.
    rate: `optimizer.learning_rate` of its law units.
  """
  name: str
  overrides: dict
  rate: float

  def unit(self, label: str, steps: int, factors: dict, *, seed: int = 0,
           multiple: float = 1.0, changes: Mapping = ()) -> Unit:
    """One run of this configuration.

    Args:
      label: what follows the configuration in the unit's name.
      steps: of training.
      factors: 'role' and, for an arm, 'arm'.
      seed: of initial values, data order and noise.
      multiple: of the configuration's learning rate.
      changes: overrides of an arm, on top of all others.
    """
    return Unit(
        name=f'{self.name}-{label}',
        overrides={**self.overrides, 'seed': seed, 'total_steps': steps,
                   'optimizer.learning_rate': float(
                       f'{self.rate * multiple:.6g}'),
                   **dict(changes)},
        factors={'configuration': self.name, **factors})


def expand(points, *, steps: int, seeds: Mapping[str, int] | int = 1,
           longer: Collection[str] = (), ratio: int = 3,
           tuned: Collection[str] = (), multiples: Collection[float] = (),
           arms: Mapping[str, tuple] = None) -> Iterator[Unit]:
  """The units of a design, those that share a compiled step side by side.

  Args:
    points: `Point`s.
    steps: of a law unit.
    seeds: how many seeds each point has, or {name: number} (1 elsewhere).
    longer: names of the points also trained `ratio` times as long, once.
    ratio: see `longer`.
    tuned: names of the points also trained at other learning rates, once.
    multiples: of the point's own rate, for `tuned`.
    arms: {name of the arm: (overrides, names of its points)}.

  Yields:
    `Unit`s.
  """
  for point in points:
    count = seeds if isinstance(seeds, int) else seeds.get(point.name, 1)
    for seed in range(count):
      yield point.unit(f'seed{seed}', steps, {'role': 'law'}, seed=seed)
    if point.name in longer:
      yield point.unit(f'{ratio}x', steps * ratio, {'role': 'longer'})
    if point.name in tuned:
      for multiple in multiples:
        yield point.unit(f'lr{multiple:g}', steps, {'role': 'rate'},
                         multiple=multiple)
    for arm, (changes, names) in (arms or {}).items():
      if point.name in names:
        yield point.unit(arm, steps, {'role': 'arm', 'arm': arm},
                         changes=changes)


def common(numbers: Mapping) -> dict:
  """Overrides that every unit of a preset has.

  Args:
    numbers: a preset, with dicts of fields under 'data', 'evaluation' and
      'logging', and 'batch_size', 'dtype'.

  Returns:
    {dotted config key: value}. The learning rate of a `Point` is the peak
    itself: no scaling by the batch.
  """
  grouped = {f'{group}.{field}': value
             for group in ('data', 'evaluation', 'logging')
             for field, value in numbers[group].items()}
  return {
      **grouped, 'batch_size': numbers['batch_size'],
      'model.dtype': numbers['dtype'], 'optimizer.reference_batch': 0,
      'optimizer.warmup': 0.1,
  }
