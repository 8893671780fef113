"""Moments of features do not know how the features came in."""

import json
import zipfile

import numpy as np
import pytest

from vitok import errors
from vitok.metrics import moments, numbers, protocol

N, D = 2500, 5  # Two full blocks and a rest.


def _features():
  rng = np.random.default_rng(0)
  return (rng.normal(size=(N, D)) @ rng.normal(size=(D, D)) + 3).astype(
      np.float32)


def _stream(size, features=None):
  """Moments of features in batches of `size`; padding is NaN."""
  features = _features() if features is None else features
  stream = moments.Stream()
  for start in range(0, len(features), size):
    here = features[start:start + size]
    padded = np.full((size, features.shape[1]), np.nan, np.float32)
    padded[:len(here)] = here
    stream.add(padded, np.arange(size) < len(here))
  return stream.moments()


def _same_bits(a, b):
  assert a.count == b.count
  np.testing.assert_array_equal(a.mean_D, b.mean_D)
  np.testing.assert_array_equal(a.scatter_DxD, b.scatter_DxD)


def _close(a, b, rtol=1e-13):
  assert a.count == b.count
  np.testing.assert_allclose(a.mean_D, b.mean_D, rtol=rtol)
  np.testing.assert_allclose(a.scatter_DxD, b.scatter_DxD, rtol=rtol,
                             atol=rtol * np.abs(b.scatter_DxD).max())


def test_equals_numpy():
  ours, rows = _stream(100), _features().astype(np.float64)
  assert ours.count == N and ours.scatter_DxD.dtype == np.float64
  np.testing.assert_allclose(ours.mean_D, rows.mean(0), rtol=1e-14)
  np.testing.assert_allclose(ours.covariance_DxD, np.cov(rows.T), rtol=1e-12,
                             atol=1e-13)


@pytest.mark.parametrize('size', [1, 7, 64, 1024, N, 4000])
def test_batch_size_and_padding_do_not_change_a_bit(size):
  _same_bits(_stream(size), _stream(333))


def test_reading_in_between_changes_nothing():
  stream, rows = moments.Stream(), _features()
  for start in range(0, N, 500):
    stream.add(rows[start:start + 500], np.ones(500, bool))
    assert stream.moments().count == start + 500
  _same_bits(stream.moments(), _stream(500))


@pytest.mark.parametrize('parts', [2, 3, 8])
def test_processes_merge_to_the_whole(parts):
  rows, whole = _features(), _stream(64)
  split = [_stream(64, rows[part::parts]) for part in range(parts)]
  _close(moments.merge(split), whole)
  _close(moments.merge(split[::-1]), whole)


def test_a_mean_far_from_zero_costs_no_digits():
  """Squares of raw values are 1e12 where the variance is 1."""
  rows = np.random.default_rng(0).normal(size=(4096, 2))
  stream = moments.Stream()
  stream.add(rows + 1e6, np.ones(4096, bool))
  # 1e6 + x itself is rounded to 1e-10. Raw squares would be off by 1e-4.
  np.testing.assert_allclose(stream.moments().covariance_DxD, np.cov(rows.T),
                             rtol=1e-10, atol=1e-10)


def test_a_feature_that_is_not_finite_is_seen():
  rows = _features()
  rows[7, 2] = np.nan
  assert np.isnan(_stream(64, rows).mean_D[2])


def test_nothing_to_measure_is_an_error():
  stream = moments.Stream()
  with pytest.raises(ValueError, match='no example'):
    stream.moments()
  stream.add(np.ones((2, D)), np.zeros(2, bool))
  with pytest.raises(ValueError, match='no example'):
    stream.moments()
  with pytest.raises(ValueError, match='no example'):
    moments.merge([])


def test_one_example_has_a_mean_and_no_covariance():
  one = _stream(1, _features()[:1])
  np.testing.assert_array_equal(one.mean_D, _features()[0])
  with pytest.raises(ValueError, match='covariance of 1'):
    _ = one.covariance_DxD


def test_shapes_that_do_not_fit_are_errors():
  stream = moments.Stream()
  with pytest.raises(ValueError, match='mask'):
    stream.add(np.ones((3, D)), np.ones(2, bool))
  with pytest.raises(ValueError, match='mask'):
    stream.add(np.ones((3, 2, D)), np.ones(3, bool))
  with pytest.raises(ValueError, match='4 numbers after 5'):
    moments.merge([_stream(64), _stream(64, np.ones((9, 4)))])


