"""What is drawn anew, and that intervals cover what they should."""

import numpy as np
import pytest

from vitok.scaling import bootstrap

LABELS = [f'c{i // 2}' for i in range(20)] + ['single']


def test_images_are_drawn_by_group_and_alike_for_every_unit():
  random = np.random.default_rng(0)
  group = np.repeat(np.arange(40), 25)
  scene = random.standard_normal(40)[group]
  values = np.stack([scene, scene + 3])
  means = bootstrap.resample_images(values, group, count=1000)
  np.testing.assert_allclose(means[:, 1] - means[:, 0], 3, atol=1e-12)
  # 40 scenes count, not 1000 crops of them.
  np.testing.assert_allclose(means[:, 0].std(), scene.std() / 40**0.5,
                             rtol=0.1)


def test_unequal_groups_keep_their_weight_in_the_mean():
  values = np.array([[1.0, 1, 1, 5]])
  means = bootstrap.resample_images(values, np.array([7, 7, 7, 9]))
  assert set(np.round(means[:, 0], 6)) == {1.0, 2.0, 5.0}


def test_two_calls_with_one_seed_are_paired():
  values = np.random.default_rng(1).standard_normal((2, 30))
  group = np.arange(30)
  both = bootstrap.resample_images(values, group, count=50)
  alone = bootstrap.resample_images(values[1:], group, count=50)
  np.testing.assert_allclose(both[:, 1], alone[:, 0], atol=1e-12)


def test_seeds_are_drawn_within_their_configuration():
  y = np.zeros(21)
  y[:2] = 1.0, -1.0  # Only c0 varies between seeds; 'single' borrows.
  drawn = bootstrap.resample_seeds(np.tile(y, (400, 1)), LABELS)
  assert drawn[:, :2].std() > 0.5
  assert drawn[:, 2:20].std() == 0
  assert 0 < drawn[:, 20].std() < drawn[:, 0].std()


def test_without_a_second_seed_only_images_move():
  y = np.random.default_rng(2).standard_normal((10, 3))
  np.testing.assert_array_equal(bootstrap.resample_seeds(y, 'abc'), y)


def test_ninety_percent_intervals_of_two_seeds_cover_ninety_percent():
  random, hits, trials = np.random.default_rng(3), 0, 400
  labels = [f'c{i // 2}' for i in range(12)]
  for trial in range(trials):
    y = 0.06 * random.standard_normal(12)
    drawn = bootstrap.resample_seeds(np.tile(y, (400, 1)), labels, seed=trial)
    low, high = bootstrap.interval(drawn.mean(1), 0.9)
    hits += low < 0 < high
  assert 0.86 < hits / trials < 0.94


BLOCKED = [f'c{i // 2}' for i in range(8)] + ['single']
BLOCKS = [f's{i % 2}' for i in range(8)] + ['s0']


@pytest.mark.parametrize('between', [0.0, 0.3])
def test_what_blocks_have_in_common_cancels_between_configurations(between):
  random, hits, widths, trials = np.random.default_rng(4), 0, [], 300
  slope = np.repeat([-1.5, -0.5, 0.5, 1.5], 2) / 10
  for trial in range(trials):
    y = between * random.standard_normal(2)[[0, 1] * 4 + [0]]
    y += 0.06 * random.standard_normal(9)
    drawn = bootstrap.resample_seeds(np.tile(y, (300, 1)), BLOCKED,
                                     blocks=BLOCKS, seed=trial)
    low, high = bootstrap.interval(drawn[:, :8] @ slope, 0.9)
    hits += low < 0 < high
    widths.append(high - low)
  assert 0.84 < hits / trials < 0.96
  # 2 * t(3) * .06 / sqrt(10), whatever there is between blocks.
  np.testing.assert_allclose(np.median(widths), 0.089, rtol=0.25)


def test_a_mean_over_blocks_has_their_spread():
  random, hits, trials = np.random.default_rng(5), 0, 300
  for trial in range(trials):
    y = 0.3 * random.standard_normal(2)[[0, 1] * 4 + [0]]
    y += 0.01 * random.standard_normal(9)
    drawn = bootstrap.resample_seeds(np.tile(y, (300, 1)), BLOCKED,
                                     blocks=BLOCKS, seed=trial)
    low, high = bootstrap.interval(drawn[:, :8].mean(1), 0.9)
    hits += low <= 0 <= high
  # Normal draws at the ends of the interval would be 1.64 sd out, those of two
  # blocks are sqrt(2): 88% by Student's distribution, less three standard
  # errors of 300 trials.
  assert hits / trials > 0.83


def test_blocks_of_one_configuration_each_change_nothing():
  y = np.random.default_rng(6).standard_normal((50, 21))
  plain = bootstrap.resample_seeds(y, LABELS)
  for blocks in (range(21), [None] * 21):
    np.testing.assert_array_equal(
        bootstrap.resample_seeds(y, LABELS, blocks=list(blocks)), plain)


@pytest.mark.parametrize('groups', [2, 3, 4, 8, 30])
@pytest.mark.parametrize('level', [0.8, 0.9])
def test_intervals_over_few_photographs_cover_what_they_say(groups, level):
  # Two crops of each; what differs between photographs is theirs in common.
  random, hits, trials = np.random.default_rng(groups), 0, 600
  group = np.repeat(np.arange(groups), 2)
  for trial in range(trials):
    values = random.standard_normal(groups)[group][None]
    drawn = bootstrap.widen(
        bootstrap.resample_images(values, group, count=400, seed=trial),
        values.mean(1), groups, level)
    low, high = bootstrap.interval(drawn[:, 0], level)
    hits += low < 0 < high
  # Three draws of three have few distinct means: 4 points are lost there.
  assert level - 0.07 < hits / trials < level + 0.05


def test_one_photograph_has_no_spread_to_be_stretched():
  drawn = bootstrap.resample_images(np.ones((1, 5)), np.zeros(5), count=10)
  assert (bootstrap.widen(drawn, np.ones(1), 1, 0.9) == 1).all()
