"""Finding 5's design, and that its claims tell what they say."""

import json
import pathlib

import numpy as np
import pytest

from tests import real_weights
from tests.scaling import synthetic
from vitok import sweeps, validation
from vitok.scaling import analysis, report, style

FILE = pathlib.Path(__file__).parents[2] / 'experiments' / 'loss_tradeoff.py'
HERE = {'data.sources': 'photographs', 'evaluation.split': 'test'}
PRESETS = ('cpu', 'gpu1', 'gpu', 'paper')


@pytest.mark.parametrize('preset', PRESETS)
def test_every_unit_can_run(preset):
  real_weights.load('lpips_vgg16'), real_weights.load('lpips_alexnet')
  experiment = sweeps.load(f'{FILE}:{preset}', HERE)
  for config in {str(config): config for config in map(
      experiment.resolve, experiment.units)}.values():
    validation.check(config)


def _loss(unit):
  return {'loss.pixel': 'l2'} | {
      key: value for key, value in unit.overrides.items()
      if key.startswith('loss.')}


@pytest.mark.parametrize('preset', PRESETS)
def test_the_control_differs_in_the_weight_alone_and_follows_its_seed(preset):
  units = {unit.name: unit for unit in sweeps.load(f'{FILE}:{preset}').units}
  for seed in (0, 1):
    control, *others = (units[f'{name}-seed{seed}']
                        for name in ('control', 'gan', 'gan-twice'))
    source = units[f'l2-lpips{0 if preset == "cpu" else 1}-seed{seed}']
    for unit in (control, *others):
      assert unit.after == (source.name,)
      assert _loss(unit) == _loss(source)
      assert unit.overrides['init_from'] == '@after'
      assert unit.overrides['seed'] == source.overrides['seed'] == seed
      changed = {key for key in unit.overrides
                 if unit.overrides[key] != control.overrides[key]}
      assert changed == ({'adversarial.schedule.weight'}
                         if unit is not control else set())
  weights = [units[f'{name}-seed0'].overrides['adversarial.schedule.weight']
             for name in ('control', 'gan', 'gan-twice')]
  assert weights[0] == 0 < weights[1] == weights[2] / 2


def sweep(path, psnr, lpips):
  """A finished sweep; functions of (name of the configuration, factors)."""
  experiment = sweeps.load(f'{FILE}:cpu')
  units = []
  for unit in experiment.units:
    factors = dict(unit.factors)
    name = factors.pop('configuration')
    units.append(synthetic.unit(
        unit.name, name, 'A-F/1x4x4', seed=unit.overrides['seed'],
        psnr=psnr(name, factors) + 0.01 * unit.overrides['seed'], **factors))
  claims = experiment.record()['claims']
  synthetic.write(path, units, claims, about=experiment.about)
  for unit in units:
    file, = (path / unit['name'] / 'evaluation').glob('*.npz')
    with np.load(file) as stored:
      arrays = dict(stored)
    noise = 0.02 * np.sin(np.arange(synthetic.IMAGES))
    value = lpips(unit['configuration'], unit) + 0.0002 * unit['seed']
    np.savez(file, **arrays, lpips=value + noise - noise.mean())
    done = json.loads((path / unit['name'] / 'DONE').read_text())
    done['metrics']['eval/rkid'] = value / 10  # They go together here.
    (path / unit['name'] / 'DONE').write_text(json.dumps(done))
  return path


def words(path):
  return {verdict.claim.name: verdict.word
          for verdict in analysis.analyse(path, count=200).verdicts}


def steps(factors):
  """How many steps of LPIPS and of the adversary a unit has."""
  return np.log2(factors['perception']), np.log2(factors['adversary'])


def test_the_papers_findings_hold_where_they_are_true(
    tmp_path, monkeypatch):
  path = sweep(
      tmp_path / 'sweep',
      lambda name, f: 24 - 0.3 * steps(f)[0] - 0.6 * steps(f)[1],
      lambda name, f: 0.3 - 0.05 * steps(f)[0] - 0.01 * steps(f)[1])
  assert set(words(path).values()) == {'holds'}, words(path)
  monkeypatch.setattr(style, 'png', lambda figure: b'')
  text = report.write(path, count=50).read_text()
  assert 'A step of the adversary lowers rKID.' in text and '>nan' not in text


def test_a_control_that_moves_and_an_adversary_that_only_costs_are_told(
    tmp_path):
  found = words(sweep(
      tmp_path / 'sweep',
      lambda name, f: 24 + 0.5 * np.log2(f['patience']) - 0.6 * steps(f)[1],
      lambda name, f: 0.3 + 0.01 * steps(f)[1]))
  assert found['adversary_looks_real'] == 'does not hold'
  assert found['adversary_is_perceived'] == 'does not hold'
  assert found['control_keeps_fidelity'] == 'does not hold'
  assert found['adversary_costs_fidelity'] == 'holds'
