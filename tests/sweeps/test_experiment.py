import json
import pathlib

import pytest

from vitok import errors, sweeps
from vitok.sweeps import experiment as experiment_lib

TINY = str(pathlib.Path(__file__).with_name('tiny.py'))
CHAIN = str(pathlib.Path(__file__).with_name('chain.py'))
BODY = 'CLAIMS = ()\nPRESETS = {"cpu": {}}\n'
UNIT = 'from vitok import sweeps\ndef units(preset):\n  yield sweeps.Unit('


def test_units_are_named_and_a_preset_is_the_part_after_the_colon():
  experiment = sweeps.load(TINY)
  assert [u.name for u in experiment.units] == [
      'p8c4-seed0', 'p8c4-seed1', 'p8c8-seed0']
  assert experiment.preset == 'cpu' and experiment.name == 'tiny'
  longer = sweeps.load(TINY + ':gpu1')
  assert longer.resolve(longer.units[0]).total_steps == 4


def test_resolve_puts_the_users_overrides_on_every_unit():
  experiment = sweeps.load(TINY, {'data.sources': 'tfds:cifar10'})
  for unit in experiment.units:
    config = experiment.resolve(unit)
    assert config.data.sources == ('tfds:cifar10',)
    assert config.seed == unit.overrides['seed']


def test_what_a_unit_is_after_stands_in_its_config_as_an_absolute_workdir(
    tmp_path, monkeypatch):
  experiment = sweeps.load(CHAIN)
  unit = experiment.units[2]
  (tmp_path / 'configs').symlink_to(pathlib.Path('configs').absolute())
  monkeypatch.chdir(tmp_path)
  assert experiment.resolve(unit).init_from == '@after'
  for workdir, start in (('w', f'{tmp_path}/w'), ('gs://b/w', 'gs://b/w')):
    assert experiment.resolve(unit, workdir).init_from == f'{start}/p8c4-seed0'
  assert experiment.waves() == [[0, 1], [2], [3]]


def test_a_sweep_from_before_units_could_follow_units_goes_on():
  record = sweeps.load(TINY).record()
  assert all(set(unit) == {'name', 'overrides', 'factors'}
             for unit in record['units'])
  assert sweeps.load(CHAIN).record()['units'][3]['after'] == ['next']


def test_two_spellings_of_an_override_are_one_sweep(tmp_path):
  a = sweeps.load(TINY, {'data.sources': 'tfds:cifar10'})
  b = sweeps.load(TINY, {'data.sources': "('tfds:cifar10',)"})
  assert a.overrides == b.overrides
  sweeps.record(a, tmp_path)
  sweeps.record(b, tmp_path)


@pytest.mark.parametrize('spec, near', [
    (TINY + ':cpuu', 'cpu'), (TINY.replace('tiny', 'tinny'), 'tiny.py')])
def test_an_unknown_file_or_preset_names_the_nearest(spec, near):
  with pytest.raises(errors.InputError, match=near):
    sweeps.load(spec)


@pytest.mark.parametrize('text, reason', [
    ('', 'defines no PRESETS'),
    (BODY + 'def units(preset): return ()', 'yields no unit'),
    (BODY + UNIT + '"a/b", {}, {})', 'folder'),
    (BODY + UNIT + '"a", {}, {})\n  yield sweeps.Unit("a", {}, {})', 'twice'),
    ('raise ValueError("x")', 'fails'),
    (BODY + UNIT + '"a", {}, {}, ("b",))', "'b', which is no unit before"),
    (BODY + UNIT + '"a", {"init_from": "@after"}, {})', 'after no unit'),
])
def test_a_file_that_is_no_experiment_is_refused(tmp_path, text, reason):
  path = tmp_path / 'odd.py'
  path.write_text(text)
  with pytest.raises(errors.InputError, match=reason):
    sweeps.load(str(path))


def test_what_the_experiment_varies_cannot_be_overridden():
  with pytest.raises(errors.InputError, match='model.name.*varies'):
    sweeps.load(TINY, {'model.name': 'S-B/16'})
  with pytest.raises(errors.InputError, match='config.batch_size'):
    sweeps.load(TINY, {'batch_sizes': '3'})


def test_sweep_json_holds_units_claims_and_overrides(tmp_path):
  sweeps.record(sweeps.load(TINY, {'batch_size': '8'}), tmp_path)
  held = json.loads((tmp_path / 'sweep.json').read_text())
  assert held['experiment'] == 'tiny' and held['preset'] == 'cpu'
  assert held['overrides'] == {'batch_size': 8}
  assert held['units'][1]['factors'] == {
      'configuration': 'p8c4', 'role': 'law'}
  assert held['claims'][0]['margin'] == 1.0
  assert held['claims'][0]['level'] == 0.9  # Defaults, too.
  assert len(held['rules']) == 64
  assert held['about'].startswith('An experiment of small')


