"""Mean and covariance of features, gathered in float64 on the host.

A Frechet distance is a small difference of large traces, so that neither the
batch size nor padding nor the number of processes may leave a trace in the
moments. Rows are therefore cut into blocks of a fixed size, whatever batches
they came in, and each block is centred on its own mean before it is squared
(sums of raw squares lose the digits that a mean far from zero has).

N: examples, B: rows of a batch, D: features.
"""

import dataclasses
import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath

from vitok import errors
from vitok.metrics import files
from vitok.metrics import protocol as protocol_lib

BLOCK = 1024  # Rows; one product of D x 1024 x D costs more than a merge.
_NAMES = ('protocol', 'count', 'mean', 'scatter')


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
  """Moments of N feature vectors, whose squares are of centred values.

  Attributes:
    count: N.
    mean_D: float64.
    scatter_DxD: float64, sum over examples of (x - mean)(x - mean)^T.
  """
  count: int
  mean_D: np.ndarray
  scatter_DxD: np.ndarray

  @classmethod
  def of(cls, features_NxD: np.ndarray) -> 'Moments':
    """Moments of at least one row, computed at once."""
    x_NxD = np.asarray(features_NxD, np.float64)
    if x_NxD.ndim != 2 or not len(x_NxD):
      raise ValueError(f'features of shape {x_NxD.shape}, not (N, D)')
    mean_D = x_NxD.mean(0)
    x_NxD = x_NxD - mean_D
    return cls(len(x_NxD), mean_D, x_NxD.T @ x_NxD)

  @property
  def covariance_DxD(self) -> np.ndarray:
    """With N - 1.

    Raises:
      ValueError: one example has no covariance.
    """
    if self.count < 2:
      raise ValueError(f'a covariance of {self.count} example')
    return self.scatter_DxD / (self.count - 1)


def merge(parts: Iterable[Moments]) -> Moments:
  """Moments of all rows of disjoint parts, such as those of processes.

  The pairwise update of Chan, Golub and LeVeque (1983); the order of the parts
  changes no more than the last digits.

  Raises:
    ValueError: no part, or parts of different D.
  """
  whole = None
  for part in parts:
    whole = part if whole is None else _merge(whole, part)
  if whole is None:
    raise ValueError('no example was measured')
  return whole


def _merge(a: Moments, b: Moments) -> Moments:
  if a.mean_D.shape != b.mean_D.shape:
    raise ValueError(f'features of {len(b.mean_D)} numbers after '
                     f'{len(a.mean_D)}')
  count = a.count + b.count
  step_D = b.mean_D - a.mean_D
  return Moments(
      count, a.mean_D + step_D * (b.count / count),
      a.scatter_DxD + b.scatter_DxD
      + np.outer(step_D, step_D) * (a.count * b.count / count))


class Stream:
  """Moments of the rows of batches, without their padding.

  The same rows in the same order give the same bits for every batch size.
  """

  def __init__(self, *whole: Moments):
    """Empty, or of moments that are there already."""
    self._whole = list(whole)  # At most one: that of full blocks.
    self._rows: list[np.ndarray] = []  # Fewer than BLOCK.

  def add(self, features_BxD: np.ndarray, mask_B: np.ndarray) -> None:
    """Adds the rows of a batch whose mask is set.

    Args:
      features_BxD: floats; padding may hold anything, also NaN.
      mask_B: False for padding.

    Raises:
      ValueError: shapes that do not fit.
    """
    features, mask = np.asarray(features_BxD), np.asarray(mask_B, bool)
    if features.ndim != 2 or mask.shape != features.shape[:1]:
      raise ValueError(f'features {features.shape} with mask {mask.shape}')
    self._rows.append(features[mask])
    if sum(map(len, self._rows)) < BLOCK:
      return
    rows = np.concatenate(self._rows)
    full = len(rows) // BLOCK * BLOCK
    for block in np.split(rows[:full], full // BLOCK):
      self._whole = [merge([*self._whole, Moments.of(block)])]
    self._rows = [rows[full:]]

  def moments(self) -> Moments:
    """Moments of all rows so far; more may be added afterwards.

    Raises:
      ValueError: there was no row, or rows of different lengths.
    """
    rows = [part for part in self._rows if len(part)]
    rest = [Moments.of(np.concatenate(rows))] if rows else []
    return merge([*self._whole, *rest])


def write(path: os.PathLike | str, protocol: protocol_lib.Protocol,
          moments: Sequence[Moments], **others: np.ndarray) -> None:
  """Writes an .npz, whole or not at all.

  Args:
    path: of the file, also `gs://`.
    protocol: what the features were taken of, and how.
    moments: their moments, of each frame index; all of as many examples.
    **others: arrays to keep beside them, such as the features themselves.
  """
  files.write_arrays(path, dict(
      others, protocol=np.array(protocol.to_json()), count=moments[0].count,
      mean=np.stack([one.mean_D for one in moments]),
      scatter=np.stack([one.scatter_DxD for one in moments])))


def read(path: os.PathLike | str, protocol: protocol_lib.Protocol,
         ) -> tuple[list[Moments], dict[str, np.ndarray]]:
  """Reads what `write` wrote: the moments, and the other arrays by name.

  Raises:
    InputError: the file cannot be read, or its protocol is another one; the
      differences are named.
  """
  try:
    with epath.Path(path).open('rb') as file, np.load(
        file, allow_pickle=False) as stored:
      arrays = {name: stored[name] for name in stored}
    text, count, mean, scatter = (arrays.pop(name) for name in _NAMES)
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile,
          # What a damaged header asks for: another method, a password.
          NotImplementedError, RuntimeError, zlib.error) as error:
    raise errors.InputError(str(path), None,
                            f'holds no moments ({error})') from error
  protocol_lib.compare(protocol, protocol_lib.Protocol.from_json(str(text)))
  size = mean.shape[-1]  # Files of one frame had no axis of frames once.
  return [Moments(int(count), *one) for one in zip(
      mean.reshape(-1, size), scatter.reshape(-1, size, size), strict=True)
          ], arrays
