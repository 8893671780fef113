"""An experiment for tests: its third unit starts from the first one's."""

import dataclasses

from tests.sweeps import tiny
from vitok import sweeps

PRESETS, CLAIMS = {'cpu': {}}, tiny.CLAIMS


def units(preset):
  first, second, other = tiny.units(preset)
  yield first
  yield other
  yield dataclasses.replace(
      second, name='next', after=(first.name, other.name),
      overrides=second.overrides | {'init_from': '@after'})
  yield sweeps.Unit('last', second.overrides | {'seed': 2},
                    {'role': 'law', 'configuration': 'last'}, ('next',))
