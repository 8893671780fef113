"""`python -m vitok.evaluate`: right numbers, whatever the batches."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import skimage.metrics
from PIL import Image

import vitok
from tests import tiny_run
from vitok import data, errors, evaluate
from vitok.interop import weights
from vitok.metrics import image as image_metrics
from vitok.metrics import protocol
from vitok.training import mesh

COUNT = 24
# A matrix product sums in another order at another batch size: reconstructions
# differ by 1e-6, which moves a value across a rounding step now and then.
DECIBEL, SSIM = 2e-3, 2e-4


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  tiny_run.make(folder / 'run', steps=(3, 7))
  return folder


@pytest.fixture(scope='module')
def result(runs):
  return evaluate.evaluate(runs / 'run')


def _columns(result):
  path = pathlib.Path(result['folder']) / f'{result["step"]}.npz'
  with np.load(path) as stored:
    return dict(stored)


def test_numbers_are_scikit_images_on_the_restored_model(runs, result):
  """Computed again from `vitok.load` and the batches, image by image."""
  tokenizer = vitok.load(runs / 'run')
  config = tokenizer.config
  sharding = mesh.batch_sharding(mesh.make_mesh(config.mesh))
  psnr, ssim = [], []
  for batch in data.eval_batches(config, sharding):
    images = np.asarray(image_metrics.to_uint8(batch['image']))
    again = tokenizer.reconstruct(images)
    for x, y in zip(images[batch['mask'], 0], again[batch['mask'], 0],
                    strict=True):
      psnr.append(skimage.metrics.peak_signal_noise_ratio(x, y))
      ssim.append(skimage.metrics.structural_similarity(
          x / 255, y / 255, gaussian_weights=True, sigma=1.5,
          use_sample_covariance=False, data_range=1, channel_axis=-1))
  assert len(psnr) == COUNT
  stored = _columns(result)
  np.testing.assert_allclose(stored['psnr'], psnr, atol=DECIBEL)
  np.testing.assert_allclose(stored['ssim'], ssim, atol=SSIM)
  numbers = result['metrics']
  assert numbers['eval/count'] == COUNT
  np.testing.assert_allclose(numbers['eval/psnr'], np.mean(psnr),
                             atol=DECIBEL / 5)
  np.testing.assert_allclose(
      numbers['eval/psnr_se'], np.std(psnr, ddof=1) / np.sqrt(COUNT),
      rtol=1e-3)


@pytest.mark.parametrize('size', [1, 7, 64])
def test_equal_for_any_batch_size_and_padding(runs, result, size, tmp_path):
  shutil.copytree(runs / 'run', tmp_path / 'run')
  # On eight devices a batch of one would be rounded up to eight.
  other = evaluate.evaluate(tmp_path / 'run', changes={
      'evaluation.batch_size': size}, devices=jax.devices()[:1])
  ours, theirs = _columns(result), _columns(other)
  np.testing.assert_array_equal(ours['index'], theirs['index'])
  np.testing.assert_array_equal(ours['group'], theirs['group'])
  np.testing.assert_array_equal(ours['originals'], theirs['originals'])
  np.testing.assert_allclose(ours['psnr'], theirs['psnr'], atol=DECIBEL)
  np.testing.assert_allclose(ours['ssim'], theirs['ssim'], atol=SSIM)
  np.testing.assert_allclose(ours['kl_bits'], theirs['kl_bits'], rtol=1e-4)
  np.testing.assert_allclose(other['metrics']['eval/psnr'],
                             result['metrics']['eval/psnr'], atol=DECIBEL / 5)


def test_protocol_is_stored_and_printed_with_the_numbers(runs, result):
  folder = runs / 'run' / 'evaluation'
  assert result['folder'] == str(folder)
  stored = protocol.Protocol.from_json((folder / 'protocol.json').read_text())
  assert (stored.source, stored.split, stored.crop, stored.count) == (
      'photographs', 'test', 'center', COUNT)
  assert result['metrics']['eval/protocol'] == stored.id
  assert json.loads((folder / '7.json').read_text()) == result
  assert (folder / '7.png').exists()
  text = evaluate.describe(result)
  for word in (stored.id, 'photographs', 'uint8', 'moving average', 'psnr',
               'standard error', 'step 7'):
    assert word in text


def test_another_protocol_replaces_nothing(runs, result):
  folder = runs / 'run' / 'evaluation'
  before = {path: path.read_bytes() for path in folder.iterdir()}
  other = evaluate.evaluate(runs / 'run', checkpoint=3, changes={
      'evaluation.count': 10, 'evaluation.coded': 4})
  assert other['step'] == 3
  assert other['protocol']['count'] == other['metrics']['eval/count'] == 10
  assert other['protocol']['id'] in other['folder']
  assert before == {path: path.read_bytes() for path in folder.iterdir()}
  assert other['metrics']['eval/coded_bits'] > 0
  assert other['metrics']['eval/coded_loss_db'] <= .1


def test_unreadable_records_do_not_count(tmp_path):
  """They have no part in the protocol, whether asked for or measured."""
  for i in range(6):
    file = tmp_path / 'photos' / f'{i}.png'
    file.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(i).integers(0, 256, (24, 24, 3), np.uint8)
    Image.fromarray(noise).save(file)
  file.write_bytes(file.read_bytes()[:200])  # Only its header is whole.
  tiny_run.make(tmp_path / 'run', data__sources=f'folder:{tmp_path}/photos',
                data__skip_unreadable=True, evaluation__split='train')
  for _ in range(2):  # As the run's own evaluation, and after it.
    result = evaluate.evaluate(tmp_path / 'run')
    assert result['protocol']['count'] == result['metrics']['eval/count'] == 5
    assert result['protocol']['id'] == result['metrics']['eval/protocol']
    assert result['folder'] == str(tmp_path / 'run' / 'evaluation')


def test_the_training_data_may_be_gone(tmp_path):
  photos = tmp_path / 'photos'
  photos.mkdir()
  Image.new('RGB', (24, 24)).save(photos / '0.png')
  tiny_run.make(tmp_path / 'run', data__sources=f'folder:{photos}',
                evaluation__source='photographs',
                init_from=f'{tmp_path}/gone')
  shutil.rmtree(photos)
  result = evaluate.evaluate(tmp_path / 'run')
  assert result['metrics']['eval/count'] == COUNT
  with pytest.raises(errors.InputError, match='config.evaluation.source'):
    evaluate.evaluate(tmp_path / 'run', changes={
        'evaluation.source': f'folder:{photos}'})


def test_the_network_of_the_loss_may_be_gone(tmp_path, monkeypatch):
  monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / 'cache'))
  weights.save('lpips_vgg16', {'w': np.zeros(1, 'f4')}, 'a stand-in')
  tiny_run.make(tmp_path / 'run', loss__lpips_weight=1.0)
  weights.path_of('lpips_vgg16').unlink()
  result = evaluate.evaluate(tmp_path / 'run')
  assert result['metrics']['eval/count'] == COUNT


def test_command_on_four_devices_gives_the_same(runs, result, tmp_path):
  shutil.copytree(runs / 'run', tmp_path / 'run')
  done = subprocess.run(
      [sys.executable, '-m', 'vitok.evaluate', f'--workdir={tmp_path}/run',
       '--config.evaluation.batch_size=7'],
      env=os.environ | {
          'XLA_FLAGS': '--xla_force_host_platform_device_count=4'},
      capture_output=True, text=True, check=True)
  assert result['protocol']['id'] in done.stdout
  other = json.loads((tmp_path / 'run/evaluation/7.json').read_text())
  assert other['metrics'].keys() == result['metrics'].keys()
  np.testing.assert_allclose(other['metrics']['eval/psnr'],
                             result['metrics']['eval/psnr'], atol=DECIBEL / 5)


@pytest.mark.parametrize('arguments, message', [
    (['--config.evaluation.crop=centre'], "'centre'.*center"),
    (['--config.evaluation.slpit=test'], 'config.evaluation.slpit'),
    (['--config.model.name=S-B/16'], 'an evaluation cannot change it'),
    (['--config.evaluation.batch_size=0'], 'config.evaluation.batch_size=0'),
    (['--checkpoint=5'], '--checkpoint=5.*is not in'),
    (['--checkpoint=newest'], 'invalid int value'),
    (['--chekpoint=3'], 'unrecognized.*--checkpoint'),
])
def test_bad_input_is_one_line_and_exit_code_2(runs, capsys, arguments,
                                               message):
  with pytest.raises(SystemExit) as left:
    evaluate.main([f'--workdir={runs}/run', *arguments])
  assert left.value.code == 2
  error = capsys.readouterr().err
  assert error.startswith('error: ') and error.count('\n') == 1
  assert re.search(message, error)


def test_a_folder_without_a_run_is_refused(runs):
  with pytest.raises(errors.InputError, match='--workdir.*run'):
    evaluate.evaluate(runs / 'ran')
