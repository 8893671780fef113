"""Means, standard errors and columns of an evaluation."""

import numpy as np
import pytest

from vitok.metrics import table

N = 13


def _rows():
  rng = np.random.default_rng(0)
  return {'psnr': rng.normal(25, 3, N).astype(np.float32),
          'ssim': rng.uniform(0, 1, N).astype(np.float32)}


def _fill(size, images=0, order=None):
  """A table of the N examples in padded batches of `size`."""
  rows, filled = _rows(), table.Table(images)
  order = np.arange(N) if order is None else order
  for start in range(0, N, size):
    here = order[start:start + size]
    pad = size - len(here)
    values = {name: np.pad(column[here], (0, pad), constant_values=1e9)
              for name, column in rows.items()}
    if images:
      picture = np.pad(here, (0, pad))[:images].astype(np.uint8)
      picture = picture.reshape(-1, 1, 1, 1, 1)
      values.update(originals=picture, reconstructions=picture + 100)
    filled.add(values, {'mask': np.arange(size) < len(here),
                        'index': np.pad(here, (0, pad)),
                        'group': np.pad(here, (0, pad)) // 4})
  return filled


@pytest.mark.parametrize('size', [1, 7, 64])
def test_batch_size_and_padding_do_not_matter(size):
  filled, whole = _fill(size), _fill(N)
  assert filled.summary() == whole.summary()
  for name, column in filled.columns().items():
    np.testing.assert_array_equal(column, whole.columns()[name])


def test_rows_are_ordered_by_record():
  order = np.random.default_rng(1).permutation(N)
  columns = _fill(4, order=order).columns()
  np.testing.assert_array_equal(columns['index'], np.arange(N))
  np.testing.assert_array_equal(columns['psnr'], _rows()['psnr'])


def test_summary_is_mean_and_standard_error():
  summary, psnr = _fill(5).summary(), _rows()['psnr'].astype(np.float64)
  assert summary['count'] == N
  np.testing.assert_allclose(summary['psnr'], psnr.mean(), rtol=1e-12)
  np.testing.assert_allclose(
      summary['psnr_se'], psnr.std(ddof=1) / np.sqrt(N), rtol=1e-12)


def test_group_error_of_copies_is_that_of_the_originals():
  """k crops that are all alike are one observation, not k."""
  values = np.random.default_rng(0).normal(size=20)
  groups = np.arange(20)
  alone = table.standard_error(values, groups)
  copies = table.standard_error(values.repeat(5), groups.repeat(5))
  np.testing.assert_allclose(copies, alone, rtol=1e-12)
  naive = table.standard_error(values.repeat(5), np.arange(100))
  assert naive < 0.5 * copies


def test_group_error_has_the_right_size():
  """Against the spread of the mean over many draws of clustered data."""
  rng = np.random.default_rng(0)
  groups = np.arange(40).repeat(6)
  means, claimed = [], []
  for _ in range(400):
    values = rng.normal(size=40)[groups] + rng.normal(size=240)
    means.append(values.mean())
    claimed.append(table.standard_error(values, groups))
  # 400 draws know a standard deviation to 3.5%.
  np.testing.assert_allclose(np.mean(claimed), np.std(means), rtol=0.12)


def test_one_example_has_no_standard_error():
  filled = table.Table()
  filled.add({'psnr': np.ones(2)}, {'mask': [True, False], 'index': [3, 0],
                                    'group': [3, 0]})
  assert filled.summary() == {'psnr': 1.0, 'count': 1}


@pytest.mark.parametrize('size', [1, 4, 64])
def test_first_images_are_kept_and_padding_is_not(size):
  pictures = _fill(size, images=6).pictures()
  np.testing.assert_array_equal(pictures['originals'].ravel(), np.arange(6))
  np.testing.assert_array_equal(
      pictures['reconstructions'].ravel(), np.arange(6) + 100)
  assert len(_fill(size, images=50).pictures()['originals']) == N


def test_a_record_measured_twice_is_an_error():
  filled = _fill(N)
  filled.add({name: column[:1] for name, column in _rows().items()},
             {'mask': [True], 'index': [5], 'group': [1]})
  with pytest.raises(ValueError, match='record 5'):
    filled.summary()


def test_an_empty_evaluation_is_an_error():
  with pytest.raises(ValueError, match='no example'):
    table.Table().summary()
  filled = table.Table()
  filled.add({'psnr': np.ones(1)}, {'mask': [False], 'index': [0],
                                    'group': [0]})
  with pytest.raises(ValueError, match='no example'):
    filled.summary()


def test_a_metric_that_comes_and_goes_is_an_error():
  filled = _fill(N)
  with pytest.raises(ValueError, match='columns'):
    filled.add({'psnr': np.ones(1)}, {'mask': [True], 'index': [99],
                                      'group': [0]})
