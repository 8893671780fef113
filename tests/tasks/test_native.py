"""Images at their own size: padding, loss, numbers, a whole run."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

import vitok
from tests import runs, stand_ins, tiny_run
from vitok import config as config_lib
from vitok import errors, evaluate, models, tasks, validation
from vitok.data import native as native_data
from vitok.data import pipeline
from vitok.interop import weights
from vitok.metrics import reconstruction
from vitok.sweeps import nulls
from vitok.tasks import base, native
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


@pytest.fixture(scope='module')
def dinov2(tmp_path_factory):
  """{name: parameters} of a small network in place of a published one."""
  with pytest.MonkeyPatch.context() as patch:
    stand_ins.install_dinov2(patch, tmp_path_factory.mktemp('weights'))
    yield {'dinov2_base': weights.load('dinov2_base')}


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


@pytest.mark.parametrize('positions, cls', [
    ('rope2d', False), ('none', False), ('rope2d', True)])
def test_an_image_is_what_it_is_alone_whatever_its_padding(positions, cls):
  task = tasks.build(config_of(model__positions=positions, model__cls=cls))
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


@pytest.mark.parametrize('terms', [{}, {
    'loss__ssim_weight': 0.1, 'loss__feature_weight': 500.0,
    'loss__feature_tile': 16}], ids=['pixels', 'a tile'])
def test_the_loss_is_of_valid_patches_and_blind_to_padding(dinov2, terms):
  # Charbonnier is not 0 at 0.
  task = tasks.build(config_of(loss__pixel='charbonnier', **terms))
  params = first(task)
  loss = jax.jit(jax.value_and_grad(lambda params, batch: task.loss(
      params, {}, dinov2, batch, jax.random.key(0))[0]))
  images = images_of(((24, 40), (8, 16)))
  value, grads = loss(params, batch_of(images, 16))
  apart = [loss(params, batch_of([image] * 2, 16) | {'row': np.full(2, k)})[0]
           for k, image in enumerate(images)]
  # The mean over images of the means over their own pixels.
  np.testing.assert_allclose(value, np.mean(apart), rtol=1e-5)
  padded = batch_of(images, 20)
  rubbish = {
      'image': np.where(native.pixels(padded), padded['image'],
                        np.float32(1e3)),
      'places': np.where(padded['valid'][..., None], padded['places'], 99)}
  for other in (padded, padded | rubbish):
    again, other_grads = loss(params, other)
    np.testing.assert_allclose(again, value, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(other_grads), jax.tree.leaves(grads),
                    strict=True):
      # Sums over more tokens, in another order: 1e-5 of the largest number.
      np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


def test_images_that_a_tile_fills_have_the_loss_of_squares(dinov2):
  values = []
  images = images_of(((32, 32),) * 3)
  for crop in ('center', 'native'):
    task = tasks.build(config_of(
        data__crop=crop, loss__pixel='charbonnier', loss__ssim_weight=0.1,
        loss__feature_weight=500.0, loss__feature_tile=32))
    batch = batch_of(images, 16)
    if crop == 'center':
      batch = {'image': np.float32(np.stack(images)[:, None] / 127.5 - 1),
               'mask': batch['mask'], 'row': batch['row']}
    metrics = jax.jit(lambda params, batch, task=task: task.loss(
        params, {}, dinov2, batch, jax.random.key(0))[1][0])(
            first(task), batch)
    values.append(metrics)
  assert {'charbonnier', 'dssim', 'features', 'loss'} <= set(values[0])
  for name, value in values[0].items():  # Of float32, in another order.
    np.testing.assert_allclose(values[1][name], value, rtol=1e-5, err_msg=name)


# Larger than a tile of 3 x 3 patches, as large, and smaller along each axis.
@pytest.mark.parametrize('grid', [(5, 4), (3, 3), (2, 5), (4, 1), (1, 2)])
def test_a_tile_is_one_square_of_an_image_that_is_repeated_if_small(grid):
  p, k, count = 4, 3, 64
  image, other = images_of([tuple(p * n for n in grid)] * 2)
  cut = {name: np.asarray(jax.jit(lambda batch, keys: native.tile(
      batch, keys, k * p)(batch['image']))(
          batch_of([one] * count, 24, p), jax.random.split(
              jax.random.key(0), count)))
         for name, one in (('image', image), ('other', other))}
  assert cut['image'].shape == (count, 1, k * p, k * p, 3)

  def square(image, row, column):
    rows, columns = (np.arange(p * n, p * (n + k)) for n in (row, column))
    whole = image.take(rows, 0, mode='wrap').take(columns, 1, mode='wrap')
    return np.float32(whole / 127.5 - 1)
  starts = [(row, column) for row in range(max(grid[0] - k, 0) + 1)
            for column in range(max(grid[1] - k, 0) + 1)]
  seen = set()
  for one, two in zip(cut['image'][:, 0], cut['other'][:, 0], strict=True):
    start, = (s for s in starts if (one == square(image, *s)).all())
    np.testing.assert_array_equal(two, square(other, *start))
    seen.add(start)
  assert seen == set(starts)  # 64 draws of 6 at most: missed once in 1e4.


def test_a_tile_depends_on_the_examples_key_alone():
  mesh = mesh_lib.make_mesh(config_of().mesh)
  cut = jax.jit(lambda batch: native.tile(batch, base.example_keys(
      jax.random.key(3), batch['row']), 16)(batch['image']))
  images = images_of(((32, 40), (24, 56)) * 8)
  whole = batch_of(images, 24)
  made = np.asarray(cut(whole))
  spread = jax.device_put(whole, mesh_lib.batch_sharding(mesh))
  assert len(spread['image'].sharding.device_set) == 8
  np.testing.assert_array_equal(cut(spread), made)
  part = {name: x[3:5] for name, x in whole.items()}
  np.testing.assert_array_equal(cut(part), made[3:5])
  more = batch_of(images, 30) | {'row': whole['row'][::-1].copy()}
  again = np.asarray(cut(more | {'row': whole['row']}))
  np.testing.assert_array_equal(again, made)
  assert (np.asarray(cut(more)) != made).any()


def test_a_tile_leaves_the_noise_of_the_code_as_it_was():
  batch = batch_of(images_of(((24, 40), (8, 16))), 16)
  values = []
  for change in ({}, {'loss__ssim_weight': 0.1, 'loss__feature_tile': 16}):
    task = tasks.build(config_of(model__bottleneck='gaussian', **change))
    values.append(jax.jit(lambda params, task=task: task.loss(
        params, {}, {}, batch, jax.random.key(0))[1][0]['l2'])(first(task)))
  np.testing.assert_allclose(*values, rtol=1e-6)


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


def test_the_recipe_of_vitok_v2_trains_as_its_config_says(
    dinov2, folder, tmp_path, root):
  del dinov2  # In place of the published one.
  config = config_lib.override(
      config_lib.load(f'{root}/configs/vitok_v2.py'), runs.TINY | {
          'model.name': 'Aw32h1-Aw32h1/1x8x8', 'data.resolution': 32,
          'loss.feature_tile': 16, 'data.sources': (f'folder:{folder}',),
          'total_steps': 2, 'evaluation.every': 0, 'logging.every': 1})
  validation.check(config)
  tiny_run.train(config, tmp_path / 'run')
  last = runs.lines(tmp_path / 'run')[-1]
  terms = {name: last[f'train/{name}']
           for name in ('charbonnier', 'dssim', 'features', 'loss')}
  assert last['step'] == 2 and min(terms.values()) > 0
  assert terms['loss'] == pytest.approx(
      terms['charbonnier'] + 0.1 * terms['dssim'] + 500 * terms['features'],
      rel=1e-5)


@pytest.mark.parametrize('change, words', [
    (dict(model__bottleneck='gaussian'), 'bottleneck.*padding'),
    (dict(model__positions='sincos'), 'positions.*coordinates'),
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
    native.check(config_of(data__crop='center', **change))


def test_null_models_are_of_squares():
  with pytest.raises(errors.InputError, match='data.crop.*squares.*center'):
    nulls.check([config_of(evaluation__crop='center')])


def test_patches_reach_the_model_as_it_declares_them():
  batch = batch_of(images_of(((8, 8),)), 4)
  assert isinstance(native.patches(batch), models.Patches)
  assert native.patches({'image': 0}) is None
  assert native.pixels(batch).sum() == 8
