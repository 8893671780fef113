"""The benchmark runs, and its shares and ratios are what they say they are."""

import json
import pathlib
import statistics
import subprocess
import sys

import pytest

from vitok import accounting, sizes
from vitok import config as config_lib

TOOL = pathlib.Path(__file__).parents[2] / 'tools' / 'benchmark.py'


def run(*arguments):
  return subprocess.run([sys.executable, str(TOOL), *arguments],
                        capture_output=True, text=True, timeout=600)


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
  """(what `--quick` printed, the file that it wrote)."""
  out = tmp_path_factory.mktemp('benchmark') / 'out.json'
  # As wide as a patch and shallow: few linear maps differ, little to compile.
  process = run('--quick', '--models=cpu', '--rounds=2', f'--out={out}',
                '--config.model.name=A-A/4', '--config.data.resolution=16',
                *(f'--config.model.{side}.{field}'
                  for side in ('encoder', 'decoder')
                  for field in ('width=48', 'heads=1')))
  assert process.returncode == 0, process.stderr
  assert '2 of 2' in process.stderr and 's left' in process.stderr
  return json.loads(process.stdout), json.loads(out.read_text())


def median_ratio(above, below):
  return statistics.median(a / b for a, b in zip(above, below, strict=True))


def test_every_section_is_there_or_says_why_not(measured):
  result, written = measured
  assert result == written
  assert set(result['square']) == {'64', '128'}
  model = result['models']['cpu']
  assert {'peak', 'ours', 'data', 'checkpoint', 'flops'} <= set(model)
  assert result['skipped']['torch.compile']
  if 'torch' in result['skipped']:
    return
  assert model['torch']['max_difference'] <= 1e-5
  for name in ('forward', 'step'):
    theirs = model['torch'][f'eager {name}']
    assert theirs['ratio'] == pytest.approx(median_ratio(
        model['ours'][name]['rounds'], theirs['rounds']))


def test_shares_are_of_the_fastest_product_in_the_same_round(measured):
  model = measured[0]['models']['cpu']
  size = sizes.parse(model['name'])
  flops = accounting.describe(size, 1, model['resolution'])['flops']
  assert model['flops'] == {'forward': model['batch'] * flops['forward'],
                            'step': model['batch'] * flops['train_step']}
  products = model['peak']['products']
  assert model['peak']['best'] == max(products.values())
  assert model['peak']['best'] == products[model['peak']['of']]
  for name in ('forward', 'step'):
    entry = model['ours'][name]
    assert entry['seconds'] == statistics.median(entry['rounds'])
    speeds = [model['flops'][name] / s for s in entry['rounds']]
    assert entry['share'] == pytest.approx(
        median_ratio(speeds, model['product']['rounds']))
    assert entry['mfu'] is None  # A CPU has no peak on paper.


def test_data_and_checkpoints_are_set_against_the_same_step(measured):
  model = measured[0]['models']['cpu']
  data, step = model['data']['photographs'], model['ours']['step']
  assert data['trained_per_second'] == pytest.approx(
      model['batch'] / step['seconds'])
  assert data['ratio'] == pytest.approx(
      median_ratio(step['rounds'], data['rounds']) / model['batch'])
  saves = model['checkpoint']
  lost = statistics.median(
      a - b for a, b in zip(saves['with'], saves['without'], strict=True))
  assert saves['lost_seconds'] == pytest.approx(lost)
  assert saves['share'] == pytest.approx(
      lost / (saves['every'] * saves['step_seconds']))


def test_compile_ratio_is_of_48_to_12_blocks(measured):
  compiled = measured[0]['compile']
  assert set(compiled['seconds']) == {'12', '48'}
  assert compiled['ratio'] == pytest.approx(median_ratio(
      compiled['rounds']['48'], compiled['rounds']['12']))


def test_an_unknown_section_is_refused_in_a_line(monkeypatch, capsys):
  monkeypatch.syspath_prepend(TOOL.parent)
  monkeypatch.setattr(sys, 'argv', [str(TOOL), '--only=peek'])
  assert config_lib.load_module(TOOL, 'TOOL').main() == 2
  error = capsys.readouterr().err
  assert 'peak' in error and error.count('\n') == 1
