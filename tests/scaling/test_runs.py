"""Workdirs as they are: whole, half-done, damaged, mixed up."""

import json

import numpy as np
import pytest

from tests.scaling import synthetic
from vitok import errors
from vitok.scaling import runs, table


@pytest.fixture
def workdir(tmp_path):
  return synthetic.write(tmp_path / 'sweep', synthetic.grid(
      lambda tokens, channels: 20.0, patches=(8,), floats=(32, 64), seeds=1))


def test_a_row_holds_what_was_varied_spent_and_measured(workdir):
  row = table.rows(runs.load_runs(workdir))[0]
  config = json.loads((workdir / 'p8c2-s0/config.json').read_text())
  assert row['unit'] == 'p8c2-s0' and row['configuration'] == 'p8c2'
  assert (row['model'], row['patch'], row['channels'], row['tokens'],
          row['code_floats']) == ('P-N/1x8x2', 8, 2, 16, 32)
  assert row['learning_rate'] == config['optimizer']['learning_rate'] == 2e-3
  assert row['psnr'] == pytest.approx(20, abs=0.2)
  assert row['images'] == 240 and row['groups'] == 60
  assert row['below_pca'] is False and row['pca_psnr'] == pytest.approx(2)
  assert row['seconds_compile'] == 8.0
  assert row['seconds'] == pytest.approx(
      8 + 2.9 + row['train_flops'] / 5e10)
  assert row['coded_bits'] == pytest.approx(2 * row['kl_bits'])


def test_the_peak_rate_follows_the_batch_rule(workdir):
  path = workdir / 'p8c2-s0/config.json'
  config = json.loads(path.read_text())
  config['optimizer']['reference_batch'] = 64
  path.write_text(json.dumps(config))
  assert table.rows(runs.load_runs(workdir))[0]['learning_rate'] == 1e-3


def test_a_tower_that_is_overridden_shows_in_the_models_name(workdir):
  path = workdir / 'p8c2-s0/config.json'
  config = json.loads(path.read_text())
  config['model']['encoder']['depth'] = 3
  path.write_text(json.dumps(config))
  assert table.rows(runs.load_runs(workdir))[0]['model'] == 'Pd3-N/1x8x2'


def test_the_csv_has_a_row_per_unit_and_empty_fields_for_the_unknown(workdir):
  (workdir / 'p8c4-s0/DONE').unlink()
  lines = table.to_csv(table.rows(runs.load_runs(workdir))).splitlines()
  head = lines[0].split(',')
  assert len(lines) == 3 and set(table.COLUMNS) <= set(head)
  cells = lines[2].split(',')
  assert cells[head.index('state')] == 'running'
  assert cells[head.index('psnr')] == ''


def test_units_in_any_state_are_read(workdir):
  (workdir / 'p8c4-s0/DONE').unlink()
  with open(workdir / 'p8c2-s0/metrics.jsonl', 'a') as file:
    file.write('{"step": 12, "eval/ps')  # A line cut short by a kill.
  sweep = runs.load_runs(workdir)
  assert [run.state for run in sweep.runs] == ['done', 'running']
  assert [line['step'] for line in sweep.runs[0].curve][-1] == 400


@pytest.mark.parametrize('column', ['psnr', 'mse'])
def test_a_unit_with_one_image_that_is_not_finite_has_failed(workdir, column):
  path = workdir / 'p8c2-s0/evaluation/400.npz'
  arrays = dict(np.load(path))
  arrays[column][3] = np.nan
  np.savez(path, **arrays)
  sweep = runs.load_runs(workdir)
  assert [run.name for run in sweep.done] == ['p8c4-s0']
  row = table.rows(sweep)[0]
  assert (row['state'], row['error']) == ('failed', 'not finite')
  assert row['psnr'] is None and row['model'] == 'P-N/1x8x2'


def test_a_unit_that_failed_says_why_until_it_is_done(workdir):
  (workdir / 'p8c2-s0/FAILED').write_text('{"error": "OSError: disk"}')
  assert runs.load_runs(workdir).runs[0].state == 'done'
  for name in ('DONE', 'model.json'):  # Failed on the way, then at the start.
    (workdir / 'p8c2-s0' / name).unlink()
    row = table.rows(runs.load_runs(workdir))[0]
    assert (row['state'], row['error']) == ('failed', 'OSError: disk')


def test_nan_columns_become_unknown(workdir):
  path = workdir / 'p8c2-s0/evaluation/400.npz'
  arrays = dict(np.load(path))
  np.savez(path, **arrays | dict(ssim=np.full(240, np.nan)))
  assert table.rows(runs.load_runs(workdir))[0]['ssim'] is None


def test_no_sweep_is_refused_naming_what_was_found(tmp_path):
  with pytest.raises(errors.InputError, match='is not a folder'):
    runs.load_runs(tmp_path / 'none')
  with pytest.raises(errors.InputError, match='found nothing'):
    runs.load_runs(tmp_path)
  (tmp_path / 'notes.txt').write_text('')
  with pytest.raises(errors.InputError, match='found notes.txt'):
    runs.load_runs(tmp_path)


def test_two_protocols_are_not_compared(workdir):
  path = workdir / 'p8c4-s0/evaluation/protocol.json'
  path.write_text('{"id": "other"}')
  with pytest.raises(errors.InputError, match='is not the protocol of p8c2'):
    runs.load_runs(workdir)


