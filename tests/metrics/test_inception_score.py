"""Inception score of distributions whose score is known."""

import numpy as np
import pytest

from vitok.metrics import inception_score as score_lib


def _logits(count=300, classes=7, seed=0):
  return np.random.default_rng(seed).normal(0, 2, (count, classes)).astype(
      np.float32)


def test_equals_the_definition():
  logits = _logits().astype(np.float64)
  p = np.exp(logits)
  p /= p.sum(1, keepdims=True)
  expected = np.exp(np.mean(np.sum(p * np.log(p / p.mean(0)), 1)))
  np.testing.assert_allclose(score_lib.inception_score(_logits())[0], expected,
                             rtol=1e-12)


def test_sure_and_even_predictions_score_the_number_of_classes():
  sure = 1e4 * np.eye(5)[np.arange(100) % 5]  # Probabilities underflow to 0.
  assert score_lib.inception_score(sure) == pytest.approx((5, 0), abs=1e-12)


def test_predictions_that_are_all_alike_score_one():
  alike = np.repeat(_logits(1), 50, 0)
  assert score_lib.inception_score(alike) == pytest.approx((1, 0), abs=1e-12)


def test_a_constant_beside_the_logits_changes_nothing():
  np.testing.assert_allclose(score_lib.inception_score(
      _logits().astype(np.float64) + 1000), score_lib.inception_score(
          _logits()), rtol=1e-10)


def test_splits_are_consecutive_and_use_every_image():
  logits = _logits(103)
  value, error = score_lib.inception_score(logits, 10)
  edges = [i * 103 // 10 for i in range(11)]
  parts = [score_lib.inception_score(logits[a:b])
           for a, b in zip(edges, edges[1:], strict=False)]
  np.testing.assert_allclose(value, np.mean([v for v, _ in parts]), rtol=1e-12)
  np.testing.assert_allclose(
      error, np.sqrt(sum(e**2 for _, e in parts)) / 10, rtol=1e-12)


def test_standard_error_is_the_spread_over_draws():
  """400 draws know a standard deviation to 3.5%."""
  found = np.array([score_lib.inception_score(_logits(200, seed=seed))
                    for seed in range(400)])
  np.testing.assert_allclose(found[:, 1].mean(), found[:, 0].std(), rtol=.12)


def test_groups_of_copies_have_the_error_of_the_originals():
  logits = _logits()
  value, error = score_lib.inception_score(logits)
  copied = score_lib.inception_score(
      logits.repeat(4, 0), groups_N=np.arange(300).repeat(4))
  np.testing.assert_allclose(copied, (value, error), rtol=1e-12)
  assert score_lib.inception_score(logits, groups_N=np.zeros(300))[1] is None


def test_too_few_images_are_an_error():
  with pytest.raises(ValueError, match='in 10 parts'):
    score_lib.inception_score(_logits(19), 10)
  with pytest.raises(ValueError, match='in 1 parts'):
    score_lib.inception_score(_logits()[0])
