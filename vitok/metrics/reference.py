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

from vitok.metrics import moments
from vitok.metrics.protocol import Protocol


def path(folder: os.PathLike | str, protocol: Protocol) -> epath.Path:
  """Where the reference of a protocol lies in a cache folder."""
  return epath.Path(folder) / f'{protocol.id}.npz'


def write(folder: os.PathLike | str, protocol: Protocol,
          features_NxD: np.ndarray, index_N: np.ndarray) -> moments.Moments:
  """Stores features, in the order of `index`, and their moments.

  Args:
    folder: the cache, local or `gs://`; made if need be.
    protocol: of these features: `Protocol.of('features')`.
    features_NxD: float32.
    index_N: number of the record that each row belongs to, ascending.

  Returns:
    The moments.
  """
  # In blocks, so that they equal those of a stream bit for bit.
  stream = moments.Stream()
  stream.add(features_NxD, np.ones(len(features_NxD), bool))
  found = stream.moments()
  if found.count != protocol.count or len(index_N) != protocol.count:
    raise ValueError(f'{found.count} rows for {len(index_N)} records, '
                     f'protocol says {protocol.count}')
  moments.write(path(folder, protocol), protocol, found,
                features=features_NxD, index=index_N)
  return found


def read(folder: os.PathLike | str, protocol: Protocol,
         ) -> tuple[moments.Moments, dict[str, np.ndarray]] | None:
  """The moments, 'features' (N, D) and 'index' (N,); `None` if not cached.

  Raises:
    InputError: the file is damaged, or of another protocol.
  """
  file = path(folder, protocol)
  return moments.read(file, protocol) if file.exists() else None
