import dataclasses
import json
import pathlib

import pytest

from tests import tiny_run
from tests.sweeps import tiny
from vitok import accounting, errors, sizes, sweeps, tasks
from vitok.sweeps import price as price_lib
from vitok.sweeps import run as run_lib

TINY = str(pathlib.Path(__file__).with_name('tiny.py'))


@pytest.fixture(scope='module')
def value():
  return price_lib.price(sweeps.load(TINY), device='h100', efficiency=0.5)


def test_a_units_price_is_accounting_times_steps_and_batch(value):
  experiment = sweeps.load(TINY)
  config = experiment.resolve(experiment.units[0])
  described = accounting.describe(
      sizes.from_config(config.model), 1, 16, batch=4,
      positions=config.model.positions)
  row = value['units'][0]
  assert row['unit'] == 'p8c4-seed0' and row['role'] == 'law'
  assert row['parameters'] == described['parameters']['total']
  assert row['bytes_per_device'] == described['memory']['total']
  flops = described['flops']['train_step'] * 4 * 2
  assert row['train_flops'] == flops
  assert row['hours'] == pytest.approx(flops / (494.7e12 * 0.5) / 3600)


def test_hours_of_a_generator_are_with_the_encoder_unless_codes_are_cached():
  def priced(source):
    unit = sweeps.Unit('dit', {
        **tiny_run.DIT, **tiny.COMMON, 'model.name': 'A-A/1x8x4',
        'tokenizer.workdir': '@after', 'tokenizer.sample': False,
        'data.sources': (source,)}, {'role': 'law'})
    experiment = dataclasses.replace(sweeps.load(TINY), units=(unit,))
    (row,) = price_lib.price(experiment, device='h100')['units']
    cost = tasks.build(experiment.resolve(unit)).cost()
    return row, cost['flops']['train_step'], cost['tokenizer']['encode']

  (images, train, encode), (cached, _, _) = map(
      priced, ('photographs', 'codes:/nowhere'))
  assert images['train_flops'] == cached['train_flops'] == train * 4 * 4
  assert images['hours'] / cached['hours'] == pytest.approx(
      1 + encode / train)


def test_the_total_is_the_sum_and_the_largest_memory(value):
  rows = value['units']
  assert value['total']['train_flops'] == sum(r['train_flops'] for r in rows)
  assert value['total']['bytes_per_device'] == max(
      row['bytes_per_device'] for row in rows)
  assert value['total']['hours'] == pytest.approx(sum(
      row['hours'] for row in rows))


def test_shares_count_the_networks_of_losses_where_the_device_is_known(value):
  assert price_lib.shares(value) == {
      row['unit']: row['hours'] for row in value['units']}
  unknown = value | {'total': value['total'] | {'hours': None}}
  assert price_lib.shares(unknown) == {
      row['unit']: row['train_flops'] for row in value['units']}


def test_more_devices_take_less_time_and_memory(value):
  eight = price_lib.price(sweeps.load(TINY), device='h100', count=4,
                          efficiency=0.5)
  assert eight['total']['hours'] == pytest.approx(value['total']['hours'] / 4)
  assert eight['total']['bytes_per_device'] < value['total'][
      'bytes_per_device']


def test_the_local_peak_is_measured():
  local = price_lib.price(sweeps.load(TINY))
  assert local['device'] == 'local' and local['peak_flops'] > 1e9


def test_every_claim_has_the_smallest_effect_that_the_design_detects(value):
  assert value['smallest_effects']['code_size_sets_quality'] > 0


def test_price_json_is_never_rewritten(tmp_path):
  experiment = sweeps.load(TINY)
  lines = []
  h100, v4 = (price_lib.price(experiment, device=d) for d in ('h100', 'v4'))
  first = price_lib.write(experiment, tmp_path, lines.append, h100)
  before = (tmp_path / 'price.json').read_text()
  again = price_lib.write(experiment, tmp_path, lines.append, v4)
  assert again == json.loads(json.dumps(first)) and len(lines) == 1
  assert (tmp_path / 'price.json').read_text() == before


def test_the_table_ends_with_the_total_and_the_smallest_effects(value):
  shown = price_lib.show(value)
  assert 'hours on 1 x h100 (495 TFLOP/s peak) at 50% of it' in shown
  assert shown.splitlines()[4].startswith('total')
  assert 'code_size_sets_quality: 0.' in shown


@pytest.mark.parametrize('options, key', [
    (dict(device='h1000'), '--device'), (dict(count=-1), '--devices'),
    (dict(efficiency=0), '--efficiency')])
def test_odd_devices_are_refused(options, key):
  with pytest.raises(errors.InputError, match=key):
    price_lib.price(sweeps.load(TINY), **options)


@pytest.mark.parametrize('key, value, own', [
    ('batch_size', 8, 4), ('data.resolution', 32, 16)])
def test_an_override_under_which_units_miss_their_budget_is_refused(
    key, value, own, tmp_path):
  tiny_ = sweeps.load(TINY)
  budgets = {row['unit']: row['train_flops']
             for row in price_lib.price(tiny_, device='h100')['units']}
  # Within its tolerance of 1%, and with an override that costs nothing.
  experiment = dataclasses.replace(
      tiny_, overrides={'data.flip': False}, units=tuple(
          dataclasses.replace(unit, factors=unit.factors | {
              'budget': 0.992 * budgets[unit.name]}) for unit in tiny_.units))
  price_lib.price(experiment, device='h100')
  other = dataclasses.replace(
      experiment, overrides=experiment.overrides | {key: value})
  refusal = (f'config.{key}={value}: p8c4-seed0 would train for .* budget of '
             f'.*nearest valid choice: {own}')
  with pytest.raises(errors.InputError, match=refusal):
    price_lib.price(other, device='h100')
  with pytest.raises(errors.InputError, match=refusal):
    run_lib.run_units(other, tmp_path, train=None)
  assert not list(tmp_path.iterdir())  # Its workdir is free for another.


def test_a_budget_that_the_experiment_itself_misses_is_refused():
  experiment = sweeps.load(TINY)
  unit = dataclasses.replace(experiment.units[0], factors={'budget': 1e6})
  with pytest.raises(errors.InputError, match='tiny.py:cpu.*p8c4-seed0.*1e.06'):
    price_lib.price(dataclasses.replace(experiment, units=(unit,)),
                    device='h100')
