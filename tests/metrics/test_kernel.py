"""Kernel distance: unbiased, also for pairs, with an honest standard error.

Populations are a few vectors drawn with replacement, so that their distance is
known exactly: all expectations are means over the vectors.
"""

import numpy as np
import pytest

from vitok.metrics import inception_score, kernel, table

POINTS, D = 9, 4


def _k(x, y):
  return (x @ y.T / x.shape[1] + 1)**3


def _population(seed=0):
  """(POINTS, D) of a model and of its originals, and their distance."""
  rng = np.random.default_rng(seed)
  y = rng.normal(size=(POINTS, D))
  x = .8 * y + .3 * rng.normal(size=y.shape) + .2
  return x, y, _k(x, x).mean() + _k(y, y).mean() - 2 * _k(x, y).mean()


def _by_loops(x, y, paired=False):
  """The definition, term by term."""
  n, m = len(x), len(y)
  same = lambda a: sum(_k(a[i:i + 1], a[j:j + 1]).item()
                       for i in range(len(a)) for j in range(len(a)) if i != j)
  cross = [_k(x[i:i + 1], y[j:j + 1]).item() for i in range(n)
           for j in range(m) if not (paired and i == j)]
  return same(x) / (n * (n - 1)) + same(y) / (m * (m - 1)) - 2 * np.mean(cross)


def _simulate(count, repeats, paired, estimate):
  x, y, truth = _population()
  rng = np.random.default_rng(1)
  found = []
  for _ in range(repeats):
    rows = rng.integers(POINTS, size=count)
    others = rows if paired else rng.integers(POINTS, size=count + 2)
    found.append(estimate(x[rows], y[others]))
  return np.array(found), truth


@pytest.mark.parametrize('paired', [False, True])
def test_equals_the_definition(paired):
  x, y = np.random.default_rng(0).normal(size=(2, 7, 3))
  y = y if paired else y[:5] + .5
  np.testing.assert_allclose(kernel.kid(x, y, paired=paired)[0],
                             _by_loops(x, y, paired), rtol=1e-12)


def test_chunks_do_not_matter(monkeypatch):
  x, y = np.random.default_rng(0).normal(size=(2, 50, 3))
  whole = kernel.kid(x, y)
  monkeypatch.setattr(kernel, '_CHUNK', 50 * 7)
  np.testing.assert_allclose(kernel.kid(x, y), whole, rtol=1e-12)


@pytest.mark.parametrize('paired', [False, True])
@pytest.mark.parametrize('count', [5, 20])
def test_is_unbiased_for_any_number_of_examples(count, paired):
  found, truth = _simulate(count, 1500, paired, lambda x, y: kernel.kid(
      x, y, paired=paired)[0])
  error = found.std() / np.sqrt(len(found))
  assert abs(found.mean() - truth) < 3.5 * error
  assert error < .1 * truth  # The test can tell.


def test_pairs_need_their_own_formula():
  """The usual one has the kernels of pairs in it, and is too low."""
  found, truth = _simulate(5, 1500, True, lambda x, y: kernel.kid(x, y)[0])
  assert found.mean() - truth < -20 * found.std() / np.sqrt(len(found))
  x, _, _ = _population()
  assert kernel.kid(x, x)[0] < -.1
  assert kernel.kid(x, x, paired=True) == pytest.approx((0, 0), abs=1e-14)


@pytest.mark.parametrize('paired', [False, True])
def test_standard_error_is_the_spread_over_draws(paired):
  """Root mean square of the claimed errors; 600 draws know it to 3%."""
  found, _ = _simulate(60, 600, paired, lambda x, y: kernel.kid(
      x, y, paired=paired))
  claimed = np.sqrt(np.mean(found[:, 1]**2))
  np.testing.assert_allclose(claimed, found[:, 0].std(), rtol=.12)


def test_standard_error_is_the_jackknife():
  x, y = np.random.default_rng(0).normal(size=(2, 12, 3))
  y = y[:9]

  def spread(values):
    n = len(values)
    return (n - 1) / n * np.sum((values - np.mean(values))**2)
  of_x = [_by_loops(np.delete(x, i, 0), y) for i in range(12)]
  of_y = [_by_loops(x, np.delete(y, i, 0)) for i in range(9)]
  np.testing.assert_allclose(
      kernel.kid(x, y)[1], np.sqrt(spread(of_x) + spread(of_y)), rtol=1e-10)
  z = x[:9] + .3 * y
  of_pairs = [_by_loops(np.delete(z, i, 0), np.delete(y, i, 0), True)
              for i in range(9)]
  np.testing.assert_allclose(kernel.kid(z, y, paired=True)[1],
                             np.sqrt(spread(of_pairs)), rtol=1e-10)


def test_the_values_of_pairs_are_the_jackknifes_and_have_the_distance_as_mean():
  x, y = np.random.default_rng(0).normal(size=(2, 9, 3))
  whole, without = _by_loops(x, y, True), [
      _by_loops(np.delete(x, i, 0), np.delete(y, i, 0), True) for i in range(9)]
  found = kernel.kid_of_pairs(x, y)
  np.testing.assert_allclose(found, 9 * whole - 8 * np.array(without),
                             rtol=1e-10)
  np.testing.assert_allclose(found.mean(), whole, rtol=1e-12)


