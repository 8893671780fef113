"""A frozen tokenizer: what its codes and their statistics are of."""

import json

import numpy as np
import pytest
from PIL import Image

import vitok
from tests import runs, tiny_run
from tests.tasks.test_generation import TINY_DIT
from vitok import config as config_lib
from vitok import data, encode, errors, files, tasks
from vitok.data import codes, selection
from vitok.tasks import tokenizer
from vitok.training import trainer


@pytest.fixture(autouse=True)
def few_examples(monkeypatch):
  monkeypatch.setattr(tokenizer, 'EXAMPLES', 64)


def make(folder, **changes):
  """A finished tokenizer of initial parameters, in a new folder."""
  tiny_run.make(folder, **{'data__flip': False, **changes})
  files.write_text(folder / trainer.DONE, '{}')
  return folder


def generator(workdir, **changes):
  """The config of a generator on the codes of a run."""
  own = config_lib.read(workdir / 'config.json')
  config = config_lib.override(config_lib.default(), runs.TINY | TINY_DIT | {
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
  """A source of twelve images in two classes, none of them a square."""
  root = tmp_path_factory.mktemp('images')
  for i in range(12):
    path = root / 'train' / 'ab'[i % 2] / f'{i:02}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(i).integers(
        0, 256, (16, 16 + 2 * i, 3), np.uint8)).save(path)
  return f'folder:{root}'



def test_a_tokenizer_of_native_sizes_encodes_squares_where_it_is_told_to(
    native, images, tmp_path):
  with pytest.raises(errors.InputError, match='--crop=.native.*choice: center'):
    encode.encode(native, tmp_path / 'codes', images)
  assert not (tmp_path / 'codes').exists()
  with pytest.raises(errors.InputError, match='--crop=.centre.*center'):
    encode.encode(native, tmp_path / 'codes', images, crop='centre')
  made = encode.encode(native, tmp_path / 'codes', images, batch_size=8,
                       crop='center')
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
