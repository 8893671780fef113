"""Frechet distances with known values, and their limit for many examples."""

import numpy as np
import pytest
import scipy.linalg

from vitok.metrics import frechet, moments


def _gaussian(mean, covariance, count=1000):
  """Moments with exactly this mean and covariance."""
  return moments.Moments(count, np.asarray(mean, np.float64),
                         np.asarray(covariance, np.float64) * (count - 1))


def _rotation(size, seed=0):
  return np.linalg.qr(np.random.default_rng(seed).normal(size=(size,) * 2))[0]


def _covariance(size, seed, decay=.5):
  """Eigenvalues from 1 down to exp(-decay (size - 1))."""
  axes = _rotation(size, seed)
  return (axes * np.exp(-decay * np.arange(size))) @ axes.T


def _by_square_root(mean_a, a, mean_b, b):
  """The textbook formula."""
  root = scipy.linalg.sqrtm(a)
  root = scipy.linalg.sqrtm(root @ b @ root).real
  return np.sum((mean_a - mean_b)**2) + np.trace(a + b - 2 * root)


def test_one_dimension():
  """(m1 - m2)^2 + (s1 - s2)^2."""
  a, b = _gaussian([1.], [[9.]]), _gaussian([3.], [[.25]])
  np.testing.assert_allclose(frechet.distance(a, b), 4 + 2.5**2, rtol=1e-14)


def test_covariances_with_common_axes():
  """The sum of (s1 - s2)^2 over the axes."""
  axes = _rotation(12)
  rng = np.random.default_rng(1)
  s1, s2, m1, m2 = rng.uniform(.1, 3, (4, 12))
  a = _gaussian(m1, (axes * s1**2) @ axes.T)
  b = _gaussian(m2, (axes * s2**2) @ axes.T)
  np.testing.assert_allclose(
      frechet.distance(a, b), np.sum((m1 - m2)**2) + np.sum((s1 - s2)**2),
      rtol=1e-13)


def test_covariances_with_different_axes():
  a, b = _covariance(10, 0), 2 * _covariance(10, 1)
  mean = np.linspace(0, 1, 10)
  np.testing.assert_allclose(
      frechet.distance(_gaussian(mean, a), _gaussian(-mean, b)),
      _by_square_root(mean, a, -mean, b), rtol=1e-11)


def test_is_symmetric_and_grows_with_the_square_of_the_unit():
  a, b = _gaussian(np.ones(6), _covariance(6, 0)), _gaussian(
      np.zeros(6), _covariance(6, 1))
  value = frechet.distance(a, b)
  np.testing.assert_allclose(frechet.distance(b, a), value, rtol=1e-13)
  scaled = [moments.Moments(c.count, 10 * c.mean_D, 100 * c.scatter_DxD)
            for c in (a, b)]
  np.testing.assert_allclose(frechet.distance(*scaled), 100 * value,
                             rtol=1e-13)


@pytest.mark.parametrize('seed', range(3))
def test_singular_covariances_measure_what_lives_in_their_subspaces(seed):
  """Zero features and any rotation leave the distance as it was."""
  rng = np.random.default_rng(seed)
  small_a, small_b = _covariance(4, seed), _covariance(4, seed + 9)
  expected = frechet.distance(_gaussian(np.zeros(4), small_a),
                              _gaussian(np.ones(4), small_b))
  axes = _rotation(60, seed)[:, :4]  # Orthonormal columns.
  rows = rng.normal(size=(2, 30, 4)) @ np.stack([
      np.linalg.cholesky(small_a), np.linalg.cholesky(small_b)]
  ).transpose(0, 2, 1)
  a, b = (_gaussian(axes @ mean, axes @ cov @ axes.T) for mean, cov in (
      (np.zeros(4), small_a), (np.ones(4), small_b)))
  np.testing.assert_allclose(frechet.distance(a, b), expected, rtol=1e-12)
  # Of examples: 30 rows in 60 dimensions are singular in any case.
  low = [moments.Moments.of(side) for side in rows]
  high = [moments.Moments.of(side @ axes.T) for side in rows]
  np.testing.assert_allclose(frechet.distance(*high), frechet.distance(*low),
                             rtol=1e-12)


def test_subspaces_that_do_not_meet():
  """tr S1 + tr S2: nothing of one can be moved along the other for free."""
  a, b = np.diag([4., 1, 0, 0]), np.diag([0., 0, 9, 2])
  np.testing.assert_allclose(frechet.distance(
      _gaussian(np.zeros(4), a), _gaussian(np.zeros(4), b)), 16, rtol=1e-14)
  nothing = _gaussian(np.zeros(4), np.zeros((4, 4)))
  np.testing.assert_allclose(
      frechet.distance(_gaussian(np.zeros(4), a), nothing), 5, rtol=1e-14)
  assert frechet.distance(nothing, nothing) == 0


def test_identical_sets_have_no_distance():
  """A root of S1 S2 would leave 1e-8 of the trace for each null direction."""
  rows = np.random.default_rng(0).normal(size=(40, 100)).astype(np.float32)
  a = moments.Moments.of(rows)
  assert 0 <= frechet.distance(a, a) < 1e-12 * np.trace(a.covariance_DxD)


