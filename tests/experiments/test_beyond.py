"""What goes beyond the paper: budgets that are spent, a run told in advance."""

import json
import math

import numpy as np
import pytest

from tests import designs
from tests.designs import load
from tests.scaling import synthetic
from vitok import accounting, sizes, validation
from vitok.scaling import analysis, forecast
from vitok.sweeps import run as run_lib

PRESETS = ('cpu', 'gpu1', 'gpu', 'paper')
HERE = {'data__sources': 'photographs', 'evaluation__split': 'test'}
BOTH = [(name, preset) for name in ('iso_flop', 'forecast')
        for preset in PRESETS]


def spent(unit):
  """FLOPs of a unit's training steps."""
  values = unit.overrides
  return values['total_steps'] * values['batch_size'] * accounting.describe(
      sizes.parse(values['model.name']), 1, values['data.resolution']
  )['flops']['train_step']


@pytest.mark.parametrize('name, preset', BOTH)
def test_units_can_run_and_are_evaluated_on_the_way(name, preset):
  experiment = load(name, preset, **HERE)
  for unit in experiment.units:
    config = experiment.resolve(unit)
    validation.check(config)
    assert config.total_steps // config.evaluation.every >= 2


@pytest.mark.parametrize('name', ['iso_flop', 'forecast'])
def test_the_docstring_says_how_it_is_judged(name):
  for word in ('Reproduces', 'Varied:', 'Held', 'Judged:', 'figure'):
    assert word in load(name).about


@pytest.mark.parametrize('preset', PRESETS)
def test_every_run_spends_its_budget_to_a_percent(preset):
  units = load('iso_flop', preset).units
  found = {}
  for unit in units:
    budget = unit.factors['budget']
    assert abs(spent(unit) / budget - 1) <= 0.01, unit.name
    if unit.factors['role'] == 'law':
      found.setdefault((unit.factors['code'], budget), set()).add(
          unit.overrides['model.name'])
  codes = {code for code, _ in found}
  assert {'smallest', 'largest'} <= codes
  for code in codes:
    sizes_ = [names for (c, _), names in found.items() if c == code]
    assert len(sizes_) >= 3 and all(len(names) >= 4 for names in sizes_)


@pytest.mark.parametrize('preset', PRESETS)
def test_the_run_has_ten_times_the_compute_and_comes_last(preset):
  *ladder, run = load('forecast', preset).units
  rungs = [unit for unit in ladder if unit.factors['role'] == 'law']
  assert run.factors['role'] == forecast.ROLE
  assert set(run.after) == {unit.name for unit in rungs}
  assert spent(run) / max(map(spent, rungs)) == pytest.approx(10, rel=0.02)
  assert len({round(spent(unit) / spent(rungs[0]), 1)
              for unit in rungs}) >= forecast.LEAST


# FLOPs that two cores train in 20 minutes; hours on an accelerator or eight.
@pytest.mark.parametrize('name', ['iso_flop', 'forecast', 'decoder_scaling'])
@pytest.mark.parametrize('preset, limit', [
    ('cpu', 90e12), ('gpu1', 24), ('gpu', 48), ('paper', 24 * 14)])
def test_the_price_fits_the_machine_of_the_preset(name, preset, limit):
  value = designs.price(name, preset)
  if preset == 'cpu':
    assert value['total']['train_flops'] < limit
  else:
    assert value['total']['hours'] < limit
    assert value['total']['bytes_per_device'] < 80e9


@pytest.mark.parametrize('preset', PRESETS)
def test_decoders_meet_several_codes_at_one_price_of_a_nat(preset):
  experiment = load('decoder_scaling', preset)
  floats, prices = set(), set()
  for unit in experiment.units:
    config = experiment.resolve(unit)
    floats.add(sizes.from_config(config.model).code_floats(
        1, config.data.resolution))
    prices.add((config.loss.kl_reduction, config.loss.kl_weight))
  assert len(floats) >= 2 and len(prices) == 1
  reduction, weight = prices.pop()
  assert reduction == 'sum'
  # At 16 channels both forms are equal: the mean over a code's floats.
  tokens = (config.data.resolution // sizes.from_config(
      config.model).patch)**2
  assert weight / (3 * config.data.resolution**2) == pytest.approx(
      1e-3 / (16 * tokens))


