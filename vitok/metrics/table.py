"""From batches of per-example values to means, standard errors and columns.

Padded examples never enter. Rows are ordered by record number, so that a table
does not depend on batch size or devices. Imports no JAX.
"""

from collections.abc import Mapping

import numpy as np

IMAGES = ('originals', 'reconstructions')


class Table:
  """Collects what `reconstruction.measure` returns for each batch.

  Attributes:
    images: examples of which the images are kept: the first ones.
  """

  def __init__(self, images: int = 0):
    self.images = images
    self._columns: dict[str, list[np.ndarray]] = {}
    self._images: dict[str, list[np.ndarray]] = {}

  def add(self, values: Mapping[str, np.ndarray],
          batch: Mapping[str, np.ndarray]) -> None:
    """Appends the examples of a batch that are not padding.

    Args:
      values: per-example numbers (B,) by name, and optionally uint8 images of
        the first rows, (b, T, H, W, C) with b <= B, under the names `IMAGES`.
      batch: 'mask' (B,) bool, 'index' (B,) and 'group' (B,) int; addressable.
    """
    mask = np.asarray(batch['mask'], bool)
    columns = {name: values[name] for name in values if name not in IMAGES}
    columns.update(index=batch['index'], group=batch['group'])
    if self._columns and columns.keys() != self._columns.keys():
      raise ValueError(f'batches have different columns: {sorted(columns)} '
                       f'after {sorted(self._columns)}')
    kept = sum(len(rows) for rows in self._images.get(IMAGES[0], ()))
    for name, column in columns.items():
      self._columns.setdefault(name, []).append(np.asarray(column)[mask])
    for name in IMAGES:
      if name in values and kept < self.images:
        rows = np.asarray(values[name])
        rows = rows[mask[:len(rows)]][:self.images - kept]
        self._images.setdefault(name, []).append(rows)

  def columns(self) -> dict[str, np.ndarray]:
    """{name: (N,)}, 'index' and 'group' included, ordered by index.

    Raises:
      ValueError: no example, or one that was measured twice.
    """
    columns = {name: np.concatenate(parts)
               for name, parts in self._columns.items()}
    if not columns or not len(columns['index']):
      raise ValueError('no example was measured')
    order = np.argsort(columns['index'], kind='stable')
    index = columns['index'][order]
    if (index[1:] == index[:-1]).any():
      twice = index[1:][index[1:] == index[:-1]][0]
      raise ValueError(f'record {twice} was measured twice')
    return {name: column[order] for name, column in columns.items()}

  def pictures(self) -> dict[str, np.ndarray]:
    """{'originals', 'reconstructions'}: the kept uint8 (N, T, H, W, C)."""
    return {name: np.concatenate(parts)
            for name, parts in self._images.items()}

  def summary(self) -> dict[str, float]:
    """Means with standard errors, and 'count'.

    `<name>_se` takes examples as independent, `<name>_se_group` only groups
    (crops of one photograph are not); both are missing where they are not
    defined, for one example or one group. Sums are in float64.
    """
    columns = self.columns()
    group, index = columns.pop('group'), columns.pop('index')
    numbers = {}
    for name in sorted(columns):
      values = columns[name].astype(np.float64)
      numbers[name] = float(values.mean())
      for suffix, clusters in (('_se', index), ('_se_group', group)):
        error = standard_error(values, clusters)
        if error is not None:
          numbers[name + suffix] = error
    return {**numbers, 'count': len(index)}


def standard_error(values: np.ndarray, clusters: np.ndarray) -> float | None:
  """Standard error of the mean when only clusters are independent.

  The cluster-robust form: sqrt(G / (G - 1) * sum_g (sum_{i in g} d_i)^2) / N
  for deviations d of N values in G clusters (Liang and Zeger 1986). With one
  value a cluster it is the familiar sd / sqrt(N).

  Args:
    values: (N,) numbers.
    clusters: (N,) labels.

  Returns:
    The standard error, or None for fewer than two clusters.
  """
  _, label = np.unique(clusters, return_inverse=True)
  count = label.max() + 1
  if count < 2:
    return None
  sums = np.bincount(label, weights=values - values.mean())
  return float(np.sqrt(count / (count - 1) * np.sum(sums**2)) / len(values))