def _protocol(**changes):
  fields = dict(
      source='photographs', split='test', crop='center', filter='antialias',
      resolution=64, frames=1, count=N, data='abc', numbers={
          'features': numbers.define('features', weights='0' * 64)})
  return protocol.Protocol(**fields | changes).of('features')


def test_a_file_gives_back_the_same_bits_and_what_lies_beside(tmp_path):
  path = tmp_path / 'cache' / 'a.npz'
  frames = [_stream(64), _stream(64, -_features()**2)]
  moments.write(path, _protocol(), frames, index=np.arange(3))
  stored, others = moments.read(path, _protocol())
  for found, frame in zip(stored, frames, strict=True):
    _same_bits(found, frame)
  assert list(others) == ['index']
  np.testing.assert_array_equal(others['index'], np.arange(3))
  with np.load(path, allow_pickle=False) as file:
    assert json.loads(str(file['protocol']))['id'] == _protocol().id


def test_a_file_from_before_frames_had_an_axis_is_read(tmp_path):
  path, whole = tmp_path / 'a.npz', _stream(64)
  np.savez(path, protocol=np.array(_protocol().to_json()), count=whole.count,
           mean=whole.mean_D, scatter=whole.scatter_DxD)
  (stored,), _ = moments.read(path, _protocol())
  _same_bits(stored, whole)


def test_a_stream_goes_on_from_moments():
  rows, stream = _features(), moments.Stream(_stream(64, _features()[:2048]))
  stream.add(rows[2048:], np.ones(N - 2048, bool))
  _same_bits(stream.moments(), _stream(64))


@pytest.mark.parametrize('changes, difference', [
    ({'split': 'train'}, "protocol.split.*split is 'train' and 'test'"),
    ({'resolution': 32}, 'protocol.resolution.*32 and 64'),
    ({'numbers': {'features': numbers.define('features', weights='1' * 64)}},
     'protocol.features.weights')])
def test_moments_of_another_protocol_are_refused_and_the_difference_named(
    tmp_path, changes, difference):
  path = tmp_path / 'a.npz'
  moments.write(path, _protocol(), [_stream(64)])
  with pytest.raises(errors.InputError, match=difference):
    moments.read(path, _protocol(**changes))


def test_files_that_hold_no_moments_are_refused(tmp_path):
  path = tmp_path / 'a.npz'
  with pytest.raises(errors.InputError, match='holds no moments'):
    moments.read(path, _protocol())
  np.savez(path, mean=np.zeros(3))
  with pytest.raises(errors.InputError, match='holds no moments'):
    moments.read(path, _protocol())
  np.savez(path, protocol=np.array([{'id': 1}], object))
  with pytest.raises(errors.InputError, match='holds no moments'):
    moments.read(path, _protocol())
  moments.write(path, _protocol(), [_stream(64)])
  path.write_bytes(path.read_bytes()[:-40])
  with pytest.raises(errors.InputError, match='holds no moments'):
    moments.read(path, _protocol())


@pytest.mark.parametrize('field, value', [
    (8, 1),  # Encrypted.
    (10, 99),  # Compressed by a method that nobody has.
])
def test_a_damaged_directory_of_a_file_is_refused(tmp_path, field, value):
  path = tmp_path / 'a.npz'
  moments.write(path, _protocol(), [_stream(64)])
  data = bytearray(path.read_bytes())
  data[data.find(b'PK\1\2') + field] = value
  data[data.find(b'PK\3\4') + field - 2] = value
  path.write_bytes(data)
  with pytest.raises(errors.InputError, match='holds no moments'):
    moments.read(path, _protocol())


def test_a_damaged_compressed_file_is_refused(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez_compressed(path, protocol=np.zeros(9))
  with zipfile.ZipFile(path) as file:
    info, = file.infolist()
  data = bytearray(path.read_bytes())
  extra = int.from_bytes(data[28:30], 'little')
  data[30 + len(info.filename) + extra] = 0xff  # A block of no known type.
  path.write_bytes(data)
  with pytest.raises(errors.InputError, match='invalid block type'):
    moments.read(path, _protocol())
