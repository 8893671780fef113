"""`python -m vitok.describe`: the keys, the paper's tables, refusals."""

import json
import subprocess
import sys

import pytest

from vitok import accounting, describe, sizes
from vitok.models import positions


def run(capsys, *flags):
  describe.main([*flags, '--json'])
  return json.loads(capsys.readouterr().out)


def test_json_is_the_accounting_of_the_model(capsys):
  result = run(capsys, '--model=S-B/16', '--resolution=256')
  assert result == accounting.describe(sizes.parse('S-B/16'), 1, 256)
  assert result['tokens'] == 256 and result['code_floats'] == 4096
  assert result['pixels_per_float'] == 48
  parts = {'encoder', 'bottleneck', 'decoder', 'total'}
  assert set(result['parameters']) == set(result['macs']) == parts
  assert {'forward', 'train_step'} <= set(result['flops'])
  assert result['flops']['forward'] == 2 * result['macs']['total']
  assert {'parameters', 'activations', 'total'} <= set(result['memory'])


@pytest.mark.parametrize('name, millions, resolution, gmacs', [
    ('S-B/16', 129.0, 256, 34.8), ('S-B/16', 129.0, 512, 160.8),
    ('S-L/16', 426.8, 256, 113.4)])
def test_images_cost_what_the_paper_says(
    capsys, name, millions, resolution, gmacs):
  result = run(capsys, f'--model={name}', f'--resolution={resolution}')
  assert result['parameters']['total'] / 1e6 == pytest.approx(
      millions, rel=0.007)
  assert result['macs']['total'] / 1e9 == pytest.approx(gmacs, rel=0.007)


@pytest.mark.parametrize('tower, gmacs', [('S', 11.6), ('B', 23.1),
                                          ('L', 101.8)])
def test_towers_cost_what_the_paper_says(capsys, tower, gmacs):
  result = run(capsys, f'--model={tower}-{tower}/16')
  assert result['macs']['encoder'] / 1e9 == pytest.approx(gmacs, rel=0.007)


@pytest.mark.parametrize('name, gmacs', [
    ('S-B/4x8', 160.8), ('S-B/8x8', 73.2), ('S-B/4x16', 34.8)])
def test_clips_cost_what_the_paper_says_and_their_wide_embedding(
    capsys, name, gmacs):
  result = run(capsys, f'--model={name}', '--frames=16', '--resolution=128')
  assert result['macs']['total'] / 1e9 == pytest.approx(gmacs, rel=0.03)
  # The difference is the embedding of more than 768 numbers.
  size = sizes.parse(name)
  wider = (size.patch_dim - 768) * 2 * 768 * result['tokens']
  assert (result['macs']['total'] - wider) / 1e9 == pytest.approx(
      gmacs, rel=0.003)


def test_channels_replace_those_of_the_name(capsys):
  result = run(capsys, '--model=S-B/16', '--channels=64')
  assert result == run(capsys, '--model=S-B/1x16x64')
  assert result['code_floats'] == 4 * 4096


def test_latents_replace_the_patches_of_the_name(capsys):
  result = run(capsys, '--model=S-B/16', '--latents=128')
  assert result == run(capsys, '--model=S-B/16+128')
  assert result['name'] == 'S-B/16+128' and result['grid'] == [1, 16, 16]
  assert result['tokens'] == 128 and result['code_floats'] == 2048
  simple = run(capsys, '--model=S-B/16')
  assert simple == run(capsys, '--model=S-B/16+128', '--latents=0')
  assert result['parameters']['total'] == simple['parameters']['total'] + (
      128 + 1) * 768  # The latents and a mask token.
  describe.main(['--model=S-B/16+128'])
  assert '128 tokens (latents beside patches of 1 x 16 x 16)' in (
      capsys.readouterr().out)


def test_a_clip_of_one_tubelet_is_the_default(capsys):
  assert run(capsys, '--model=S-B/4x16')['frames'] == 4