def _measure(workdir, unit, numbers, **definition):
  """Adds numbers to a unit's last evaluation, as `vitok.evaluate` does."""
  folder = workdir / unit / 'evaluation'
  definition = dict(network='inception_fid', count=0, data='') | definition
  ids = {name: str(sorted(definition.items())) for name in numbers}
  (folder / 'protocol.json').write_text(json.dumps(dict(
      id=f'all {ids}', ids={'psnr': 'abc'} | ids, count=240, psnr='per frame',
      numbers={name: definition for name in numbers})))
  (folder / '400.json').write_text(json.dumps(dict(metrics={
      f'eval/{name}': value for name, value in numbers.items()})))
  return runs.load_runs(workdir)


def test_numbers_of_networks_are_columns_with_what_is_absent(workdir):
  path = workdir / 'p8c2-s0/evaluation/400.npz'
  np.savez(path, **dict(np.load(path)), lpips=np.full(240, .25))
  row, other = table.rows(_measure(workdir, 'p8c2-s0', {
      'rkid': .5, 'rkid_se': .01, 'ris_absent': 'get its network'}))
  assert (row['lpips'], row['rkid'], row['rkid_se']) == (.25, .5, .01)
  assert row['absent'] == 'ris' and row['rfid'] is None
  assert row['psnr'] == pytest.approx(20, abs=.2)
  assert other['lpips'] is other['rkid'] is None and other['absent'] == ''


def test_only_equal_definitions_of_a_number_are_compared(workdir):
  _measure(workdir, 'p8c2-s0', {'rkid': .5})
  _measure(workdir, 'p8c4-s0', {'lpips': .5})  # Another number: no conflict.
  with pytest.raises(errors.InputError, match=(
      "p8c2-s0 for rkid.*count is 64 and 240, network is 'else' and 'incep")):
    _measure(workdir, 'p8c4-s0', {'rkid': .5}, network='else', count=64)


def test_null_models_have_the_definitions_of_the_units(workdir):
  sweep = _measure(workdir, 'p8c2-s0', {'rkid': .5})
  path = workdir / 'nulls.json'
  held = json.loads(path.read_text())
  held['rows'][0] |= dict(rkid=.7, lpips=.3)
  ids = sweep.runs[0].measured['ids']
  path.write_text(json.dumps(held | dict(ids=ids)))
  row = table.rows(runs.load_runs(workdir))[0]
  assert (row['pca_rkid'], row['pca_lpips']) == (.7, .3)
  path.write_text(json.dumps(held | dict(ids=ids | {'rkid': 'else'})))
  with pytest.raises(errors.InputError, match='nulls.json.*p8c2-s0 for rkid'):
    runs.load_runs(workdir)


def test_other_images_are_not_compared(workdir):
  path = workdir / 'p8c4-s0/evaluation/400.npz'
  arrays = dict(np.load(path))
  np.savez(path, **arrays | dict(index=arrays['index'] + 1))
  with pytest.raises(errors.InputError, match='not evaluated on the images'):
    runs.load_runs(workdir)


@pytest.mark.parametrize('name', ['sweep.json', 'p8c2-s0/DONE',
                                  'p8c2-s0/evaluation/400.npz',
                                  'p8c2-s0/evaluation/protocol.json'])
def test_a_damaged_file_is_named(workdir, name):
  path = workdir / name
  path.write_bytes(path.read_bytes()[:15])
  with pytest.raises(errors.InputError, match=path.name):
    runs.load_runs(workdir)


def test_an_unknown_column_is_refused_with_the_nearest(workdir):
  rows = table.rows(runs.load_runs(workdir))
  with pytest.raises(errors.InputError, match='choice: code_floats'):
    table.values(rows, 'code_float')


@pytest.mark.parametrize('name, content, reason', [
    ('sweep.json', {'experiment': 'a', 'preset': 'cpu'}, "no 'units'"),
    ('sweep.json', {'units': []}, "no 'experiment'"),
    ('sweep.json', {'experiment': 'a', 'preset': 'cpu', 'units': [{}]},
     "has a 'name'"),
    ('sweep.json', [1], 'no object'),
    ('p8c2-s0/DONE', {'metrics': {}}, "no 'step'"),
    ('p8c2-s0/evaluation/protocol.json', ['abc'], 'no object'),
    ('p8c2-s0/evaluation/protocol.json', {'source': 'a'}, "no 'id'")])
def test_a_file_that_holds_something_else_is_named_with_the_reason(
    workdir, name, content, reason):
  (workdir / name).write_text(json.dumps(content))
  with pytest.raises(errors.InputError) as caught:
    runs.load_runs(workdir)
  assert caught.value.key == str(workdir / name)
  assert reason in caught.value.reason


@pytest.mark.parametrize('column', ['index', 'group', 'psnr', 'mse'])
def test_an_evaluation_without_a_column_is_named(workdir, column):
  path = workdir / 'p8c2-s0/evaluation/400.npz'
  arrays = dict(np.load(path))
  np.savez(path, **{key: value for key, value in arrays.items()
                    if key != column})
  with pytest.raises(errors.InputError) as caught:
    runs.load_runs(workdir)
  assert caught.value.key == str(path)
  assert f"no '{column}'" in caught.value.reason


def test_null_models_without_an_index_are_refused(workdir):
  arrays = dict(np.load(workdir / 'nulls.npz'))
  del arrays['index']
  np.savez(workdir / 'nulls.npz', **arrays)
  with pytest.raises(errors.InputError, match='nulls.npz'):
    runs.load_runs(workdir)
