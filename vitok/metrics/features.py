"""Features of a set of examples, gathered from batches.

Of images, and of clips that have one vector each, the rows are kept: kernel
distances, limits and scores need them, and 50k of 2048 numbers are 0.4 GB. Of
the frames of clips they would be 6.5 GB for 16 frames, and numbers of frames
need moments alone: so these are gathered of each frame index.

N: examples in the order of the records, B: rows of a batch, T: frames, D:
features.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from vitok.metrics import moments as moments_lib
from vitok.metrics import table

# Rows (N, D), or the moments of each frame index.
Features = np.ndarray | list[moments_lib.Stream]


def moments(features: Features) -> Iterator[moments_lib.Moments]:
  """Moments of each frame index, one after the other, since each is large."""
  if isinstance(features, np.ndarray):
    stream = moments_lib.Stream()  # In blocks: the bits of gathered ones.
    stream.add(features, np.ones(len(features), bool))
    features = [stream]
  return (stream.moments() for stream in features)


class Gathered:
  """Collects features, several of each example by name, from batches."""

  def __init__(self):
    self._rows, self._last = table.Table(), -1
    self._frames: dict[str, list[moments_lib.Stream]] = {}

  def add(self, features: Mapping[str, np.ndarray],
          batch: Mapping[str, np.ndarray]) -> None:
    """Adds the examples of a batch that are not padding.

    Args:
      features: (B, T, D) by name.
      batch: as for `table.Table`.

    Raises:
      ValueError: frames whose records are not in ascending order: their
        moments would have other last digits in another order.
    """
    rows = {name: x[:, 0] for name, x in features.items() if x.shape[1] == 1}
    self._rows.add(rows, batch)
    if len(rows) == len(features):
      return
    mask = np.asarray(batch['mask'], bool)
    index = np.asarray(batch['index'])[mask]
    if (np.diff(index, prepend=self._last) <= 0).any():
      raise ValueError(f'records {index}, after record {self._last}, are not '
                       'in ascending order')
    self._last = max([self._last, *index[-1:]])
    for name in features.keys() - rows:
      frames = np.moveaxis(np.asarray(features[name]), 1, 0)
      streams = self._frames.setdefault(
          name, [moments_lib.Stream() for _ in frames])
      for stream, x_BxD in zip(streams, frames, strict=True):
        stream.add(x_BxD, mask)

  def columns(self) -> dict[str, Features]:
    """Features by name, and 'index' and 'group' (N,).

    Raises:
      ValueError: no example, or one that was measured twice.
    """
    return self._rows.columns() | self._frames
