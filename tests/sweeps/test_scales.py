"""The scales that experiments share."""

import pytest

from vitok import config as config_lib
from vitok import sweeps


@pytest.mark.parametrize('name', sweeps.SCALES)
def test_a_scale_overrides_fields_with_absolute_rates(name):
  config = config_lib.override(config_lib.default(), sweeps.SCALES[name])
  assert config.optimizer.reference_batch == 0


def test_at_paper_scale_losses_and_the_floor_of_rates_are_the_papers():
  scale = sweeps.SCALES['paper']
  assert scale['loss.lpips_weight'] == 1
  assert scale['optimizer.min_learning_rate'] == 1e-5
  assert scale['batch_size'] == 1024 and scale['total_steps'] == 100_000


def test_every_scale_sets_the_same_fields_but_for_the_cpus_own():
  scales = {name: set(scale) for name, scale in sweeps.SCALES.items()}
  shared = set.union(*(scale for name, scale in scales.items()
                       if not name.startswith('cpu'))) - {'evaluation.count'}
  assert all(shared <= scale for scale in scales.values())
