"""Where records come from: photographs, TFDS, folders, ArrayRecord files.

A source is one split with random access (`Source` below). It is pickled to
worker processes, so it holds an index and no open file. A new kind is a class
and a line in `_KINDS`.
"""

import collections
import concurrent.futures
import functools
import glob
import hashlib
import os
import sys
from typing import Protocol

import numpy as np
import tqdm
from absl import logging
from PIL import Image

from vitok import errors
from vitok.data import photographs, records

# A folder with a subfolder of one of these names is split by its subfolders.
_SPLITS = ('train', 'test', 'validation', 'valid', 'val')
# Formats that Pillow recognises but does not decode by itself.
_STUBS = {'BUFR', 'EPS', 'GRIB', 'HDF5', 'MPEG', 'WMF'}


class Source(Protocol):
  """What every kind of source offers.

  Attributes:
    fingerprint: hash of the index, equal wherever the data lie.
  """
  fingerprint: str

  def __len__(self) -> int:
    ...

  def read(self, index: int,
           rng: np.random.Generator | None) -> bytes | np.ndarray:
    """A record: the bytes of an image file or uint8 pixels (T, H, W, 3).

    Args:
      index: number of the record in the split.
      rng: the generator of a training example; `None` in evaluation.
    """

  def name(self, index: int) -> str:
    """What messages call a record."""

  def group(self, index: int) -> int:
    """Number of the independent unit that a record belongs to."""


@functools.lru_cache(maxsize=16)
def open_source(spec: str, split: str, resolution: int,
                skip_unreadable: bool) -> Source:
  """Opens one split of a source, which this process then remembers.

  Args:
    spec: `photographs`, `tfds:NAME`, `folder:PATH` or `array_record:GLOB`.
    split: name of the split, without a slice.
    resolution: side of the images that will be made of it, in pixels.
    skip_unreadable: whether unreadable files are left out, or refused.

  Raises:
    errors.InputError: for key 'source' or 'split': no such thing, or nothing
      in it; says what was found there.
  """
  kind, _, where = spec.partition(':')
  if kind not in _KINDS or bool(where) != (kind != 'photographs'):
    choices = ('photographs', 'tfds:NAME', 'folder:PATH', 'array_record:GLOB')
    raise errors.InputError('source', spec, 'is not a known source', next(
        (c for c in choices if c.startswith(f'{kind}:')),
        errors.nearest(spec, choices)))
  return _KINDS[kind](where, split, resolution, skip_unreadable)



class Folder:
  """Image files below a folder, in the order of their paths.

  If the folder has a subfolder named as the split, that is the split. If it
  has none of the usual names, all its images are the split 'train', to be
  sliced: `train[:90%]` and `train[90%:]`. Files whose header cannot be read
  are left out of the index, counted and named, or refused.

  Attributes:
    unreadable: paths of the files left out.
  """

  def __init__(self, where, split, resolution, skip_unreadable):
    del resolution
    root = os.path.abspath(os.path.expanduser(where))
    if not os.path.isdir(root):
      raise errors.InputError('source', f'folder:{where}', 'no such folder',
                              _nearest_path('folder', root))
    folders = sorted(e.name for e in os.scandir(root) if e.is_dir())
    named = [name for name in folders if name in _SPLITS]
    if split in folders:
      root = os.path.join(root, split)
    elif named or split != 'train':
      raise errors.InputError(
          'split', split, f'folder:{where} has no subfolder of that name; '
          f'found {_listed("subfolder", folders)}',
          errors.nearest(split, named) if named
          else "'train[90%:]', with config.data.split='train[:90%]'")
    files, others = _walk(root)
    if not files:
      raise errors.InputError('source', f'folder:{root}',
                              'holds no image; found '
                              + _listed('other file', others))
    sizes = _scan(root, files)
    self.unreadable = tuple(f for f in files if f not in sizes)
    self._root, self._files = root, list(sizes)
    if self.unreadable and not (skip_unreadable and sizes):
      raise errors.InputError(
          'source', f'folder:{root}', f'of {len(files)} images cannot be read: '
          + _listed('file', self.unreadable),
          '--config.data.skip_unreadable=True' if sizes else None)
    for file in self.unreadable:
      logging.warning('unreadable, left out: %s', os.path.join(root, file))
    if self.unreadable:
      logging.warning('%d of %d images in %s are left out',
                      len(self.unreadable), len(files), root)
    self.fingerprint = _hash(*sizes.items())

  def __len__(self):
    return len(self._files)

  def read(self, index, rng):
    del rng
    with open(self.name(index), 'rb') as file:
      return file.read()

  def name(self, index):
    return os.path.join(self._root, self._files[index])

  def group(self, index):
    return index