def test_two_models_of_the_same_images_differ_by_less_than_their_errors_say():
  """Over draws of the images, and as their paired values claim it."""
  x, y, _ = _population()
  other = x + .05 * np.random.default_rng(3).normal(size=x.shape)
  rng, differences, claimed, apart = np.random.default_rng(1), [], [], []
  for _ in range(400):
    rows = rng.integers(POINTS, size=60)
    one, two = (kernel.kid_of_pairs(a[rows], y[rows]) for a in (x, other))
    differences.append(one.mean() - two.mean())
    each = np.arange(60)
    claimed.append(table.standard_error(one - two, each))
    apart.append(np.hypot(*(table.standard_error(a, each) for a in (one, two))))
  spread = np.std(differences)  # 400 draws know it to 4%.
  np.testing.assert_allclose(np.sqrt(np.mean(np.square(claimed))), spread,
                             rtol=.12)
  assert np.mean(apart) > 2 * spread


def test_groups_of_copies_have_the_error_of_the_originals():
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(2, 200, D))
  alone = kernel.kid(x, y, paired=True)[1]
  copies = [a.repeat(5, 0) for a in (x, y)]
  grouped = kernel.kid(*copies, paired=True,
                       groups_N=np.arange(200).repeat(5))[1]
  np.testing.assert_allclose(grouped, alone, rtol=.1)
  assert kernel.kid(*copies, paired=True)[1] < .5 * grouped
  assert kernel.kid(x, y, paired=True, groups_N=np.zeros(200))[1] is None


@pytest.mark.parametrize('paired', [False, True])
def test_subsets_are_unbiased_with_an_honest_error(paired):
  found, truth = _simulate(80, 400, paired, lambda x, y: kernel.kid_of_subsets(
      x, y, 20, paired=paired))
  spread = found[:, 0].std()
  assert abs(found[:, 0].mean() - truth) < 3.5 * spread / np.sqrt(len(found))
  claimed = np.sqrt(np.mean(found[:, 1]**2))
  np.testing.assert_allclose(claimed, spread, rtol=.12)


def test_subsets_hardly_spread_more_than_all_at_once():
  whole, _ = _simulate(80, 200, True, lambda x, y: kernel.kid(
      x, y, paired=True)[0])
  parts, _ = _simulate(80, 200, True, lambda x, y: kernel.kid_of_subsets(
      x, y, 20, paired=True)[0])
  assert parts.std() < 1.15 * whole.std()


def test_subsets_take_pairs_together_and_are_the_same_every_time():
  """The mean over subsets of the definition, with the order NumPy gives."""
  x, y = np.random.default_rng(0).normal(size=(2, 65, 3))
  order = np.random.default_rng(0).permutation(65)
  parts = [_by_loops(x[order[i:i + 20]], y[order[i:i + 20]], True)
           for i in (0, 20, 40)]
  value, error = kernel.kid_of_subsets(x, y, 20, paired=True)
  np.testing.assert_allclose(value, np.mean(parts), rtol=1e-12)
  np.testing.assert_allclose(error, np.std(parts, ddof=1) / 3**.5, rtol=1e-12)
  assert kernel.kid_of_subsets(x, y, 20, paired=True) == (value, error)


def test_samples_are_taken_all_at_once_until_there_are_two_subsets(monkeypatch):
  rng = np.random.default_rng(0)
  x, y = rng.standard_normal((19, 4)), rng.standard_normal((30, 4))
  monkeypatch.setattr(kernel, 'SUBSET', 10)
  assert kernel.kid_of_samples(x, y) == kernel.kid(x, y)
  with_more = np.concatenate([x, x[:1] + 1])
  assert kernel.kid_of_samples(with_more, y) == kernel.kid_of_subsets(
      with_more, y, 10)


def test_subsets_of_sorted_records_are_mixed():
  """Three classes in a row: pieces would be of one class each."""
  rng = np.random.default_rng(0)
  sorted_ = np.repeat([[-3.], [0.], [3.]], 100, 0) + rng.normal(size=(300, 1))
  mixed = rng.permutation(sorted_)
  value, error = kernel.kid_of_subsets(sorted_, mixed, 50)
  pieces = [kernel.kid(sorted_[i:i + 50], mixed[i:i + 50])[0]
            for i in range(0, 300, 50)]
  assert abs(value) < 4 * error < np.std(pieces, ddof=1) / 6**.5


@pytest.mark.parametrize('size', [1, 7, 64])
def test_batch_size_and_padding_do_not_matter(size):
  """Features of padded batches, in the order in which a table has them."""
  x, y = np.random.default_rng(0).normal(size=(2, 70, D))
  rows = table.Table()
  for start in range(0, 70, size):
    here = np.arange(start, start + size)
    mask, here = here < 70, np.minimum(here, 69)
    pad = np.where(mask, 0, np.nan)[:, None]
    rows.add({'x': x[here] + pad, 'y': y[here] + pad},
             {'mask': mask, 'index': here, 'group': here})
  columns = rows.columns()
  for paired in (False, True):
    assert kernel.kid(columns['x'], columns['y'], paired=paired) == (
        kernel.kid(x, y, paired=paired))
  assert inception_score.inception_score(columns['x']) == (
      inception_score.inception_score(x))


def test_too_few_examples_are_errors():
  rows = np.ones((5, 3))
  with pytest.raises(ValueError, match='2 and 5 examples'):
    kernel.kid(rows[:2], rows)
  with pytest.raises(ValueError, match='two subsets of 3'):
    kernel.kid_of_subsets(rows, rows, 3)
  with pytest.raises(ValueError, match='paired=True'):
    kernel.kid(rows[:4], rows, paired=True)
  with pytest.raises(ValueError, match='features'):
    kernel.kid(rows, rows[:, :2])
  with pytest.raises(ValueError, match='groups are of pairs'):
    kernel.kid(rows, rows, groups_N=np.arange(5))