@pytest.mark.parametrize('size', [1, 7, 64])
def test_does_not_depend_on_batch_size_or_padding(size):
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(2, 150, 8)).astype(np.float32)

  def stream(rows, size):
    made = moments.Stream()
    for start in range(0, len(rows), size):
      part = rows[start:start + size]
      made.add(np.pad(part, ((0, size - len(part)), (0, 0)),
                      constant_values=np.nan), np.arange(size) < len(part))
    return made.moments()
  assert frechet.distance(stream(x, size), stream(y, size)) == (
      frechet.distance(stream(x, 150), stream(y, 150)))


def test_too_few_examples_and_other_features_are_errors():
  one = moments.Moments.of(np.ones((1, 3)))
  two = moments.Moments.of(np.ones((2, 3)))
  with pytest.raises(ValueError, match='2 and 1 examples'):
    frechet.distance(two, one)
  with pytest.raises(ValueError, match='3 and 4 numbers'):
    frechet.distance(two, moments.Moments.of(np.ones((2, 4))))


def test_a_distance_that_overflows_is_not_zero():
  far = moments.Moments(2, np.full(1, np.inf), np.ones((1, 1)))
  with np.errstate(invalid='ignore'):
    assert np.isnan(frechet.distance(far, far))


def test_features_that_are_not_finite_have_no_distance():
  rows = np.random.default_rng(0).normal(size=(80, 3))
  bad = rows.copy()
  bad[5, 1] = np.inf
  with np.errstate(invalid='ignore'):
    broken = moments.Moments.of(bad)
  assert np.isnan(frechet.distance(broken, moments.Moments.of(rows)))
  assert np.isnan(frechet.infinity(rows, bad).value)
  assert np.isnan(frechet.infinity(bad, moments.Moments.of(rows)).value)


D = 16


def _draws(count, seeds=24):
  """Samples of a model, their originals, and the true distance.

  Originals are Gaussian with decaying variances, and a model blurs them: it
  shrinks the weak directions and adds some noise.
  """
  scale = np.exp(-.05 * np.arange(D))
  shrink = np.linspace(1, .3, D)
  noise = .4
  a, b = np.diag(scale**2), np.diag((scale * shrink)**2 + noise**2)
  shift = np.full(D, .05)
  truth = D * .05**2 + np.sum(
      (np.sqrt(np.diag(a)) - np.sqrt(np.diag(b)))**2)
  for seed in range(seeds):
    rng = np.random.default_rng(seed)
    originals = rng.normal(size=(count, D)) * scale
    made = originals * shrink + shift + noise * rng.normal(size=(count, D))
    yield made, originals, a, truth


@pytest.mark.parametrize('paired', [True, False])
def test_infinity_recovers_the_truth_better_than_any_finite_number(paired):
  count, values, finite = 320, [], []
  for made, originals, a, true in _draws(count):
    reference = originals if paired else _gaussian(np.zeros(D), a)
    found = frechet.infinity(made, reference)
    values.append(found.value - true)
    finite.append(found.finite[0] - true)
  bias, biased = np.mean(values), np.mean(finite)
  error = np.std(values) / np.sqrt(len(values))
  assert biased > .05 and abs(bias) < .1 * biased + 2 * error
  # Not only in the mean: a single one is nearer.
  assert np.mean(np.square(values)) < .1 * np.mean(np.square(finite))


def test_first_finite_number_is_the_distance_of_all():
  made, originals, _, _ = next(_draws(200))
  found = frechet.infinity(made, originals)
  np.testing.assert_allclose(found.finite[0], frechet.distance(
      moments.Moments.of(made), moments.Moments.of(originals)), rtol=1e-12)
  assert len(found.finite) == frechet.PARTS
  assert list(found.finite) == sorted(found.finite)  # Fewer are farther.
  assert 0 < found.misfit < .2 * (found.finite[0] - found.value)


def test_pairs_must_be_cut_alike():
  """Originals come back as they were: distance 0, at any number of them."""
  _, originals, _, _ = next(_draws(200))
  assert abs(frechet.infinity(originals, originals).value) < 1e-12
  against_all = frechet.infinity(originals, moments.Moments.of(originals))
  assert against_all.value < -.01


def test_infinity_is_the_same_every_time():
  made, originals, _, _ = next(_draws(200))
  assert frechet.infinity(made, originals) == frechet.infinity(made, originals)


def test_infinity_of_too_few_examples_is_an_error():
  rows = np.random.default_rng(0).normal(size=(4 * (D + 1), D))
  assert frechet.has_infinity(*rows.shape)
  frechet.infinity(rows, rows)
  assert not frechet.has_infinity(len(rows) - 1, D)
  with pytest.raises(ValueError, match='needs 68'):
    frechet.infinity(rows[1:], rows[1:])
  with pytest.raises(ValueError, match='reference of'):
    frechet.infinity(rows, rows[1:])