def test_a_workdir_of_another_sweep_is_refused(tmp_path):
  sweeps.record(sweeps.load(TINY), tmp_path)
  with pytest.raises(errors.InputError, match='preset'):
    sweeps.record(sweeps.load(TINY + ':gpu1'), tmp_path)
  with pytest.raises(errors.InputError, match='overrides'):
    sweeps.record(sweeps.load(TINY, {'batch_size': 8}), tmp_path)


def test_a_changed_unit_is_refused_by_its_name(tmp_path):
  record = sweeps.load(TINY).record()
  record['units'][2]['overrides']['batch_size'] = 9
  (tmp_path / 'sweep.json').write_text(json.dumps(record))
  with pytest.raises(errors.InputError, match='p8c8-seed0'):
    sweeps.record(sweeps.load(TINY), tmp_path)


def test_a_changed_base_config_is_refused_by_its_field(tmp_path):
  record = sweeps.load(TINY).record()
  record['base']['loss']['kl_weight'] = 0.5
  (tmp_path / 'sweep.json').write_text(json.dumps(record))
  with pytest.raises(errors.InputError, match='kl_weight=0.5, now 0.001'):
    sweeps.record(sweeps.load(TINY), tmp_path)
  record['base']['loss']['kl_weight'] = 0.001
  record['base']['logging']['every'] = 7  # What may differ within a run.
  (tmp_path / 'sweep.json').write_text(json.dumps(record))
  sweeps.record(sweeps.load(TINY), tmp_path)


def test_rules_are_not_recorded_after_results(tmp_path):
  (tmp_path / 'p8c4-seed1').mkdir()
  (tmp_path / 'p8c4-seed1/config.json').write_text('{}')
  with pytest.raises(errors.InputError, match='p8c4-seed1 but no sweep.json'):
    sweeps.record(sweeps.load(TINY), tmp_path)


@pytest.mark.parametrize('field, near', [
    ("hold_out='pach'", 'patch'), ("where={'pach': 8}", 'patch'),
    ("margn=1.0", 'margin'), ("margin='1.0'", '1.0')])
def test_a_claim_that_cannot_be_judged_is_refused_before_any_run(
    tmp_path, field, near):
  text = pathlib.Path(TINY).read_text()
  rule = 'predicts' if 'hold_out' in field else 'slope_above'
  start, end = text.index('CLAIMS ='), text.index('COMMON =')
  margin = '' if 'marg' in field else 'margin=1.0, '
  (tmp_path / 'x.py').write_text(text[:start] + (
      f"CLAIMS = (dict(name='a', rule='{rule}', x='code_floats', {margin}"
      f"{field}, text='A.'),)\n\n") + text[end:])
  with pytest.raises(errors.InputError, match=near):
    sweeps.load(f'{tmp_path}/x.py')


def test_claims_stay_as_they_were_at_launch(tmp_path):
  record = sweeps.load(TINY).record()
  record['claims'][0]['margin'] = 0.5
  (tmp_path / 'sweep.json').write_text(json.dumps(record))
  assert sweeps.record(sweeps.load(TINY), tmp_path)['claims'][0][
      'margin'] == 0.5


def test_a_runs_workdir_is_no_sweeps_workdir(tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  with pytest.raises(errors.InputError, match='holds a run'):
    sweeps.record(sweeps.load(TINY), tmp_path)


def test_a_workdir_that_cannot_be_written_is_refused(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.InputError, match='cannot be written'):
    sweeps.record(sweeps.load(TINY), tmp_path / 'file' / 'sweep')


def test_select_refuses_an_index_that_no_unit_has():
  experiment = sweeps.load(TINY)
  assert experiment.select(None) == experiment.units
  assert [u.name for u in experiment.select([2, 0])] == [
      'p8c8-seed0', 'p8c4-seed0']
  with pytest.raises(errors.InputError, match='0 to 2.*nearest.*2'):
    experiment.select([3])


def test_stored_says_what_is_wrong(tmp_path):
  with pytest.raises(errors.InputError, match='holds no sweep.json'):
    experiment_lib.stored(tmp_path)
  (tmp_path / 'sweep.json').write_text('[]')
  with pytest.raises(errors.InputError, match='is not a sweep'):
    experiment_lib.stored(tmp_path)
