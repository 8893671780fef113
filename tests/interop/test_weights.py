"""The cache of converted weights."""

import json
import struct

import jax
import numpy as np
import pytest
import safetensors.numpy

from vitok import errors
from vitok.interop import weights
from vitok.metrics import networks

NAME = 'lpips_vgg16'


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
  monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / 'cache'))


def tree():
  rng = np.random.default_rng(0)
  return {'net': {'conv1': {'kernel': rng.normal(size=(2, 3)).astype('f4'),
                            'bias': np.zeros(3, 'f4')}},
          # Not contiguous, as a transposed kernel is.
          'heads': {'0': rng.normal(size=(4, 5)).astype('f4').T},
          'step': np.float32(3)}


def test_what_is_saved_is_loaded_bit_for_bit_with_its_source():
  info = weights.save(NAME, tree(), 'a package')
  loaded = weights.flatten(weights.load(NAME))
  expected = weights.flatten(tree())
  assert loaded.keys() == expected.keys()
  for key, array in expected.items():
    np.testing.assert_array_equal(loaded[key], array)
  assert weights.describe(NAME) == info
  assert info.source == 'a package'


def test_absent_weights_name_the_file_and_the_command():
  assert not weights.is_cached(NAME)
  for read in (weights.load, weights.describe):
    with pytest.raises(errors.InputError) as refusal:
      read(NAME)
    assert str(weights.path_of(NAME)) in str(refusal.value)
    assert f'python tools/fetch_weights.py {NAME}' in str(refusal.value)


def test_an_unknown_network_is_refused_with_the_nearest():
  with pytest.raises(errors.InputError, match='choice: lpips_vgg16'):
    weights.load('lpips_vgg')


@pytest.mark.parametrize('damage', ['a bit', 'the end', 'all'])
def test_a_damaged_file_is_refused_with_the_command(damage):
  weights.save(NAME, tree(), 'a package')
  path = weights.path_of(NAME)
  data = bytearray(path.read_bytes())
  data[-3] ^= 1
  path.write_bytes({'a bit': data, 'the end': data[:-4], 'all': b''}[damage])
  with pytest.raises(errors.InputError, match='tools/fetch_weights.py'):
    weights.load(NAME)


def test_a_file_of_another_program_is_refused():
  weights.path_of(NAME).parent.mkdir()
  safetensors.numpy.save_file({'a': np.zeros(3)}, weights.path_of(NAME))
  with pytest.raises(errors.InputError, match='neither its source'):
    weights.describe(NAME)


def test_hash_is_of_names_types_shapes_and_bytes_and_of_no_order():
  a, b = np.arange(6, dtype='f4'), np.ones(2, 'f4')
  known = weights.content_sha256({'a': a, 'b': b})
  assert weights.content_sha256({'b': b, 'a': a}) == known
  for other in ({'a': a, 'c': b}, {'a': a.reshape(2, 3), 'b': b},
                {'a': a.view('i4'), 'b': b}, {'a': a + 1, 'b': b}):
    assert weights.content_sha256(other) != known


def test_without_the_variable_the_cache_is_in_the_home_folder(monkeypatch):
  monkeypatch.delenv(weights.CACHE_VARIABLE)
  monkeypatch.setenv('HOME', '/home/someone')
  assert str(weights.path_of(NAME)) == (
      '/home/someone/.cache/vitok/weights/lpips_vgg16.safetensors')


def write(path, dtype, names, size=4):
  """A safetensors file by hand: types that NumPy lacks, sizes in bytes."""
  header = {name: {'dtype': dtype, 'shape': [1], 'data_offsets': [
      i * size, (i + 1) * size]} for i, name in enumerate(names)}
  header['__metadata__'] = {'source': 'a test', 'sha256': '0'}
  text = json.dumps(header).encode()
  path.parent.mkdir(exist_ok=True)
  path.write_bytes(struct.pack('<Q', len(text)) + text
                   + bytes(len(names) * size))


@pytest.mark.parametrize('dtype', ['F8_E4M3', 'F8_E5M2'])
def test_types_that_numpy_lacks_are_refused(dtype):
  path = weights.path_of(NAME)
  write(path, dtype, ['a'], size=1)
  with pytest.raises(errors.InputError, match='cannot be read.*float8'):
    weights.load(NAME)
  with pytest.raises(errors.InputError, match=f'{path}.*float8'):
    weights.read(path)


@pytest.mark.parametrize('names', [('a', 'a/b'), ('a/b', 'a'),
                                   ('a', 'a/b/c')])
def test_names_that_make_no_tree_are_refused(names):
  arrays = {name: np.ones(2, 'f4') for name in names}
  with pytest.raises(ValueError, match='array'):
    weights.nest(arrays)
  weights.path_of(NAME).parent.mkdir()
  safetensors.numpy.save_file(arrays, weights.path_of(NAME), {
      'source': 'a test', 'sha256': weights.content_sha256(arrays)})
  with pytest.raises(errors.InputError, match='holds no tree.*fetch_weights'):
    weights.load(NAME)


@pytest.mark.parametrize('params', [
    {'w': np.zeros(3)}, {'net': {}, 'heads': {}},
    {'net': {'conv1': {'kernel': np.zeros((2, 2, 3, 64), 'f4'),
                       'bias': np.zeros(64, 'f4')}}, 'heads': {}}])
def test_arrays_of_another_network_are_refused_where_it_is_traced(params):
  image = jax.ShapeDtypeStruct((1, 1, 32, 32, 3), 'uint8')
  with pytest.raises(errors.InputError, match='lpips_alexnet.*not those of'):
    jax.eval_shape(networks.DISTANCES['lpips_alexnet'].apply,
                   {'lpips_alexnet': params}, image, image)
  with pytest.raises(errors.InputError, match='inception_fid.*not those of'):
    jax.eval_shape(networks.FEATURES['inception_fid'].apply,
                   {'inception_fid': params}, image)
