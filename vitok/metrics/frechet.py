"""Frechet distance of features (FID, FVD) and its limit for many examples.

The distance is that of the Gaussians with the features' means and covariances
(Heusel et al. 2017, eq. 6), tr(S1 S2)^(1/2) being the nuclear norm of
R1^T R2 for any S = R R^T. Singular values of that product have no imaginary
parts and keep the digits that a root of small eigenvalues of S1 S2 loses: so
covariances may be singular, as they are for fewer examples than features.

From finite sets the distance is too large by an amount that goes as 1/N and
depends on the model (Chong and Forsyth 2020). `infinity` removes it.

N, M: examples, D: features, R: rank.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from vitok.metrics.moments import Moments

PARTS = 4
SEED = 0
RULE = ('squared Frechet distance of the Gaussians with the mean and the '
        'covariance (N - 1) of the features, float64')
INFINITY_RULE = (
    f'value at 1/n = 0 of a line through n = N/k, k = 1..{PARTS}, each the '
    f'mean over k disjoint parts of one permutation (NumPy, seed {SEED}), '
    f'originals cut like what is made of them; {RULE}')
# Eigenvalues below this part of the largest are rounding errors of zeros.
_RANK = 1e-14


class _Gaussian(NamedTuple):
  mean_D: np.ndarray
  root_DxR: np.ndarray  # The covariance is root root^T.


def _gaussian(moments: Moments) -> _Gaussian:
  value_D, vector_DxD = np.linalg.eigh(moments.covariance_DxD)
  keep = value_D > _RANK * np.abs(value_D).max()
  return _Gaussian(moments.mean_D,
                   vector_DxD[:, keep] * np.sqrt(value_D[keep]))


def _distance(a: _Gaussian, b: _Gaussian) -> float:
  overlap_RxR = a.root_DxR.T @ b.root_DxR
  overlap = (np.linalg.svd(overlap_RxR, compute_uv=False).sum()
             if overlap_RxR.size else 0.0)
  # Of Python, max(0.0, nan) is 0.
  return float(np.maximum(
      0.0, np.sum((a.mean_D - b.mean_D)**2) + np.sum(a.root_DxR**2)
      + np.sum(b.root_DxR**2) - 2 * overlap))


def _finite(moments: Moments) -> bool:
  return bool(np.isfinite(moments.scatter_DxD).all())


def distance(a: Moments, b: Moments) -> float:
  """Squared Frechet distance of two sets of features, at least 0.

  Returns:
    The distance in the features' unit squared; NaN if a feature was not
    finite.

  Raises:
    ValueError: fewer than two examples, or features of different length.
  """
  if a.mean_D.shape != b.mean_D.shape:
    raise ValueError(f'features of {len(a.mean_D)} and {len(b.mean_D)} numbers')
  if min(a.count, b.count) < 2:
    raise ValueError(f'a distance of {a.count} and {b.count} examples')
  if not (_finite(a) and _finite(b)):
    return float('nan')
  return _distance(_gaussian(a), _gaussian(b))


@dataclasses.dataclass(frozen=True)
class Extrapolation:
  """A distance without the bias of finitely many examples.

  Attributes:
    value: the distance for infinitely many examples; unbiased, hence below 0
      now and then if there is none.
    finite: the distances of N, N/2, ... examples, of which the first is
      `distance` of all.
    misfit: the largest distance of these from their line. If it is not small
      beside `finite[0] - value`, there are too few examples for a line.
  """
  value: float
  finite: tuple[float, ...]
  misfit: float


def has_infinity(count: int, features: int) -> bool:
  """Whether each part has more examples than features, as `infinity` needs."""
  return count // PARTS > features


def infinity(features_NxD: np.ndarray,
             reference: Moments | np.ndarray) -> Extrapolation:
  """The Frechet distance extrapolated to infinitely many examples.

  All N examples are used at each size (N/k examples in k parts), so that the
  points share their sampling error and the line does not amplify it. For few
  examples the bias is more than linear in 1/N: of Gaussians with N = 4 D up to
  a quarter of it came back with the other sign, with N = 16 D a hundredth.

  Args:
    features_NxD: in the order of the records, so that nothing depends on
      batches.
    reference: either moments of a fixed set, whose own 1/M stays in (it is the
      same for all models); or (N, D), the features of the originals that the
      rows were made of. Of such pairs both sides are cut alike: against all
      originals the sampling errors of a part would cancel the more, the larger
      it is, and the line would end below the distance.

  Raises:
    ValueError: not `has_infinity`, or shapes that do not fit.
  """
  x_NxD = np.asarray(features_NxD)
  count, features = x_NxD.shape
  if not has_infinity(count, features):
    raise ValueError(f'{count} examples of {features} features: an '
                     f'extrapolation needs {PARTS * (features + 1)}')
  paired = not isinstance(reference, Moments)
  width = np.shape(reference) if paired else (count, len(reference.mean_D))
  if width != x_NxD.shape:
    raise ValueError(f'features {x_NxD.shape} beside a reference of {width}')
  if not np.isfinite(x_NxD).all() or not (
      np.isfinite(reference).all() if paired else _finite(reference)):
    nan = float('nan')
    return Extrapolation(nan, (nan,) * PARTS, nan)
  fixed = None if paired else _gaussian(reference)
  order = np.random.default_rng(SEED).permutation(count)

  def part(rows: np.ndarray) -> float:
    return _distance(_gaussian(Moments.of(x_NxD[rows])),
                     fixed or _gaussian(Moments.of(reference[rows])))
  parts = np.arange(1, PARTS + 1)
  finite = np.array([np.mean([part(rows) for rows in np.array_split(order, k)])
                     for k in parts])
  slope, value = np.polyfit(parts, finite, 1)  # 1/n is k/N.
  return Extrapolation(
      float(value), tuple(map(float, finite)),
      float(np.abs(value + slope * parts - finite).max()))
