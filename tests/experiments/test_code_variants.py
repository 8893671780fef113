"""The comparison of codes: equal E, all that the claims need, affordable."""

import math
import pathlib

import pytest

from tests.scaling import synthetic
from vitok import sizes, sweeps, validation
from vitok.scaling import analysis
from vitok.scaling import claims as claims_lib
from vitok.sweeps import price as price_lib

FILE = pathlib.Path(__file__).parents[2] / 'experiments' / 'code_variants.py'
PRESETS = ('cpu', 'gpu1', 'gpu', 'paper')
HERE = {'data.sources': 'photographs', 'evaluation.split': 'test'}


def load(preset, overrides=None):
  return sweeps.load(f'{FILE}:{preset}', overrides)


@pytest.mark.parametrize('preset', PRESETS)
def test_each_code_size_is_reached_by_patches_latents_and_cut_codes(preset):
  kinds = {}
  experiment = load(preset, HERE)
  for unit in experiment.units:
    config = experiment.resolve(unit)
    validation.check(config)
    size = sizes.from_config(config.model)
    assert (size.latents > 0) == (unit.factors['latent'] == 2)
    assert bool(config.model.keep) == (unit.factors['cut'] == 2)
    if unit.factors['role'] == 'law':
      floats = size.code_floats(1, config.data.resolution)
      assert f'{floats}-' in unit.name
      kinds.setdefault(floats, set()).add(
          (unit.factors['latent'], unit.factors['cut']))
      # The last length is the whole code (validation), others halve it.
      assert all(b == 2 * a for a, b in zip(
          config.model.keep, config.model.keep[1:], strict=False))
  assert len(kinds) >= 2
  assert all(len(found) == 3 for found in kinds.values())


@pytest.mark.parametrize('preset', PRESETS)
def test_differences_of_half_a_decibel_can_be_told(preset):
  experiment = load(preset)
  effects = price_lib.price(experiment, device='h100')['smallest_effects']
  for claim in claims_lib.parse(experiment.claims):
    assert effects[claim.name] < claim.margin


def test_two_cores_and_one_accelerator_can_afford_it():
  assert price_lib.price(load('cpu'), device='h100')[
      'total']['train_flops'] < 40e12
  assert price_lib.price(load('gpu1'), device='h100')['total']['hours'] < 24


@pytest.mark.parametrize('lost, verdict', [
    (0.1, 'holds'), (1.5, 'does not hold'), (0.5, 'undecided')])
def test_the_report_tells_by_how_much_latents_differ(tmp_path, lost, verdict):
  """Synthetic units of known quality: latents lose so many dB."""
  units = []
  for unit in load('cpu').units:
    size, steps = sizes.parse(unit.overrides['model.name']), unit.overrides[
        'total_steps']
    rate = unit.overrides['optimizer.learning_rate']
    psnr = 15 + 2 * math.log2(size.code_floats(1, 32) / 16) + steps / 1e4
    psnr -= lost * (unit.factors['latent'] - 1) + abs(math.log(rate / 4e-3))
    # A tie would leave no error between seeds.
    psnr += 0.04 * unit.overrides['seed'] * (-1)**len(units)
    units.append(dict(unit.factors, name=unit.name, model=str(size),
                      seed=unit.overrides['seed'], steps=steps, rate=rate,
                      psnr=psnr))
  found = analysis.analyse(synthetic.write(
      tmp_path, units, claims_lib.recorded(load('cpu').claims)), count=500)
  latents, cut = found.verdicts
  assert latents.word == verdict, latents.reason
  assert latents.estimate == pytest.approx(-lost, abs=0.1)
  assert cut.word == 'holds', cut.reason
