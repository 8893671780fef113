"""Units of generators are read with what their tokenizers measured."""

import json

import numpy as np
import pytest

from tests.scaling import synthetic
from vitok.scaling import analysis, report, runs, style, table

CLAIMS = (
    dict(name='rises', rule='slope_above', x='code_floats', margin=1.0,
         requires=['complete'], text='PSNR rises.'),
    dict(name='inside', rule='interior', x='code_floats', y='gkid_best',
         margin=0.5, requires=['complete', 'seeds'],
         text='Generation has a best E.'))
CHANNELS = (1, 2, 4, 8, 16)


def quality(channels, scale):
  """gKID with its best at four channels; guidance of 2 helps."""
  return 0.1 + 0.02 * (np.log2(channels) - 2)**2 - 0.01 * (scale == 2)


@pytest.fixture
def sweep(tmp_path):
  """Five tokenizers and two seeds of a generator on each."""
  synthetic.write(tmp_path, [
      synthetic.unit(f'c{c}-tokenizer', f'c{c}', f'P-N/1x4x{c}',
                     role='tokenizer', psnr=18 + 2 * i)
      for i, c in enumerate(CHANNELS)], CLAIMS)
  for number, channels in enumerate(CHANNELS):
    add_generators(
        tmp_path, f'c{channels}-dit', f'c{channels}-tokenizer',
        {'role': 'law', 'configuration': f'c{channels}'},
        lambda seed, number=number, channels=channels: {
            f'eval/gkid@{scale}': quality(channels, scale) + 1e-3 * seed * (
                -1)**number for scale in (1, 2)})
  return tmp_path


def add_generators(path, name, source, factors, metrics):
  """Two seeds of a generator after a unit of a sweep; `metrics` of a seed."""
  info = json.loads((path / 'sweep.json').read_text())
  for seed in range(2):
    info['units'].append(dict(name=f'{name}{seed}', overrides={'seed': seed},
                              after=[source], factors=factors))
    generator(path / f'{name}{seed}', path / source, seed, metrics(seed))
  (path / 'sweep.json').write_text(json.dumps(info))


def generator(path, source, seed, metrics):
  (path / 'evaluation').mkdir(parents=True)
  config = json.loads((source / 'config.json').read_text())
  config |= {'task': 'generation', 'total_steps': 700, 'seed': seed}
  index = np.load(source / 'evaluation/400.npz')['index']
  np.savez(path / 'evaluation/700.npz', index=index, group=index,
           loss=np.ones(len(index)))
  metrics['eval/gkid'] = metrics['eval/gkid@1']
  for name, content in {
      'config.json': config, 'DONE': dict(step=700, metrics=metrics),
      'model.json': dict(tokens=64, code_floats=64, train_flops=5e9,
                         parameters=dict(total=1234)),
      'evaluation/protocol.json': dict(
          id='own', ids={'psnr': 'own', 'gkid': 'samples'},
          numbers={'gkid': {}})}.items():
    (path / name).write_text(json.dumps(content))


def test_rows_are_generators_with_their_tokenizers_code_and_quality(sweep):
  rows = table.rows(runs.load_runs(sweep))
  assert len(rows) == 10 and {row['role'] for row in rows} == {'law'}
  row = rows[0]
  assert row['code_floats'] == 64 and row['patch'] == 4
  assert row['psnr'] == pytest.approx(18) and row['steps'] == 700
  assert row['generator_parameters'] == 1234 and row['train_flops'] == 5e9
  assert row['encoder_parameters'] > 0
  assert row['gkid'] == pytest.approx(quality(1, 1))
  assert row['gkid_best'] == row['gkid@2'] == pytest.approx(quality(1, 2))


def test_both_sides_of_the_finding_are_judged_in_one_sweep(sweep):
  rises, inside = analysis.analyse(sweep, count=200).verdicts
  assert rises.word == 'holds' and rises.estimate == pytest.approx(2, abs=.05)
  assert inside.word == 'holds', inside.reason


def test_what_was_not_measured_is_not_testable_and_says_how_to_get_it(
    sweep, monkeypatch):
  for path in sweep.glob('*-dit?/DONE'):
    done = json.loads(path.read_text())
    done['metrics'] = {'eval/gkid_absent': 'python tools/fetch_weights.py x'}
    path.write_text(json.dumps(done))
  rises, inside = analysis.analyse(sweep, count=200).verdicts
  assert rises.word == 'holds' and inside.word == 'not testable here'
  assert 'for 0 of 10 units: python tools/fetch_weights.py x' in inside.reason
  monkeypatch.setattr(style, 'png', lambda figure: b'')
  report.write(sweep, count=50)


def test_samples_of_two_protocols_are_not_compared(sweep):
  path = sweep / 'c4-dit1/evaluation/protocol.json'
  path.write_text(path.read_text().replace('"samples"', '"others"'))
  with pytest.raises(runs.errors.InputError, match='for gkid'):
    runs.load_runs(sweep)


def test_an_unfinished_generator_has_its_code_and_no_quality(sweep):
  (sweep / 'c4-dit1/DONE').unlink()
  row = next(row for row in table.rows(runs.load_runs(sweep))
             if row['unit'] == 'c4-dit1')
  assert row['state'] == 'running' and row['code_floats'] == 256
  assert row['psnr'] is None and row['gkid'] is None


def test_a_tokenizer_that_is_missing_leaves_its_generators_missing(sweep):
  for file in ('config.json', 'model.json', 'DONE'):
    for name in ('c4-tokenizer', 'c4-dit0', 'c4-dit1'):
      (sweep / name / file).unlink()
  rows = table.rows(runs.load_runs(sweep))
  assert [row['unit'] for row in rows if row['state'] == 'missing'] == [
      'c4-dit0', 'c4-dit1']


def test_generators_beside_the_auto_encoders_of_a_law_are_judged_apart(
    tmp_path, monkeypatch):
  """As in Findings 3 and 4: gFID of samples, PSNR of reconstructions."""
  claims = (
      dict(name='flat', rule='no_slope', x='encoder_parameters', margin=0.5,
           where={'generated': 0}, requires=['complete'], text='PSNR is flat.'),
      dict(name='harms', rule='slope_above', x='encoder_parameters',
           y='log2_gfid', margin=0.0, where={'generated': 1},
           arms=['generator'], requires=['complete', 'seeds'],
           text='gFID rises.'))
  towers = ('A', 'P', 'N', 'T')
  synthetic.write(tmp_path, [
      synthetic.unit(f'{tower}-seed0', tower, f'{tower}-N/1x4x4', psnr=25,
                     generated=0) for tower in towers], claims)
  assert [verdict.reason for verdict in analysis.analyse(
      tmp_path, count=50).verdicts][1] == 'This preset has no units for it.'
  for number, tower in enumerate(towers):
    add_generators(
        tmp_path, f'{tower}-dit', f'{tower}-seed0',
        {'role': 'arm', 'arm': 'generator', 'generated': 1,
         'configuration': f'{tower}-dit'},
        lambda seed, number=number: {
            'eval/gkid@1': 0.1, 'eval/gfid': 2**(4 + number + 0.02 * seed)})
  found = analysis.analyse(tmp_path, count=200)
  assert [verdict.word for verdict in found.verdicts] == ['holds', 'holds']
  assert {row['role'] for row in found.data['psnr'].rows} == {'law'}
  monkeypatch.setattr(style, 'png', lambda figure: b'')
  page = report.write(tmp_path, count=50)
  assert page.with_name('gfid_encoder_parameters.png').exists()
