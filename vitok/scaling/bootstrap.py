"""Hierarchical bootstrap: seeds within configurations, images by group.

Units are a fixed design and are never resampled. What would differ if the
sweep were repeated is the seed of each run and the images it is judged on:

- images are drawn by `group` (the photograph that a crop came from), one draw
  for all units at once, since they are evaluated on the same images, and
  stretched for their number (`widen`);
- seeds are drawn within their configuration. Deviations from its mean are
  stretched by sqrt(n / (n - 1)), without which n = 2 seeds show half of their
  variance; a configuration with one seed draws from the deviations of all
  the others. What the same seed does to several configurations is drawn for
  all of them at once.

Letters: R replicates, U units, N images (of seeds: units of configurations with
several), G groups, B blocks, P terms, V arrays per image.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from scipy import stats

COUNT = 2000  # Replicates; the 5% point then has an error of .06 sd.
_CHUNK = 100


def resample_images(values_VxN: np.ndarray, group_N: np.ndarray, *,
                    count: int = COUNT, seed: int = 0) -> np.ndarray:
  """Means over images with groups drawn anew.

  Args:
    values_VxN: one row per thing measured, all on the same images.
    group_N: the independent unit that each image belongs to.
    count: replicates.
    seed: of the draws; equal seeds give equal draws, so that two calls over
      the same groups are paired.

  Returns:
    (R, V) means.
  """
  _, group_N = np.unique(group_N, return_inverse=True)
  groups = int(group_N.max()) + 1
  sums_GxV = np.zeros((groups, len(values_VxN)))
  np.add.at(sums_GxV, group_N, np.asarray(values_VxN, np.float64).T)
  sizes_G = np.bincount(group_N).astype(np.float64)
  random = np.random.default_rng(seed)
  means = []
  for start in range(0, count, _CHUNK):
    rows = min(_CHUNK, count - start)
    draws = random.integers(groups, size=(rows, groups))
    draws += groups * np.arange(rows)[:, None]
    weights_RxG = np.bincount(draws.ravel(), minlength=rows * groups)
    weights_RxG = weights_RxG.reshape(rows, groups).astype(np.float64)
    means.append(weights_RxG @ sums_GxV / (weights_RxG @ sizes_G)[:, None])
  return np.concatenate(means)


def widen(y_RxV: np.ndarray, y_V: np.ndarray, groups: int,
          level: float) -> np.ndarray:
  """Stretches replicates over images for a small number of groups.

  Means of G groups drawn from themselves have (G - 1) / G of the variance,
  and Gaussian tails where Student's are due: 90% intervals over 2, 4 and 8
  groups would cover 50, 75 and 84%.

  Args:
    y_RxV: replicates of `y_V`, on the scale on which intervals are read off.
    y_V: the values themselves.
    groups: how many were drawn from; one shows no spread to be stretched.
    level: coverage that is wanted.
  """
  if groups < 2:
    return y_RxV
  factor = _student(groups - 1, level) * np.sqrt(groups / (groups - 1))
  return y_V + factor * (y_RxV - y_V)


def resample_seeds(y_RxU: np.ndarray, configurations: Sequence, *,
                   blocks: Sequence | None = None, level: float = 0.9,
                   seed: int = 0) -> np.ndarray:
  """Adds what drawing the seeds anew does to `y_RxU`.

  With few degrees of freedom a percentile interval is too short (at 5 of them
  by a fifth), as a normal interval is against Student's; the deviations are
  stretched by the ratio of these two at `level`.

  Units of several configurations may have in common what differs between seeds,
  as those do that start from the same values and see the same batches: they
  form a block. What a block adds to all of its units is estimated apart and
  drawn for all of them at once, so that it cancels where configurations are
  compared that have the same blocks.

  Args:
    y_RxU: each unit's response, replicated over images.
    configurations: of each unit.
    blocks: of each unit. They count where at least two blocks have the same
      configurations of several seeds, at least two.
    level: coverage that is wanted.
    seed: of the draws.

  Returns:
    (R, U); only the image part where no configuration has two seeds.
  """
  labels = np.asarray(configurations)
  strata = [np.flatnonzero(labels == label) for label in np.unique(labels)]
  several = [units for units in strata if len(units) > 1]
  if not several:
    return y_RxU
  repeated = np.concatenate(several)
  shared = _shared(labels, blocks, several)
  columns_NxP = np.stack([np.isin(repeated, units) for units in (
      *several, *itertools.chain(*shared))], 1)
  hat_NxN = columns_NxP @ np.linalg.pinv(columns_NxP.astype(float))
  freedom = len(repeated) - np.linalg.matrix_rank(columns_NxP)
  if not freedom:
    return y_RxU
  # Residuals have 1 - leverage of the variance; without blocks 1 - 1 / n.
  kept_N = np.sqrt(np.maximum(1 - np.diag(hat_NxN), 1e-9))
  deviations_RxU = np.zeros_like(y_RxU)
  deviations_RxU[:, repeated] = _student(freedom, level) * (
      y_RxU[:, repeated] @ (np.eye(len(repeated)) - hat_NxN) / kept_N)
  random = np.random.default_rng((seed, 1))
  rows = np.arange(len(y_RxU))[:, None]
  drawn_RxU = np.empty_like(y_RxU)
  for units in strata:
    pool = units if len(units) > 1 else repeated
    picks = random.integers(len(pool), size=(len(y_RxU), len(units)))
    drawn_RxU[:, units] = (y_RxU[:, units].mean(1, keepdims=True)
                           + deviations_RxU[rows, pool[picks]])
  return drawn_RxU + _of_blocks(y_RxU, several, shared, level, random)


def _shared(labels, blocks, several):
  """[[units of a block, ...], ...]: blocks that have the same configurations of
  several seeds, at least two of them, together."""
  if blocks is None or None in blocks:
    return []
  names, repeated = np.asarray(blocks), np.concatenate(several)
  alike = {}
  for name in np.unique(names[repeated]):
    units = np.flatnonzero(names == name)
    held = frozenset(labels[np.intersect1d(units, repeated)])
    alike.setdefault(held, []).append(units)
  return [found for held, found in alike.items()
          if len(held) > 1 and len(found) > 1]


def _of_blocks(y_RxU, several, shared, level, random):
  """(R, U): what is added to all units of a block, drawn from blocks alike."""
  added_RxU = np.zeros_like(y_RxU)
  for found in shared:
    common = [units for units in several
              if all(np.isin(units, block).any() for block in found)]
    effects_RxB = np.stack([np.mean(
        [y_RxU[:, np.intersect1d(units, block)].mean(1) for units in common], 0)
                            for block in found], 1)
    count = len(found)
    effects_RxB = (effects_RxB - effects_RxB.mean(1, keepdims=True)) * (
        _student(count - 1, level) * np.sqrt(count / (count - 1)))
    picks_RxB = random.integers(count, size=effects_RxB.shape)
    drawn_RxB = np.take_along_axis(effects_RxB, picks_RxB, 1)
    for block, drawn_R in zip(found, drawn_RxB.T, strict=True):
      added_RxU[:, block] = drawn_R[:, None]
  return added_RxU


def _student(freedom, level):
  """Half width of Student's interval over that of the normal one."""
  tail = (1 + level) / 2
  return stats.t.ppf(tail, freedom) / stats.norm.ppf(tail)


def interval(values_R: np.ndarray, level: float) -> tuple[float, float]:
  """The central `level` of replicates."""
  tail = (1 - level) / 2
  low, high = np.quantile(values_R, (tail, 1 - tail))
  return float(low), float(high)
