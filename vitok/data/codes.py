"""Codes of images, made once by `python -m vitok.encode`, as a source.

A generator that trains on them needs no encoder in its step. A folder holds,
for each split, ArrayRecord files `codes-<split>.array_record-<shard>-of-<n>`
and, written last, `codes-<split>.json`: which tokenizer made them (SHA-256),
of which records, and mean and deviation of each channel. A record is

  magic  4 bytes  b'VTKZ', b'VTKI' of integers
  label  int32    class, -1 where there is none
  L c    uint32   shape, tokens and channels, or integers of a token

and then the code, float32, little-endian like the header: the latent means of
the image as evaluation crops it. Of a discrete code it is the integers, packed
into bytes (`packing`) by the radices that the manifest has. So neither
posterior samples nor crops and flips vary from epoch to epoch, as they do where
codes are made in the step.
"""

import json
import os
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from etils import epath

from vitok import errors, files
from vitok.data import folders, packing, records

PREFIX = 'codes:'
_HEADER = struct.Struct('<4si2I')
_MAGIC, _INTEGERS = b'VTKZ', b'VTKI'
_NAME = 'codes'
SHARD = 2500  # Records of a file; see `vitok.data.records`.


def pack(code: np.ndarray, label: int, radices: Sequence[int] = ()) -> bytes:
  """One record: of floats (L, c), or of integers (L, K) with their radices."""
  header = _HEADER.pack(_INTEGERS if radices else _MAGIC, label, *code.shape)
  return header + (packing.pack(code, radices) if radices else
                   code.astype('<f4').tobytes())


def unpack(record: bytes, radices: Sequence[int] = ()
           ) -> tuple[np.ndarray, int]:
  """The code, (L, c) float32 or (L, K) int32, and the label.

  Raises:
    ValueError: a record of another kind, or one that is cut off.
  """
  if not record.startswith(_INTEGERS if radices else _MAGIC) or (
      len(record) < _HEADER.size):
    raise ValueError('is no record of a code')
  _, label, *shape = _HEADER.unpack_from(record)
  if radices:
    return packing.unpack(record[_HEADER.size:], shape[:1], radices), label
  code = np.frombuffer(record, '<f4', offset=_HEADER.size)
  return code.reshape(shape).astype(np.float32), label


def write(folder: os.PathLike | str, split: str, count: int,
          rows: Iterable[tuple | None], facts: dict[str, Any]
          ) -> dict[str, Any]:
  """Writes a split; the manifest, without which nothing is read, last.

  Args:
    folder: where; made if need be.
    split: name of the split.
    count: of the rows.
    rows: (code (L, c), label), or of a discrete code (code, label, integers
      (L, K)), in the order of the records; None for one that cannot be read
      and is left out.
    facts: what the manifest says beside shape, count, mean and deviation; of a
      discrete code also its 'radices'.

  Returns:
    The manifest.
  """
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  manifest = folder / _manifest(split)
  manifest.unlink(missing_ok=True)
  for old in folder.glob(f'{_NAME}-{split}.array_record-*'):
    old.unlink()
  shards = -(-count // SHARD)
  writer, written, sums, squares, labelled = None, 0, 0.0, 0.0, False
  radices = facts.get('radices', ())
  for number, row in enumerate(rows):
    if number % SHARD == 0:
      if writer is not None:
        writer.close()
      writer = records.writer(folder / records.file_name(
          _NAME, split, number // SHARD, shards))
    if row is None:
      continue
    code_Lxc, label, *ids = row
    stored = ids[0] if radices else code_Lxc
    writer.write(pack(stored, label, radices))
    labelled |= label != records.NO_LABEL
    exact = code_Lxc.astype(np.float64)
    sums, squares = sums + exact.mean(0), squares + np.square(exact).mean(0)
    written += 1
  if not written:
    raise ValueError('no code to write')
  writer.close()
  mean = sums / written
  found = facts | {
      'count': written, 'shape': list(stored.shape),
      'labelled': bool(labelled), 'mean': mean.tolist(),
      'deviation': np.sqrt(np.maximum(squares / written - mean**2, 0)).tolist()}
  files.write_text(manifest, json.dumps(found, indent=1) + '\n')
  return found


def read_manifest(where: str, split: str) -> dict[str, Any]:
  """What a folder says of its split.

  Raises:
    errors.InputError: for key 'source' or 'split', as `Source`s raise it.
  """
  folder = epath.Path(os.path.expanduser(where))
  path = folder / _manifest(split)
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    pass
  except ValueError as error:
    raise errors.InputError('source', PREFIX + where,
                            f'{path} is damaged: {error}') from error
  splits = sorted(p.name.removeprefix(f'{_NAME}-').removesuffix('.json')
                  for p in folder.glob(_manifest('*')))
  if splits:
    raise errors.InputError('split', split, f'{PREFIX}{where} has no such '
                            'split; found ' + folders.listed('split', splits),
                            errors.nearest(split, splits))
  raise errors.InputError(
      'source', PREFIX + where, 'holds no finished codes', 'python -m '
      f'vitok.encode --workdir=TOKENIZER --source=SOURCE --out={where}')


def statistics(manifests: Sequence[dict[str, Any]],
               weights: Sequence[float] = ()) -> np.ndarray:
  """Mean and deviation of each channel, (2, c) float32, of mixed splits.

  Args:
    manifests: of the splits, whole ones.
    weights: of each of them; (): equal.
  """
  share = np.asarray(weights or np.ones(len(manifests)), np.float64)
  share /= share.sum()
  means, deviations = (np.asarray([of[name] for of in manifests])
                       for name in ('mean', 'deviation'))
  mean, square = share @ means, share @ (deviations**2 + means**2)
  # A channel that no code uses is left as it is, nearly.
  deviation = np.sqrt(np.maximum(square - mean**2, 1e-12))
  return np.stack([mean, deviation]).astype(np.float32)


class Codes:
  """One split of a folder of codes; `read` gives (L, c) float32, or (L, K)
  int32 of a discrete code."""
  moving = timed = False

  def __init__(self, where, split, resolution, skip_unreadable):
    del resolution, skip_unreadable
    from array_record.python import array_record_data_source  # Slow.
    self._manifest = read_manifest(where, split)
    folder = epath.Path(os.path.expanduser(where))
    names = sorted(str(path) for path in folder.glob(
        f'{_NAME}-{split}.array_record-*'))
    missing = records.missing_shards([os.path.basename(n) for n in names])
    if missing or not names:
      raise errors.InputError('source', PREFIX + where, 'lacks some of its '
                              'files: ' + folders.listed('file', missing))
    self._name = f'{PREFIX}{where}, split {split}'
    self._records = array_record_data_source.ArrayRecordDataSource(names)
    if len(self) != self._manifest['count']:
      raise errors.InputError(
          'source', PREFIX + where, f'holds {len(self)} codes, its manifest '
          f'says {self._manifest["count"]}')
    self.classes = None if self._manifest['labelled'] else 0
    self.code_shape = tuple(self._manifest['shape'])
    self._radices = tuple(self._manifest.get('radices', ()))
    self.code_dtype = np.int32 if self._radices else np.float32
    self.fingerprint = folders.hash_of(*sorted(self._manifest.items()))

  def __len__(self):
    return len(self._records)

  def read(self, index, rng, choose=None):
    del rng, choose
    return unpack(self._records[index], self._radices)

  def name(self, index):
    return f'record {index} of {self._name}'

  def group(self, index):
    return index


def _manifest(split):
  return f'{_NAME}-{split}.json'
