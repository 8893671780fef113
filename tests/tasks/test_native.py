"""Images at their own size: padding, loss, numbers, a whole run."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

import vitok
from tests import runs, tiny_run
from vitok import errors, evaluate, models, tasks, validation
from vitok.data import native as native_data
from vitok.data import pipeline
from vitok.metrics import reconstruction
from vitok.sweeps import nulls
from vitok.tasks import native
from vitok.training import mesh as mesh_lib

SIZES = ((24, 40), (32, 32), (40, 16), (8, 64), (13, 21), (64, 100))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Windows of a photograph, of different sizes, in two splits."""
  root = tmp_path_factory.mktemp('images')
  image = Image.fromarray(photographs.astronaut()).reduce(4)
  for split in ('train', 'test'):
    (root / split).mkdir()
    for k, (height, width) in enumerate(SIZES):
      image.crop((3 * k, k, 3 * k + width, k + height)).save(
          root / split / f'{k}.png')
  return root


def config_of(folder=None, **changes):
  return runs.tiny(**{
      'data__crop': 'native', 'evaluation__crop': 'native',
      'data__resolution': 32, 'batch_size': 8,
      'model__name': 'Aw32h1-Aw32h1/1x8x8', 'model__bottleneck': 'layernorm',
      'model__positions': 'rope2d',
      **({'data__sources': (f'folder:{folder}',),
          'evaluation__source': f'folder:{folder}'} if folder else {}),
      **changes})


def batch_of(images, tokens, patch=8):
  made = [native_data.Native(tokens, patch).example(image[None])
          for image in images]
  batch = {name: np.stack([one[name] for one in made]) for name in made[0]}
  return batch | {'image': np.float32(batch['image'] / 127.5 - 1),
                  'mask': np.ones(len(images), bool),
                  'row': np.arange(len(images))}


