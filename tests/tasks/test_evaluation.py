"""Numbers of networks in the evaluation of a run, with small stand-ins."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import scipy.linalg

import vitok
from tests import films, runs, stand_ins, tiny_run
from vitok import data, errors, evaluate, validation
from vitok.interop import weights
from vitok.metrics import image as image_metrics
from vitok.metrics import latent
from vitok.tasks import feature_numbers
from vitok.training import mesh

NAMES = ('lpips_alex', 'rfid', 'rfid_infinity', 'rkid', 'ris',
         'released_psnr')
COUNT = 24
# Reconstructions differ by 1e-6 between batch sizes, which moves a level of
# 255 now and then: of a feature, the mean over a thousand levels, some 4e-6.
# Distances are differences of such, hence the absolute part.
SAME = dict(rtol=1e-4, atol=2e-6)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A run without numbers, and a cache with stand-ins."""
  folder = tmp_path_factory.mktemp('numbers')
  tiny_run.make(folder / 'run', data__resolution=32)
  with pytest.MonkeyPatch.context() as patch:
    stand_ins.install(patch, folder / 'weights')
    yield folder


def measure(folder, name='again', devices=1, **changes):
  """Evaluates a copy of the run."""
  if not (folder / name).exists():
    shutil.copytree(folder / 'run', folder / name)
  return evaluate.evaluate(
      folder / name, devices=jax.devices()[:devices], changes={
          f'evaluation.{key}': value for key, value in
          (dict(numbers=NAMES) | changes).items()})


@pytest.fixture(scope='module')
def result(place):
  return measure(place)


def numbers_of(result):
  found = {name.removeprefix('eval/'): value
           for name, value in result['metrics'].items()}
  return {name: value for name, value in found.items()
          if name.startswith(NAMES) and isinstance(value, float)}


def images(config):
  sharding = mesh.batch_sharding(mesh.make_mesh(config.mesh, jax.devices()[:1]))
  return np.concatenate([
      np.asarray(image_metrics.to_uint8(batch['image']))[batch['mask']]
      for batch in data.eval_batches(config, sharding)])