def test_a_sequence_of_any_length_is_arithmetic(capsys, monkeypatch):
  monkeypatch.setattr(positions, 'coordinates', None)  # No table is made.
  for name in ('rope2d', 'sincos'):
    result = run(capsys, '--model=S-B/8', '--resolution=131072',
                 f'--positions={name}')
    assert result['tokens'] == 2**28


def test_table_names_every_part(capsys):
  describe.main(['--model=S-B/16', '--remat=full', '--ema'])
  out = capsys.readouterr().out
  for word in ('encoder', 'bottleneck', 'decoder', 'total', '34.74 G',
               '128.8 M', 'recomputed', 'activations', 'ema'):
    assert word in out


def test_a_generator_is_described_by_its_size_and_its_code(capsys):
  describe.main(['--dit=L', '--tokens=256', '--channels=16'])
  shown = capsys.readouterr().out
  assert shown.startswith('DiT-L: 256 tokens, 4096 floats')
  assert '458.3 M' in shown and '80.79 G' in shown  # `accounting.dit`.


@pytest.mark.parametrize('flags, key, nearest', [
    (['--dit=Q'], '--dit', 'F'),
    (['--dit=L', '--tokens=0'], '--tokens', '1'),
    (['--dit=L', '--remat=ful'], '--remat', 'full'),
    (['--model=S-Q/16'], '--model', 'S-T/16'),
    (['--resolution=250'], '--resolution', '256'),
    (['--resolution=large'], '--resolution', 'large'),
    (['--channels=0'], '--channels', '1'),
    (['--latents=-1'], '--latents', '0'),
    (['--latents=64', '--positions=none'], '--positions', 'rope2d'),
    (['--model=S-B/4x16', '--frames=6'], '--frames', '8'),
    (['--remat=ful'], '--remat', 'full'),
    (['--bottleneck=gausian'], '--bottleneck', 'gaussian'),
    (['--positions=rope'], '--positions', 'rope'),
    (['--devices=3', '--fsdp=2'], '--devices', '2'),
    (['--model=S-L/16', '--devices=8', '--tensor=8'], '--tensor', '4'),
    (['--model=P-N/8', '--devices=3', '--tensor=3'], '--tensor', '512 mlp'),
    (['--batch=0'], '--batch', '1'),
    (['--rezolution=256'], '--rezolution', '--resolution'),
])
def test_bad_input_is_one_line_and_exit_code_2(capsys, flags, key, nearest):
  with pytest.raises(SystemExit) as caught:
    describe.main(flags)
  assert caught.value.code == 2
  captured = capsys.readouterr()
  assert captured.out == '' and captured.err.count('\n') == 1
  assert key in captured.err and nearest in captured.err


def test_as_a_program_it_starts_no_backend():
  code = ('from jax._src import xla_bridge; from vitok import describe; '
          'describe.main(["--json"]); '
          'assert not xla_bridge.backends_are_initialized()')
  done = subprocess.run([sys.executable, '-c', code], capture_output=True,
                        text=True)
  assert done.returncode == 0, done.stderr
  done = subprocess.run([sys.executable, '-m', 'vitok.describe', '--model=S'],
                        capture_output=True, text=True)
  assert done.returncode == 2 and 'Traceback' not in done.stderr


def test_a_config_is_described_with_the_networks_of_its_loss(capsys, root):
  config = f'--config={root}/configs/vitok_stage2.py:S-B/16'
  small = [config, '--config.batch_size=8', '--config.data.resolution=64']
  result = run(capsys, *small)
  assert set(result['losses']) == {'lpips_vgg16', 'discriminator'}
  memory = result['memory']
  assert memory['total'] == sum(memory.values()) - memory['total']
  assert memory['losses'] > 16 * result['losses']['discriminator']['parameters']
  describe.main(small)
  shown = capsys.readouterr().out
  assert 'lpips_vgg16' in shown and 'discriminator' in shown
  with pytest.raises(SystemExit):
    describe.main(['--config.batch_size=8'])
  assert 'no --config' in capsys.readouterr().err