def images_of(sizes, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def first(task):
  """Initial parameters; to compile costs more than to run."""
  init = jax.jit(lambda key: mesh_lib.unbox(task.init(key)[0]))
  return init(jax.random.key(0))['autoencoder']


@pytest.mark.parametrize('positions', ['rope2d', 'none'])
def test_an_image_is_what_it_is_alone_whatever_its_padding(positions):
  task = tasks.build(config_of(model__positions=positions))
  rng = np.random.default_rng(1)  # Large, so that tokens matter to each other.
  params = jax.tree.map(
      lambda p: np.float32(p + 0.2 * rng.normal(size=p.shape)), first(task))
  images = images_of(((24, 40), (8, 16)))
  apply = jax.jit(lambda image, patches: task.model.apply(
      {'params': params}, image, patches=patches)[0])
  batch = batch_of(images, 18)  # 3 patches of padding, and 16.
  made = np.asarray(apply(batch['image'], native.patches(batch)))
  for k, image in enumerate(images):
    alone = apply(np.float32(image[None, None] / 127.5 - 1), None)
    own = native_data.picture(made[k], np.asarray(batch['places'][k]),
                              np.asarray(batch['valid'][k]))
    np.testing.assert_allclose(own, alone[0], atol=2e-5)


def test_the_loss_is_of_valid_patches_and_blind_to_padding():
  task = tasks.build(config_of(loss__pixel='charbonnier'))  # Not 0 at 0.
  params = first(task)
  loss = jax.jit(jax.value_and_grad(lambda params, batch: task.loss(
      params, {}, {}, batch, jax.random.key(0))[0]))
  images = images_of(((24, 40), (8, 16)))
  value, grads = loss(params, batch_of(images, 16))
  apart = [loss(params, batch_of([image] * 2, 16))[0] for image in images]
  # The mean over images of the means over their own pixels.
  np.testing.assert_allclose(value, np.mean(apart), rtol=1e-5)
  padded = batch_of(images, 20)
  rubbish = np.where(native.pixels(padded), padded['image'], np.float32(1e3))
  for other in (padded, padded | {'image': rubbish}):
    again, other_grads = loss(params, other)
    np.testing.assert_allclose(again, value, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(other_grads), jax.tree.leaves(grads),
                    strict=True):
      np.testing.assert_allclose(a, b, atol=1e-6)


def test_numbers_are_those_of_square_images_where_both_are_defined():
  x, y = images_of(((24, 40), (24, 40)))
  expected = jax.jit(reconstruction.compare)(*(
      z[None, None] / 127.5 - 1 for z in (x, x // 2 + y // 2)))
  found = native.measure(x, x // 2 + y // 2)
  for name, value in found.items():
    np.testing.assert_allclose(value, expected[name][0], rtol=1e-5)
  assert native.measure(x, x)['psnr'] == 100
  assert 'ssim' not in native.measure(x[:10], y[:10])


def test_batches_do_not_depend_on_where_they_start(folder):
  config = config_of(folder, data__flip=True)
  sharding = mesh_lib.batch_sharding(mesh_lib.make_mesh(config.mesh))
  whole = pipeline.train_batches(config, sharding)
  seen = [next(whole) for _ in range(4)]
  whole.close()
  later = pipeline.train_batches(config, sharding, 3)
  resumed = next(later)
  later.close()
  assert set(resumed) >= {'image', 'places', 'valid', 'mask', 'index'}
  assert resumed['image'].shape == (8, 1, 128, 8, 3)
  for name, x in resumed.items():
    np.testing.assert_array_equal(x, seen[3][name], name)
  counts = {int(v) for batch in seen for v in batch['valid'].sum(1)}
  assert len(counts) > 2  # Images of several sizes share batches.


def test_a_run_at_native_sizes_learns_resumes_and_is_opened(folder, tmp_path):
  config = config_of(folder, total_steps=12, evaluation__every=0,
                     optimizer__learning_rate=3e-3, checkpoint__every=6)
  validation.check(config)
  tiny_run.train(config, tmp_path / 'run')
  lines = [json.loads(line) for line in
           (tmp_path / 'run/metrics.jsonl').read_text().splitlines()]
  first, last = (line for line in lines if 'eval/psnr' in line)
  assert last['eval/psnr'] > first['eval/psnr']
  assert last['eval/count'] == len(SIZES)
  assert not any(name.startswith('eval/ssim') for name in last)  # 8 x 64.
  with np.load(tmp_path / 'run/evaluation/12.npz') as columns:
    assert np.isnan(columns['ssim']).sum() == 1
    psnr = columns['psnr']
  shown = tmp_path / 'run/evaluation/12_0.png'
  assert Image.open(shown).size == (2 * 40, 24)
  again = evaluate.evaluate(
      tmp_path / 'run', devices=jax.devices()[:1])['metrics']
  assert again['eval/psnr'] == pytest.approx(last['eval/psnr'], abs=1e-4)

  tokenizer = vitok.load(tmp_path / 'run')
  image = np.asarray(Image.open(folder / 'test/0.png'))[None]
  made = tokenizer.reconstruct(image)
  assert made.shape == image.shape
  # Alone and unpadded it is what the evaluation measured in a batch.
  assert native.measure(image[0], made[0])['psnr'] == pytest.approx(
      psnr[0], abs=0.02)


@pytest.mark.parametrize('change, words', [
    (dict(model__bottleneck='gaussian'), 'bottleneck.*padding'),
    (dict(model__positions='sincos'), 'positions.*coordinates'),
    (dict(loss__ssim_weight=0.1), 'loss.ssim_weight'),
    (dict(model__name='A-A/2x8', data__frames=2, model__positions='rope3d'),
     'data.frames'),
    (dict(model__name='A-A/8+4'), 'model.name'),
    (dict(evaluation__numbers=('lpips',)), 'evaluation.numbers.*center'),
    (dict(task='adversarial'), 'config.task'),
])
def test_what_cannot_be_done_at_native_sizes_is_refused(change, words):
  with pytest.raises(errors.InputError, match=words):
    native.check(config_of(**change))
  with pytest.raises(errors.InputError, match=words):
    native.check(config_of(data__crop='center', **change)
                 if 'ssim' not in words else
                 config_of(evaluation__crop='center', **change))


def test_null_models_are_of_squares():
  with pytest.raises(errors.InputError, match='data.crop.*squares.*center'):
    nulls.check([config_of(evaluation__crop='center')])


def test_patches_reach_the_model_as_it_declares_them():
  batch = batch_of(images_of(((8, 8),)), 4)
  assert isinstance(native.patches(batch), models.Patches)
  assert native.patches({'image': 0}) is None
  assert native.pixels(batch).sum() == 8
