"""Kernel distance of features (KID), without bias, with a standard error.

The squared maximum mean discrepancy under the kernel k(x, y) = (x.y/D + 1)^3
(Binkowski et al. 2018, section 4). Unlike a Frechet distance its expectation
does not depend on the number of examples, so that a thousand will do.

Reconstructions and their originals are pairs, not two independent samples:
then k(x_i, y_i) must stay out (Gretton et al. 2012, eq. 4). The usual formula
keeps them and is too low by O(1/N): identical images would score below 0.

N, M: examples, D: features.
"""

import numpy as np

from vitok.metrics import table

SEED = 0
SUBSET = 1000
RULE = 'unbiased squared MMD under (x.y/D + 1)^3, float64'
PAIRED_RULE = RULE + ', without the kernels of images with their own originals'
SUBSETS_RULE = (f'{RULE}; of {2 * SUBSET} or more on each side the mean over '
                f'disjoint subsets of {SUBSET}, permuted by NumPy, seed {SEED}')
_CHUNK = 1 << 22  # Numbers of a kernel matrix that are held at a time.


def kid(x_NxD: np.ndarray, y_MxD: np.ndarray, *, paired: bool = False,
        groups_N: np.ndarray | None = None) -> tuple[float, float | None]:
  """Unbiased squared kernel distance of all examples.

  The cost is that of a product of N + M by N + M by D; see `kid_of_subsets`.

  Args:
    x_NxD, y_MxD: features.
    paired: row i of y is the original of row i of x.
    groups_N: of pairs, labels of what is independent (crops of one photograph
      are not), for the standard error; each pair by default.

  Returns:
    The distance, which may be negative if there is none, and its standard
    error by the jackknife over rows; with groups the cluster-robust form of
    it, `None` for one group.

  Raises:
    ValueError: fewer than three examples, or shapes that do not fit.
  """
  x_NxD, y_MxD = (np.asarray(a, np.float64) for a in (x_NxD, y_MxD))
  n, m = len(x_NxD), len(y_MxD)
  if x_NxD.shape[1:] != y_MxD.shape[1:] or x_NxD.ndim != 2 or (
      paired and n != m):
    raise ValueError(f'features {x_NxD.shape} and {y_MxD.shape}, '
                     f'paired={paired}')
  if min(n, m) < 3:
    raise ValueError(f'a kernel distance of {n} and {m} examples')
  if groups_N is not None and not paired:
    raise ValueError('groups are of pairs')
  if paired:
    values_N = kid_of_pairs(x_NxD, y_MxD)
    return float(values_N.mean()), table.standard_error(
        values_N, np.arange(n) if groups_N is None else groups_N)
  (xx_N, yy_M), (xy_N, xy_M) = _sums(x_NxD, y_MxD)
  value = (xx_N.sum() / (n * (n - 1)) + yy_M.sum() / (m * (m - 1))
           - 2 * xy_N.sum() / (n * m))
  # The value without row i is linear in that row's sums, which makes the
  # jackknife the standard error of their mean.
  rows = (xx_N / (n - 2) - xy_N / m, yy_M / (m - 2) - xy_M / n)
  error = 2 * np.hypot(*(table.standard_error(row, np.arange(len(row)))
                         for row in rows))
  return float(value), float(error)


def kid_of_pairs(x_NxD: np.ndarray, y_NxD: np.ndarray) -> np.ndarray:
  """'rkid' by example: values whose mean is `kid` of pairs.

  They are the jackknife's pseudo-values, N times the distance less N - 1 times
  what it is without the pair. So a distance of all images together has, like
  PSNR, a value for each image; two models that were measured on the same images
  can be compared image by image, in which most of the spread cancels.

  Args:
    x_NxD, y_NxD: features; row i of y is the original of row i of x.

  Returns:
    (N,) float64.

  Raises:
    ValueError: fewer than three pairs.
  """
  x_NxD, y_NxD = (np.asarray(a, np.float64) for a in (x_NxD, y_NxD))
  n = len(x_NxD)
  if n < 3:
    raise ValueError(f'a kernel distance of {n} and {n} examples')
  (xx_N, yy_N), (xy_N, yx_N) = _sums(x_NxD, y_NxD)
  sums_N = xx_N + yy_N - xy_N - yx_N + 2 * _diagonal(x_NxD, y_NxD)
  total = sums_N.sum()  # Each pair of rows twice.
  return total / (n - 1) + (2 * sums_N - total) / (n - 2)


def kid_of_samples(x_NxD: np.ndarray, y_MxD: np.ndarray
                   ) -> tuple[float, float]:
  """'gkid': `kid_of_subsets` of sets that are large enough, else `kid`.

  Both have the same expectation; returns the value and its standard error.
  """
  few = min(len(x_NxD), len(y_MxD)) < 2 * SUBSET
  return kid(x_NxD, y_MxD) if few else kid_of_subsets(x_NxD, y_MxD, SUBSET)


def kid_of_subsets(x_NxD: np.ndarray, y_MxD: np.ndarray, size: int = SUBSET, *,
                   paired: bool = False) -> tuple[float, float]:
  """Mean of `kid` over disjoint subsets: linear in N, for large sets.

  Published values are means over subsets that overlap, drawn at random; their
  expectation is the same, but their spread is no standard error.

  Args:
    x_NxD, y_MxD, paired: as in `kid`; in the order of the records.
    size: examples of a subset on each side. What is left over is not used.

  Returns:
    The mean and its standard error.

  Raises:
    ValueError: not enough examples for two subsets.
  """
  count = min(len(x_NxD), len(y_MxD)) // size
  if count < 2:
    raise ValueError(f'{len(x_NxD)} and {len(y_MxD)} examples do not give two '
                     f'subsets of {size}')
  # Records may be sorted by class.
  rng = np.random.default_rng(SEED)
  x_rows = rng.permutation(len(x_NxD))
  y_rows = x_rows if paired else rng.permutation(len(y_MxD))
  values = np.array([
      kid(x_NxD[x_rows[start:start + size]], y_MxD[y_rows[start:start + size]],
          paired=paired)[0] for start in range(0, count * size, size)])
  return float(values.mean()), float(values.std(ddof=1) / np.sqrt(count))


def _sums(x_NxD, y_MxD):
  """Sums over the kernels of each row with the others of its side (N,), (M,),
  and with all of the other side."""
  own = [_row_sums(a, a)[0] - _diagonal(a, a) for a in (x_NxD, y_MxD)]
  return own, _row_sums(x_NxD, y_MxD)


def _kernel(product: np.ndarray, features: int) -> np.ndarray:
  base = product / features + 1
  return base * base * base


def _diagonal(x_NxD: np.ndarray, y_NxD: np.ndarray) -> np.ndarray:
  """(N,) kernels of rows with the same number."""
  return _kernel(np.einsum('nd,nd->n', x_NxD, y_NxD), x_NxD.shape[1])


def _row_sums(x_NxD: np.ndarray,
              y_MxD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(N,) and (M,) sums over the rows and columns of the kernel matrix."""
  rows, columns = [], np.zeros(len(y_MxD))
  step = max(1, _CHUNK // len(y_MxD))
  for start in range(0, len(x_NxD), step):
    kernel = _kernel(x_NxD[start:start + step] @ y_MxD.T, x_NxD.shape[1])
    rows.append(kernel.sum(1))
    columns += kernel.sum(0)
  return np.concatenate(rows), columns
