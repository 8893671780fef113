"""Moments and features of reference sets, computed once for each protocol.

Features of the same images by the same network are needed at every evaluation
and take the longest. A file's name is the id of its protocol, so that nothing
is found that was made otherwise, and what is found is checked all the same.

In a job of several processes let one of them look and tell the others: what
follows a miss is a computation of all, and a file may appear in between.
"""

import os

import numpy as np
from etils import epath

from vitok.metrics import features as features_lib
from vitok.metrics import moments
from vitok.metrics.protocol import Protocol


def path(folder: os.PathLike | str, protocol: Protocol) -> epath.Path:
  """Where the reference of a protocol lies in a cache folder."""
  return epath.Path(folder) / f'{protocol.id}.npz'


def write(folder: os.PathLike | str, protocol: Protocol,
          features: features_lib.Features, index_N: np.ndarray,
          ) -> list[moments.Moments]:
  """Stores moments of each frame index, and the rows if they were kept.

  Args:
    folder: the cache, local or `gs://`; made if need be.
    protocol: of these features: `Protocol.of('features')`.
    features: rows in the order of `index_N`, float32, or of frames.
    index_N: number of the record that each row belongs to, ascending.

  Returns:
    The moments.
  """
  found = list(features_lib.moments(features))
  if {len(index_N), *(one.count for one in found)} != {protocol.count}:
    raise ValueError(f'{found[0].count} rows for {len(index_N)} records, '
                     f'protocol says {protocol.count}')
  rows = {'features': features} if isinstance(features, np.ndarray) else {}
  moments.write(path(folder, protocol), protocol, found, index=index_N, **rows)
  return found


def read(folder: os.PathLike | str, protocol: Protocol,
         ) -> tuple[list[moments.Moments], dict[str, np.ndarray]] | None:
  """The moments of each frame index, 'index' (N,) and, but for frames of clips,
  'features' (N, D); `None` if not cached.

  Raises:
    InputError: the file is damaged, or of another protocol.
  """
  file = path(folder, protocol)
  return moments.read(file, protocol) if file.exists() else None
