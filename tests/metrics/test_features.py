"""Features come in batches: rows are kept, and of frames the moments."""

import tracemalloc

import numpy as np
import pytest

from vitok.metrics import features, moments

N, T, D = 2500, 3, 5  # Two full blocks of moments and a rest.


def _features(frames):
  return np.random.default_rng(0).normal(1, 2, (N, frames, D)).astype('f4')


def _gather(x, size, step=1):
  """Columns of x in batches of `size`; padding is NaN, as are odd records."""
  gathered = features.Gathered()
  for start in range(0, len(x), size):
    here = x[start:start + size]
    padded = np.full((size, *x.shape[1:]), np.nan, np.float32)
    padded[:len(here)] = here
    row = np.arange(start, start + size)
    mask = (row < len(x)) & (row % step == 0)
    padded[~mask] = np.nan
    gathered.add({'x': padded}, dict(
        mask=mask, index=np.where(row < len(x), row, -1), group=row))
  return gathered.columns()


def _same_bits(found, expected):
  for a, b in zip(found, expected, strict=True):
    assert a.count == b.count
    np.testing.assert_array_equal(a.mean_D, b.mean_D)
    np.testing.assert_array_equal(a.scatter_DxD, b.scatter_DxD)


@pytest.mark.parametrize('size', [1, 7, 64, N])
def test_frames_have_the_moments_of_their_rows_whatever_the_batches(size):
  x = _features(T)
  found = _gather(x, size, step=2)
  np.testing.assert_array_equal(found['index'], np.arange(0, N, 2))
  _same_bits(features.moments(found['x']),
             [moment for t in range(T)
              for moment in features.moments(x[::2, t])])
  whole = moments.Moments.of(x[::2, 1])  # At once, hence other last digits.
  np.testing.assert_allclose(
      list(features.moments(found['x']))[1].scatter_DxD, whole.scatter_DxD,
      rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize('size', [7, N])
def test_of_one_frame_the_rows_are_kept(size):
  x = _features(1)
  np.testing.assert_array_equal(_gather(x, size)['x'], x[:, 0])


def test_frames_take_the_room_of_their_moments():
  x = np.zeros((256, 4, 16), np.float32)  # A batch is 64 KB, all are 16 MB.
  gathered = features.Gathered()
  tracemalloc.start()
  for start in range(0, 256 * 256, 256):
    row = np.arange(start, start + 256)
    gathered.add({'x': x}, dict(mask=np.ones(256, bool), index=row, group=row))
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 4e6  # Mostly of the 64k records' numbers and groups.


@pytest.mark.parametrize('records', [(1, 0), (0, 0)])
def test_frames_in_another_order_are_refused(records):
  def row(index):
    return dict(mask=np.ones(len(index), bool), index=np.array(index),
                group=np.array(index))
  gathered = features.Gathered()
  with pytest.raises(ValueError, match='after record -1'):
    gathered.add({'x': np.zeros((2, T, D))}, row(records))
  gathered = features.Gathered()
  gathered.add({'x': np.zeros((1, T, D))}, row(records[:1]))
  with pytest.raises(ValueError, match=f'after record {records[0]}'):
    gathered.add({'x': np.zeros((1, T, D))}, row(records[1:]))
