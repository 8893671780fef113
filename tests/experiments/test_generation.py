"""The design of the experiment on generation."""

import pathlib

import pytest

from vitok import sizes, sweeps, validation
from vitok.sweeps import nulls
from vitok.sweeps import price as price_lib

FOLDER = pathlib.Path(__file__).parents[2] / 'experiments'
PRESETS = ('cpu', 'gpu1', 'gpu', 'paper')
HERE = {'data.sources': 'photographs', 'evaluation.split': 'test',
        'diffusion.classes': 0}


def load(preset, here=False):
  experiment = sweeps.load(f'{FOLDER}/generation_scaling.py:{preset}',
                           HERE if here else None)
  return experiment, [(unit, experiment.resolve(unit))
                      for unit in experiment.units]


def test_every_unit_can_run():
  _, units = load('cpu', here=True)
  for _, config in units:
    validation.check(config)
  nulls.check([config for _, config in units])  # Of the tokenizers.


@pytest.mark.parametrize('preset', PRESETS)
def test_each_generator_reads_the_tokenizer_of_its_code(preset):
  experiment, units = load(preset)
  made = {unit.name: config for unit, config in units
          if unit.factors['role'] == 'tokenizer'}
  rest = [(unit, config) for unit, config in units if unit.name not in made]
  assert {name for unit, _ in rest for name in unit.after} == set(made)
  for unit, config in rest:
    (before,) = unit.after
    assert config.task == 'generation'
    assert config.model.to_json() == made[before].model.to_json()
    assert experiment.resolve(unit, '/w').tokenizer.workdir == f'/w/{before}'
    assert config.evaluation.numbers[0] == 'gkid'


@pytest.mark.parametrize('preset', PRESETS)
def test_two_generators_see_the_same_codes_with_enough_of_them_inside(preset):
  _, units = load(preset)
  codes = {}
  for unit, config in units:
    if unit.factors.get('grain') == 'middle' and 'generator' in unit.factors:
      size = sizes.from_config(config.model)
      codes.setdefault(unit.factors['generator'], set()).add(
          size.code_floats(1, config.data.resolution))
  assert codes['smaller'] == codes['larger'] and len(codes['smaller']) >= 5
  assert max(codes['smaller']) >= 8 * min(codes['smaller'])
  again = [unit.factors['generator'] for unit, _ in units
           if unit.overrides['seed'] == 1]
  if preset != 'cpu':  # Degrees of freedom of the pure error.
    assert again == ['smaller'] * 3 + ['larger'] * 3


@pytest.mark.parametrize('preset, count, limit', [
    ('gpu1', 1, 24), ('gpu', 8, 72), ('paper', 32, 24 * 14)])
def test_price_and_memory_fit_the_machine(preset, count, limit):
  value = price_lib.price(load(preset)[0], device='h100', count=count)
  assert value['total']['hours'] < limit
  assert value['total']['bytes_per_device'] < 80e9