def test_numbers_are_those_of_the_restored_model_computed_in_numpy(
    place, result):
  tokenizer = vitok.load(place / 'run')
  x = images(tokenizer.config)
  y = np.asarray(tokenizer.reconstruct(x))
  inception, alexnet = (weights.load(name)['w'] for name in (
      'inception_fid', 'lpips_alexnet'))
  numbers = numbers_of(result)
  np.testing.assert_allclose(
      numbers['lpips_alex'],
      stand_ins.distances(alexnet, x, y, np).mean(), rtol=1e-4)
  a, b = (stand_ins.features(inception, z, np)[:, 0].astype('f8')
          for z in (x, y))
  root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
  np.testing.assert_allclose(numbers['rfid'], (
      np.square(a.mean(0) - b.mean(0)).sum()
      + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)), rtol=1e-3)
  kernel = lambda p, q: (p @ q.T / p.shape[1] + 1)**3
  sums = kernel(a, a) + kernel(b, b) - 2 * kernel(a, b)
  np.fill_diagonal(sums, 0)
  np.testing.assert_allclose(numbers['rkid'], sums.sum() / COUNT / (COUNT - 1),
                             rtol=1e-3)
  with np.load(pathlib.Path(result['folder']) / '3.npz') as stored:
    np.testing.assert_array_equal(stored['rkid_index'], stored['index'])
    np.testing.assert_array_equal(stored['rkid_group'], stored['group'])
    np.testing.assert_allclose(stored['rkid'].mean(), numbers['rkid'])
    # Of each pair, as the original and as the reconstruction.
    of_each = (sums.sum(0) + sums.sum(1)) / (COUNT - 2)
    np.testing.assert_allclose(stored['rkid'] - stored['rkid'].mean(),
                               of_each - of_each.mean(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('size, devices', [(1, 1), (7, 8), (64, 1)])
def test_equal_for_any_batch_size_and_number_of_devices(
    place, result, size, devices):
  other = measure(place, f'b{size}x{devices}', devices, batch_size=size)
  ours, theirs = numbers_of(result), numbers_of(other)
  assert ours.keys() == theirs.keys() >= {'rfid_infinity', 'rkid_se'}
  for name, value in ours.items():
    # Of an extrapolation and a standard error only the last digits differ more.
    np.testing.assert_allclose(theirs[name], value, err_msg=name, **SAME)
  assert other['protocol'] == result['protocol']


def test_each_number_has_its_own_protocol(place, result):
  stored = result['protocol']
  assert stored['ids']['psnr'] == result['metrics']['eval/protocol']
  for name in ('lpips_alex', 'rfid', 'rkid', 'released_psnr'):
    assert result['metrics'][f'eval/{name}_protocol'] == stored['ids'][name]


def test_what_cannot_be_measured_is_absent_and_says_why(place, result):
  told = result['metrics']['eval/ris_absent']
  assert told.endswith('`python tools/fetch_weights.py inception_fid_head`')
  assert 'eval/ris' not in result['metrics']
  assert 'ris' not in result['protocol']['ids']
  assert 'ABSENT: get its network' in evaluate.describe(result)


def test_more_numbers_of_the_same_examples_join_those_of_the_run(place):
  first = measure(place, 'joined', numbers=())
  more = measure(place, 'joined', numbers=('lpips_alex',))
  assert first['folder'] == more['folder'] == str(
      place / 'joined' / 'evaluation')
  with np.load(pathlib.Path(more['folder']) / '3.npz') as columns:
    assert columns['lpips_alex'].shape == columns['psnr'].shape == (COUNT,)
  # Would take LPIPS away.
  less = measure(place, 'joined', numbers=('released_psnr',))
  assert less['folder'] != more['folder']


def test_a_second_evaluation_takes_no_features_of_originals(
    place, result, monkeypatch):
  calls = []
  measured = feature_numbers.measure

  def counted(config, names, batches, made, features):
    return measured(config, names, batches, made, lambda network, images: (
        calls.append(network), features(network, images))[1])
  monkeypatch.setattr(feature_numbers, 'measure', counted)
  other = measure(place, batch_size=16)
  assert numbers_of(other) == numbers_of(result)
  assert len(calls) == -(-COUNT // 16)  # Of reconstructions alone.


@pytest.fixture(scope='module')
def trained(place):
  """The workdir of a run whose code cannot be coded."""
  def fails(*_):
    raise ValueError('no step loses less')
  config = runs.tiny(data__resolution=32, evaluation__coded=4,
                     evaluation__numbers=('lpips_alex', 'rfid', 'ris'),
                     evaluation__every=1, evaluation__numbers_every=2,
                     total_steps=3, checkpoint__every=9)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(latent, 'coded_bits', fails)
    tiny_run.train(config, place / 'trained')
  return place / 'trained'


def test_a_code_that_cannot_be_coded_does_not_stop_a_run(trained):
  last = runs.lines(trained)[-1]
  assert 'eval/psnr' in last and 'eval/coded_bits' not in last
  assert (trained / 'DONE').exists()


def test_training_measures_them_when_they_are_due(trained):
  at = {name: [line['step'] for line in runs.lines(trained)
               if f'eval/{name}' in line]
        for name in ('psnr', 'lpips_alex', 'rfid', 'ris_absent')}
  assert at == {'psnr': [0, 1, 2, 3], 'lpips_alex': [0, 2, 3],
                'rfid': [0, 2, 3], 'ris_absent': [0, 2, 3]}
  stored = json.loads((trained / 'evaluation/protocol.json').read_text())
  done = json.loads((trained / 'DONE').read_text())['metrics']
  assert done['eval/rfid_protocol'] == stored['ids']['rfid']


def test_clips_have_a_distance_of_each_frame(place, tmp_path):
  levels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
  (tmp_path / 'films').mkdir()
  films.write(tmp_path / 'films/noise.mkv', levels)
  tiny_run.make(
      tmp_path / 'run', model__name='A-A/1x8x4', model__positions='rope3d',
      data__resolution=32, data__frames=2, data__split='train',
      data__sources=f'videos:{tmp_path}/films', evaluation__split='train',
      evaluation__clips=8, evaluation__numbers=('rfid_frame', 'lpips_alex'))
  metrics = evaluate.evaluate(
      tmp_path / 'run', devices=jax.devices()[:1])['metrics']
  assert metrics['eval/rfid_frame'] > 0 and metrics['eval/lpips_alex'] > 0


@pytest.mark.parametrize('changes, message', [
    (dict(numbers=('gfid',)), 'is of generated samples.*rfid'),
    (dict(numbers=('rfd',)), "'rfd'.*rfid"),
    (dict(numbers=('rkid', 'rkid')), 'twice'),
    (dict(numbers=('lpips_alex',)), 'data.resolution=16.*lpips_alex.*31'),
    (dict(numbers=('rfid_frame',)), 'data.frames=1.*rfid_frame.*2'),
    (dict(numbers=('rfvd',)), 'data.frames=1.*rfvd.*9'),
    (dict(numbers_every=6), 'numbers_every=6.*every=4.*8')])
def test_impossible_numbers_are_refused(changes, message):
  with pytest.raises(errors.InputError, match=message):
    validation.check(runs.tiny(**{
        f'evaluation__{key}': value for key, value in changes.items()}))