class Trainer:
  """Stands for `trainer.train`: a run comes to what its FLOPs say."""

  def __init__(self, experiment, refuses=()):
    self.flops = {unit.name: spent(unit) for unit in experiment.units}
    self.roles = {unit.name: unit.factors['role'] for unit in experiment.units}
    self.random, self.told = np.random.default_rng(0), {}
    self.refuses = refuses

  def __call__(self, config, workdir, **_):
    name = workdir.name
    self.told[name] = (workdir.parent / forecast.FILE).exists()
    if name in self.refuses:
      raise FloatingPointError('not finite')
    psnr = (20 + 0.6 * math.log2(self.flops[name] / 1e11)
            + 0.05 * self.random.standard_normal()
            - (self.roles[name] == 'rate'))
    workdir.mkdir(parents=True, exist_ok=True)
    model = synthetic.describe(sizes.parse(config.model.name), config)
    index = np.arange(64)
    synthetic.run(workdir, config, model | {'train_flops': self.flops[name]},
                  psnr, np.zeros(64), index, index, self.random, None)


def sweep(path, **options):
  """Runs the whole experiment with such a trainer."""
  experiment = load('forecast', 'cpu', **HERE)
  trainer = Trainer(experiment, **options)
  path.mkdir(exist_ok=True)
  if not (path / 'price.json').exists():
    (path / 'price.json').write_text(json.dumps({
        'total': {'hours': None}, 'units': [
            {'unit': name, 'train_flops': flops, 'hours': None}
            for name, flops in trainer.flops.items()]}))
  said = []
  outcome = run_lib.run_units(experiment, path, train=trainer, say=said.append)
  return outcome, trainer, said


def test_the_sweep_writes_its_forecast_before_the_run_and_keeps_it(tmp_path):
  outcome, trainer, said = sweep(tmp_path)
  assert not outcome.failed
  # Nothing was foretold while the ladder ran, and all before the run.
  assert [name for name, told in trainer.told.items() if told] == ['run-seed0']
  stored = forecast.read(tmp_path)
  assert any(stored['sha256'] in line for line in said)
  assert stored['times'] == pytest.approx(10, rel=0.02)
  before = (tmp_path / forecast.FILE).read_bytes()
  assert not sweep(tmp_path)[0].failed
  assert (tmp_path / forecast.FILE).read_bytes() == before
  found = analysis.analyse(tmp_path, count=100)
  scores = forecast.scores(stored, found.rows)
  assert scores['psnr'].covered and abs(scores['psnr'].error) < 0.5


def test_a_run_made_before_its_forecast_is_refused(tmp_path):
  sweep(tmp_path)
  (tmp_path / forecast.FILE).unlink()
  (tmp_path / 'run-seed0' / 'DONE').unlink()
  outcome, trainer, _ = sweep(tmp_path)
  assert 'has started' in outcome.failed['run-seed0']
  assert not trainer.told  # It was not trained either.
  assert not (tmp_path / forecast.FILE).exists()


def test_without_a_rung_there_is_neither_forecast_nor_run(tmp_path):
  outcome, trainer, _ = sweep(tmp_path, refuses=['rung2-seed1'])
  assert 'run-seed0' not in trainer.told
  assert 'rung2-seed1' in outcome.failed['run-seed0']
  assert not (tmp_path / forecast.FILE).exists()


def test_a_rate_that_diverges_keeps_the_run_from_nothing(tmp_path):
  outcome, trainer, _ = sweep(tmp_path, refuses=['rung4-lr2.5'])
  assert set(outcome.failed) == {'rung4-lr2.5'}
  assert trainer.told['run-seed0']
  stored = forecast.read(tmp_path)
  assert stored['numbers']['psnr']
  assert not any('-lr' in row['unit'] for row in stored['ladder'])
