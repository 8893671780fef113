"""References are found by their protocol and by nothing else."""

import dataclasses

import numpy as np
import pytest
from etils import epath

from vitok import errors
from vitok.metrics import moments, numbers, protocol, reference

N, D = 1500, 4


def _protocol(weights='0' * 64, **changes):
  fields = dict(source='photographs', split='test', crop='center',
                filter='antialias', resolution=64, frames=1, count=N,
                data='abc', numbers={
                    'features': numbers.define('features', weights=weights)})
  return protocol.Protocol(**fields | changes).of('features')


def _features():
  return np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)


def test_what_was_written_is_read(tmp_path):
  folder, features = tmp_path / 'not' / 'there', _features()
  assert reference.read(folder, _protocol()) is None
  made, = reference.write(folder, _protocol(), features, np.arange(N))
  (found,), arrays = reference.read(folder, _protocol())
  assert found.count == made.count == N
  np.testing.assert_array_equal(found.scatter_DxD, made.scatter_DxD)
  np.testing.assert_array_equal(arrays['features'], features)
  np.testing.assert_array_equal(arrays['index'], np.arange(N))
  assert arrays['features'].dtype == np.float32


def test_moments_are_those_of_a_stream_bit_by_bit(tmp_path):
  features, stream = _features(), moments.Stream()
  for start in range(0, N, 7):
    rows = features[start:start + 7]
    stream.add(rows, np.ones(len(rows), bool))
  made, = reference.write(tmp_path, _protocol(), features, np.arange(N))
  np.testing.assert_array_equal(made.scatter_DxD,
                                stream.moments().scatter_DxD)


def test_of_frames_the_moments_alone_are_stored(tmp_path):
  stream = moments.Stream()
  stream.add(_features(), np.ones(N, bool))
  made = reference.write(tmp_path, _protocol(), 2 * [stream], np.arange(N))
  found, arrays = reference.read(tmp_path, _protocol())
  assert list(arrays) == ['index'] and len(found) == len(made) == 2
  with pytest.raises(ValueError, match='1500 rows for 1499 records'):
    reference.write(tmp_path, _protocol(), 2 * [stream], np.arange(N - 1))


@pytest.mark.parametrize('changes', [
    {'weights': '1' * 64}, {'count': N - 1}, {'data': 'other'}, {'crop': 'x'}])
def test_another_protocol_finds_nothing(tmp_path, changes):
  reference.write(tmp_path, _protocol(), _features(), np.arange(N))
  assert reference.read(tmp_path, _protocol(**changes)) is None


def test_what_other_numbers_are_measured_makes_no_difference(tmp_path):
  reference.write(tmp_path, _protocol(), _features(), np.arange(N))
  more = dataclasses.replace(_protocol(), ssim='else', numbers={
      **_protocol().numbers, 'lpips': protocol.Definition('v0.1')})
  assert reference.read(tmp_path, more.of('features')) is not None
  assert reference.read(
      tmp_path, _protocol(source='folder:/elsewhere')) is not None


def test_a_file_under_another_name_is_refused(tmp_path):
  reference.write(tmp_path, _protocol(), _features(), np.arange(N))
  other = _protocol(split='train')
  reference.path(tmp_path, _protocol()).rename(reference.path(tmp_path, other))
  with pytest.raises(errors.InputError, match="split is 'train' and 'test'"):
    reference.read(tmp_path, other)


def test_features_that_are_not_the_protocols_are_not_stored(tmp_path):
  with pytest.raises(ValueError, match='says 1500'):
    reference.write(tmp_path, _protocol(), _features()[1:], np.arange(N - 1))
  with pytest.raises(ValueError, match='1499 records'):
    reference.write(tmp_path, _protocol(), _features(), np.arange(N - 1))
  assert not list(tmp_path.iterdir())


def test_writing_is_atomic(tmp_path, monkeypatch):
  def fail(self, target):
    raise OSError('disk full')
  monkeypatch.setattr(type(epath.Path(tmp_path)), 'replace', fail)
  with pytest.raises(OSError, match='disk full'):
    reference.write(tmp_path, _protocol(), _features(), np.arange(N))
  assert not list(tmp_path.iterdir())
  assert reference.read(tmp_path, _protocol()) is None