class ArrayRecords:
  """ArrayRecord files in the layout of `vitok.data.records`.

  A folder stands for all such files in it. If their names give splits, a
  split is the files of its name; files without are the split 'train'.
  """

  def __init__(self, where, split, resolution, skip_unreadable):
    del resolution, skip_unreadable
    from array_record.python import array_record_data_source  # Slow.
    spec = f'array_record:{where}'
    pattern = where if '://' in where else os.path.abspath(
        os.path.expanduser(where))
    files = _glob(os.path.join(pattern, '*.array_record*')) or _glob(pattern)
    if not files:
      folder = pattern if os.path.isdir(pattern) else os.path.dirname(pattern)
      found = os.listdir(folder) if os.path.isdir(folder) else ()
      raise errors.InputError(
          'source', spec, f'no such file; {folder} holds '
          + _listed('entry', sorted(found)),
          _nearest_path('array_record', pattern))
    splits = collections.defaultdict(list)
    for file in files:
      splits[records.split_of(file)].append(file)
    if split not in splits:
      raise errors.InputError(
          'split', split, f'{spec} has no files of that split; found '
          + _listed('split', list(splits)), errors.nearest(split, splits))
    self._names = [os.path.basename(file) for file in splits[split]]
    missing = records.missing_shards(self._names)
    if missing:
      raise errors.InputError('source', spec, 'lacks some of its files: '
                              + _listed('file', missing))
    try:
      self._records = array_record_data_source.ArrayRecordDataSource(
          splits[split])
      first = self._records[0] if len(self) else b''
      records.verify(first)
    except Exception as error:  # The reader's own kinds are not documented.
      found = _listed('file', self._names)
      raise errors.InputError('source', spec,
                              f'cannot be read ({error}): {found}') from error
    self.fingerprint = _hash(self._names, len(self), first)

  def __len__(self):
    return len(self._records)

  def read(self, index, rng):
    del rng
    return records.unpack(self._records[index])[0]

  def name(self, index):
    return f'record {index} of {self._names[0]} and the files after it'

  def group(self, index):
    return index


class Tfds:
  """A TensorFlow data set prepared as ArrayRecord; images stay undecoded.

  `NAME` is as TFDS takes it (`cifar10`, `imagenette/320px-v2`), looked for in
  TFDS_DATA_DIR, or the path of a prepared version (`/data/cifar10/3.0.2`).
  Reading uses numpy alone: TensorFlow is not imported.
  """

  def __init__(self, where, split, resolution, skip_unreadable):
    del resolution, skip_unreadable
    import tensorflow_datasets as tfds  # Slow.
    self._name, self._split = f'tfds:{where}', split
    try:
      builder = (tfds.builder_from_directory(where) if os.path.isabs(where)
                 else tfds.builder(where, file_format='array_record'))
    except Exception as error:  # Several kinds, and their text fills a screen.
      name, _, variant = where.partition('/')
      near = errors.nearest(name, tfds.list_builders())
      raise errors.InputError(
          'source', self._name, 'TFDS has no such data set, or no such '
          'configuration of it' if variant else 'TFDS has no such data set',
          f'tfds:{near}') from error
    if 'image' not in builder.info.features:
      raise errors.InputError(
          'source', self._name, "its records have no feature 'image'; found "
          + _listed('feature', list(builder.info.features)))
    try:
      self._records = builder.as_data_source(
          split, decoders={'image': tfds.decode.SkipDecoding()})
      len(self._records)
    except Exception as error:
      found = list(builder.info.splits)
      if found and split not in found:
        raise errors.InputError(
            'split', split, f'{self._name} has no such split; found '
            + _listed('split', found), errors.nearest(split, found)) from error
      raise errors.InputError(
          'source', self._name, 'is not prepared as ArrayRecord in '
          f'{builder.data_path}',
          f'python tools/prepare_data.py {self._name}') from error
    if (tf := sys.modules.get('tensorflow')) is not None:
      tf.config.set_visible_devices([], 'GPU')  # They are JAX's.
    self.fingerprint = _hash(builder.info.full_name, split, len(self))

  def __len__(self):
    return len(self._records)

  def read(self, index, rng):
    del rng
    return self._records[index]['image']

  def name(self, index):
    return f'record {index} of {self._name}, split {self._split}'

  def group(self, index):
    return index


_KINDS = {
    'photographs': lambda where, split, resolution, skip_unreadable:
        photographs.Photographs(split, resolution),
    'tfds': Tfds,
    'folder': Folder,
    'array_record': ArrayRecords,
}


def _walk(root):
  """Paths of images below `root` in a fixed order, and of other files."""
  Image.init()
  known = {ending for ending, form in Image.EXTENSION.items()
           if form in Image.OPEN and form not in _STUBS}
  files, others = [], []
  for parent, folders, names in os.walk(root):
    folders.sort()
    for name in sorted(names):
      images = os.path.splitext(name)[1].lower() in known
      (files if images else others).append(
          os.path.relpath(os.path.join(parent, name), root))
  return files, others


def _scan(root, files):
  """{file: bytes} of those whose header can be read."""
  def size(file):
    path = os.path.join(root, file)
    try:
      with Image.open(path):
        return os.path.getsize(path)
    except Exception:  # Whatever is wrong with it, it is unreadable.
      return None

  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    sizes = list(tqdm.tqdm(pool.map(size, files), f'index of {root}',
                           len(files), unit=' files', delay=2))
  return {f: s for f, s in zip(files, sizes, strict=True) if s is not None}


def _glob(pattern):
  if '://' not in pattern:
    return sorted(filter(os.path.isfile, glob.glob(pattern)))
  from etils import epath
  folder, name = os.path.split(pattern)
  return sorted(map(os.fspath, epath.Path(folder).glob(name)))


def _hash(*parts):
  digest = hashlib.sha256()
  for part in parts:
    digest.update(repr(part).encode())
  return digest.hexdigest()


def _listed(what, names):
  """'3 files (a, b, c)', shortened; 'no file'."""
  if not names:
    return f'no {what}'
  plural = what if len(names) == 1 else what.removesuffix('y') + (
      'ies' if what.endswith('y') else 's')
  more = ', ...' if len(names) > 5 else ''
  return f'{len(names)} {plural} ({", ".join(names[:5])}{more})'


def _nearest_path(kind, path):
  """The entry most like a path, in the deepest folder of it that exists."""
  while not os.path.isdir(parent := os.path.dirname(path)):
    if parent == path:
      return None
    path = parent
  near = errors.nearest(os.path.basename(path), sorted(os.listdir(parent)))
  return near and f'{kind}:{os.path.join(parent, near)}'
