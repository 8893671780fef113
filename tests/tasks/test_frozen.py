"""A frozen tokenizer: what its codes and their statistics are of."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import vitok
from tests import runs, tiny_run
from tests.tasks.test_generation import labelled
from vitok import config as config_lib
from vitok import data, encode, errors, files, tasks, validation
from vitok.data import codes, selection
from vitok.tasks import base, tokenizer
from vitok.training import mesh


@pytest.fixture(autouse=True)
def few_examples(monkeypatch):
  monkeypatch.setattr(tokenizer, 'EXAMPLES', 64)


def make(folder, **changes):
  """A finished tokenizer of initial parameters, in a new folder."""
  return tiny_run.finished(folder, **{'data__flip': False, **changes})


def generator(workdir, **changes):
  """The config of a generator on the codes of a run."""
  own = config_lib.read(workdir / 'config.json')
  config = config_lib.override(
      config_lib.default(), runs.TINY | tiny_run.DIT | {
      'tokenizer.workdir': str(workdir), 'tokenizer.sample': False} | {
          key.replace('__', '.'): value for key, value in changes.items()})
  config.model, config.data.frames = own.model, own.data.frames
  return config


@pytest.fixture(scope='module')
def native(tmp_path_factory):
  """Of images at their own size, in windows of a photograph."""
  return make(tmp_path_factory.mktemp('frozen') / 'native', **{
      'data__crop': 'native', 'evaluation__crop': 'native',
      'model__bottleneck': 'layernorm'})


@pytest.fixture(scope='module')
def images(tmp_path_factory):
  return labelled(tmp_path_factory.mktemp('images'))


def test_a_tokenizer_of_native_sizes_encodes_squares_where_it_is_told_to(
    native, images, tmp_path):
  with pytest.raises(errors.InputError, match='--crop=.native.*choice: center'):
    encode.encode(native, tmp_path / 'codes', images)
  assert not (tmp_path / 'codes').exists()
  with pytest.raises(errors.InputError, match='--crop=.centre.*center'):
    encode.encode(native, tmp_path / 'codes', images, crop='centre')
  made = encode.encode(native, tmp_path / 'codes', images, 'train',
                       batch_size=8, crop='center')['train']
  assert made['count'] == 12 and made['crop'] == 'center'
  source = codes.Codes(str(tmp_path / 'codes'), 'train', 0, False)
  square = selection.eval_examples(generator(
      native, evaluation__source=images, evaluation__split='train'))
  x = np.stack([square.evaluate(n)['image'] for n in (0, 11)])
  expected = vitok.load(native).encode(x).z
  for n, z in zip((0, 11), expected, strict=True):
    np.testing.assert_allclose(source.read(n, None)[0], z, atol=1e-5)


def test_statistics_of_a_tokenizer_of_native_sizes_hold_no_padding(native):
  config = generator(native)
  stale = {'mean': [9.] * 4, 'deviation': [9.] * 4,
           'sha256': tokenizer.Frozen(config).sha256}
  path = native / 'latents/3-mean.json'
  files.write_text(path, json.dumps(stale))  # As it was when padding counted.
  loaded = tokenizer.Frozen(config).reference.load()
  seen = config.copy_and_resolve_references()
  seen.batch_size, seen.data.crop = 64, 'center'
  z = np.asarray(vitok.load(native).encode(
      data.host_batch(seen, 0)['image']).z, np.float64).reshape(-1, 4)
  np.testing.assert_allclose(loaded['mean'], z.mean(0), atol=1e-5)
  np.testing.assert_allclose(loaded['deviation'], z.std(0), rtol=1e-5)
  assert json.loads(path.read_text())['crop'] == 'center'


@pytest.mark.parametrize('part', ['data', 'evaluation'])
def test_a_generator_takes_no_images_at_their_own_size(native, part):
  with pytest.raises(errors.InputError, match=f'{part}.crop.*center'):
    tasks.build(generator(native, **{f'{part}__crop': 'native'}))


def test_statistics_of_cached_codes_are_theirs_and_need_no_images(
    tmp_path, images, monkeypatch):
  workdir = make(tmp_path / 'tokenizer', data__sources=(images,),
                 evaluation__split='train')
  for name, split in (('a', 'train[:4]'), ('b', 'train[4:]')):
    made = encode.encode(workdir, tmp_path / name, split=split, batch_size=8)
    assert made['train']['count'] in (4, 8)
  monkeypatch.setattr(data, 'host_batch', None)  # The images may be gone.
  config = generator(workdir, data__sources=tuple(
      f'codes:{tmp_path}/{name}' for name in 'ab'), data__weights=(1., 2.),
                     evaluation__split='train', evaluation__source=images)
  loaded = tokenizer.Frozen(config).reference.load()
  z = np.concatenate([
      np.asarray(codes.Codes(str(tmp_path / name), 'train', 0, False).read(
          i, None)[0], np.float64)
      for name, count in (('a', 4), ('b', 8)) for i in range(count)])
  np.testing.assert_allclose(loaded['mean'], z.mean(0), atol=1e-6)
  np.testing.assert_allclose(loaded['deviation'], z.std(0), rtol=1e-5)
  assert not (workdir / 'latents').exists()


def test_by_default_a_generator_draws_the_codes_whose_images_it_would_draw(
    tmp_path):
  """Of a tokenizer of a slice, and of a split that is not called 'train'."""
  source = labelled(tmp_path / 'images')
  (tmp_path / 'images/train').rename(tmp_path / 'images/all')
  workdir = make(tmp_path / 'tokenizer', data__sources=(source,), **{
      'data__split': 'all[:75%]', 'evaluation__split': 'all[75%:]',
      'data__crop': 'center'})
  (made,) = encode.encode(workdir, tmp_path / 'codes', batch_size=8).values()
  assert made['split'] == 'all' and made['count'] == 12
  of_dit = f'configs/dit.py:F:{workdir}'
  images, cached = (config_lib.override(config_lib.load(of_dit), {
      'batch_size': 8, 'evaluation.count': 0, **changes})
                    for changes in ({}, {
                        'data.sources': (f'codes:{tmp_path}/codes',),
                        'tokenizer.sample': False}))
  for config in (images, cached):
    data.check(config)
  for step in (0, 3):
    one, other = (data.host_batch(config, step) for config in (images, cached))
    np.testing.assert_array_equal(one['index'], other['index'])
    np.testing.assert_allclose(vitok.load(workdir).encode(one['image']).z,
                               other['code'], atol=1e-5)
  for config in (images, cached):
    examples = selection.eval_examples(config)
    assert list(selection.evaluated(examples, config)) == [9, 10, 11]


def test_by_default_all_codes_are_written_that_the_config_of_a_dit_reads(
    tmp_path):
  for split, count in (('train', 12), ('val', 4)):
    for i in range(count):
      path = tmp_path / 'images' / split / f'{i:02}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.new('RGB', (16, 16), (20 * i, 0, 255 * (split == 'val'))).save(path)
  own = dict(data__sources=(f'folder:{tmp_path}/images',),
             evaluation__split='val')
  workdir = make(tmp_path / 'tokenizer', **own)
  made = encode.encode(workdir, tmp_path / 'codes', batch_size=8)
  assert {of: made[of]['count'] for of in made} == {'train': 12, 'val': 4}
  assert made['train']['mean'] != made['val']['mean']
  config = config_lib.override(config_lib.load(f'configs/dit.py:F:{workdir}'), {
      'data.sources': f'codes:{tmp_path}/codes', 'tokenizer.sample': False})
  data.check(config)
  loaded = tokenizer.Frozen(config).reference.load()
  np.testing.assert_allclose(loaded['mean'], made['train']['mean'], rtol=1e-6)
  # On a source of its own a generator is evaluated as its tokenizer was.
  workdir = make(tmp_path / 'other', **own | {
      'evaluation__source': 'photographs', 'evaluation__split': 'test'})
  assert set(encode.encode(workdir, tmp_path / 'more', batch_size=8)) == {
      'train'}
  data.check(config_lib.override(
      config_lib.load(f'configs/dit.py:F:{workdir}'), {
          'data.sources': f'codes:{tmp_path}/more',
          'tokenizer.sample': False}))


def test_cached_codes_of_a_tokenizer_of_clips_are_trained_on(tmp_path):
  """Stills do: a source of images is refused where it is trained on."""
  workdir = make(tmp_path / 'tokenizer', model__name='A-A/2x8x4',
                 model__positions='rope3d', data__frames=4,
                 evaluation__crop='center')
  made = encode.encode(workdir, tmp_path / 'codes', split='test[:8]',
                       batch_size=8)
  assert made['test']['shape'] == [8, 4]
  config = generator(workdir, data__sources=(f'codes:{tmp_path}/codes',),
                     data__split='test', dit__positions='rope1d')
  validation.check(config)
  task = tasks.build(config)
  frozen = {'tokenizer': task.weights['tokenizer'].load()}
  batch = data.host_batch(config, 0) | {'row': np.arange(8, dtype=np.int32)}

  @jax.jit
  def first(frozen, batch):
    params, stats = task.init(jax.random.key(0))
    state = base.State(step=jnp.int32(0), params=mesh.unbox(params), opt={},
                       ema={}, stats=stats)
    return task.players[0].grad(state, frozen, batch, jax.random.key(1), {})

  made = first(frozen, batch)
  assert made.metrics['loss'] > 0  # Of noise, which a new DiT gives none of.
  assert np.abs(made.grads['unembed']['bias']).max() > 0
  config.data.sources = ('photographs',)
  with pytest.raises(errors.InputError, match='data.frames.*one frame'):
    data.check(config)
