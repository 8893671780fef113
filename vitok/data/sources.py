"""Where records come from: photographs, TFDS, folders, ArrayRecord files.

A source is one split, with random access:

  len(source)             records
  source.read(i, rng)     bytes of an image file, or uint8 (T, H, W, 3)
  source.name(i)          what an error message calls the record
  source.group(i)         number of the independent unit it belongs to
  source.fingerprint      hash of its index
  source.unreadable       names left out of the index when it was built

Sources are pickled to worker processes, so they hold an index and no open
file. A new kind is a class and a line in `_KINDS`.
"""

import collections
import concurrent.futures
import glob
import hashlib
import os

import numpy as np
from PIL import Image

from vitok import errors
from vitok.data import photographs, records

_SPLITS = ('train', 'test', 'validation', 'valid', 'val')
# Formats that Pillow recognises but cannot decode by itself.
_STUBS = {'BUFR', 'EPS', 'GRIB', 'HDF5', 'MPEG', 'WMF'}


def open_source(key, spec, split, resolution, skip_unreadable):
  """Opens one split of a source.

  Args:
    key: config key that named it, for messages.
    spec: `photographs`, `tfds:NAME`, `folder:PATH` or `array_record:GLOB`.
    split: name of the split, without a slice.
    resolution: side of the images that will be made, in pixels.
    skip_unreadable: whether unreadable files are left out, or refused.

  Raises:
    errors.InputError: no such source or split, or nothing in it; says what
      was found there.
  """
  kind, colon, where = spec.partition(':')
  if kind not in _KINDS or bool(colon) != (kind != 'photographs') or (
      colon and not where):
    raise errors.InputError(key, spec, 'is not a known source', errors.nearest(
        spec, ('photographs', 'tfds:NAME', 'folder:PATH',
               'array_record:GLOB')))
  return _KINDS[kind](key, where, split, resolution, skip_unreadable)


class Source:
  """What the kinds below share; their index is of `len` records."""
  unreadable = ()

  def group(self, index):
    return index


def _photographs(key, where, split, resolution, skip_unreadable):
  del where, skip_unreadable
  if split not in ('train', 'test'):
    raise errors.InputError(key, f'photographs, split {split}',
                            "found the splits 'train' and 'test'", 'test'
                            if split.startswith(('te', 'va')) else 'train')
  return photographs.Photographs(split, resolution)


class Folder(Source):
  """Image files below a folder, in the order of their paths.

  Where the folder has a subfolder named like a split (train, test, val, ...),
  a split is the subfolder of its name. Otherwise all images are the split
  'train', to be sliced: `train[:90%]`, `train[90%:]`.
  """

  def __init__(self, key, where, split, resolution, skip_unreadable):
    del resolution
    root = os.path.abspath(os.path.expanduser(where))
    if not os.path.isdir(root):
      raise errors.InputError(key, f'folder:{where}', 'no such folder',
                              _nearest_path(root))
    folders = sorted(e.name for e in os.scandir(root) if e.is_dir())
    named = [name for name in folders if name in _SPLITS]
    if split in folders:
      root = os.path.join(root, split)
    elif named or split != 'train':
      raise errors.InputError(
          key, f'folder:{where}, split {split}', 'no subfolder of that name; '
          f'found {_listed(folders, "subfolders")}',
          errors.nearest(split, named) if named else 'train[90%:]')
    self._root = root
    files, others = [], collections.Counter()
    known = _extensions()
    for parent, children, names in os.walk(root):
      children.sort()  # The walk's order, and with it the index, is fixed.
      for name in sorted(names):
        ending = os.path.splitext(name)[1].lower()
        if ending in known:
          files.append(os.path.relpath(os.path.join(parent, name), root))
        else:
          others[ending or 'no ending'] += 1
    if not files:
      found = ', '.join(f'{n} {e}' for e, n in others.most_common(5))
      raise errors.InputError(
          key, f'folder:{root}', 'holds no image; found '
          + (f'files of other kinds ({found})' if found else 'no file'))
    sizes = _scan(root, files)
    self.unreadable = [f for f, size in zip(files, sizes) if size < 0]
    self._files = [f for f, size in zip(files, sizes) if size >= 0]
    if self.unreadable and not (skip_unreadable and self._files):
      raise errors.InputError(
          key, f'folder:{root}', f'{len(self.unreadable)} of {len(files)} '
          f'images cannot be read: {_listed(self.unreadable, "files")}',
          '--config.data.skip_unreadable=True' if self._files else None)
    self.fingerprint = _hash(zip(self._files, (s for s in sizes if s >= 0)))

  def __len__(self):
    return len(self._files)

  def read(self, index, rng):
    del rng
    with open(self.name(index), 'rb') as file:
      return file.read()

  def name(self, index):
    return os.path.join(self._root, self._files[index])


class ArrayRecords(Source):
  """ArrayRecord files in the layout of `vitok.data.records`.

  Files whose names give splits are chosen by them; files without are the
  split 'train' together. A folder stands for all the files in it.
  """

  def __init__(self, key, where, split, resolution, skip_unreadable):
    del resolution, skip_unreadable
    pattern = where if '://' in where else os.path.abspath(
        os.path.expanduser(where))
    files = _glob(os.path.join(pattern, '*.array_record*')) or _glob(pattern)
    if not files:
      folder = os.path.dirname(pattern)
      found = os.listdir(folder) if os.path.isdir(folder) else ()
      raise errors.InputError(
          key, f'array_record:{where}', 'no file of that name; found '
          + _listed(sorted(found), f'files in {folder}'),
          _nearest_path(pattern))
    splits = collections.defaultdict(list)
    for file in files:
      splits[records.split_of(file) or 'train'].append(file)
    if split not in splits:
      raise errors.InputError(
          key, f'array_record:{where}, split {split}',
          f'found the splits {", ".join(map(repr, splits))}',
          'train[90%:]' if list(splits) == ['train']
          else errors.nearest(split, splits))
    from array_record.python import array_record_data_source  # Slow.
    try:
      self._records = array_record_data_source.ArrayRecordDataSource(
          splits[split])
      if not len(self._records):
        raise ValueError('no record in it')
      first = self._records[0]
    except Exception as error:
      raise errors.InputError(key, f'array_record:{where}',
                              f'cannot be read: {error}') from error
    records.check(key, f'array_record:{where}', first)
    self._names = [os.path.basename(f) for f in splits[split]]
    self.fingerprint = _hash([self._names, len(self), hashlib.sha256(
        first).hexdigest()])

  def __len__(self):
    return len(self._records)

  def read(self, index, rng):
    del rng
    return records.unpack(self._records[index])[0]

  def name(self, index):
    file, position = self._records._reader_idx_and_position(index)
    return f'{self._names[file]}, record {position}'


class Tfds(Source):
  """A TensorFlow data set prepared as ArrayRecord; images stay undecoded.

  `NAME` is as TFDS takes it: `cifar10`, `imagenette/320px-v2`. It is looked
  for where TFDS_DATA_DIR says, or in TFDS's own default place.
  """

  def __init__(self, key, where, split, resolution, skip_unreadable):
    del resolution, skip_unreadable
    tfds = import_tfds()
    self._name, self._split = where, split
    try:
      builder = tfds.builder(where)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
      raise errors.InputError(
          key, f'tfds:{where}', 'TFDS has no data set of that name',
          f'tfds:{errors.nearest(where, tfds.list_builders())}') from error
    features = builder.info.features
    if 'image' not in features:
      raise errors.InputError(key, f'tfds:{where}',
                              "its records have no feature 'image'; found "
                              + _listed(list(features), 'features'))
    decode = tfds.decode
    try:
      self._records = tfds.data_source(
          where, split=split, decoders=decode.PartialDecoding(
              {'image': True}, decoders={'image': decode.SkipDecoding()}))
      if not len(self._records):
        raise ValueError('no record in it')
    except Exception as error:
      known = list(builder.info.splits)
      if known and split not in known:
        raise errors.InputError(
            key, f'tfds:{where}, split {split}', 'no such split; found '
            + _listed(known, 'splits'), errors.nearest(split, known)) from error
      raise errors.InputError(
          key, f'tfds:{where}', f'is not prepared as ArrayRecord ({error})',
          f'python tools/prepare_data.py tfds:{where}') from error
    self.fingerprint = _hash([where, split, builder.info.version, len(self)])

  def __len__(self):
    return len(self._records)

  def read(self, index, rng):
    del rng
    image = self._records[index]['image']
    return image if isinstance(image, bytes) else np.asarray(image)[None]

  def name(self, index):
    return f'tfds:{self._name}, split {self._split}, record {index}'


_KINDS = {'photographs': _photographs, 'tfds': Tfds, 'folder': Folder,
          'array_record': ArrayRecords}


def import_tfds():
  """TFDS, imported late (seconds), with accelerators hidden from it."""
  import tensorflow_datasets as tfds

  from vitok import errors as _  # noqa: F401
  return tfds


def _extensions():
  Image.init()
  return {ending for ending, name in Image.EXTENSION.items()
          if name in Image.OPEN and name not in _STUBS}


def _scan(root, files):
  """Size of each file in bytes, -1 where its header cannot be read."""
  from tqdm import tqdm

  def size(file):
    path = os.path.join(root, file)
    try:
      with Image.open(path):
        return os.path.getsize(path)
    except Exception:  # Whatever is wrong with it, it is unreadable.
      return -1

  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    return list(tqdm(pool.map(size, files), f'index of {root}', len(files),
                     unit=' files', delay=2))


def _glob(pattern):
  if '://' not in pattern:
    return sorted(f for f in glob.glob(pattern) if os.path.isfile(f))
  from etils import epath
  folder = epath.Path(os.path.dirname(pattern))
  return sorted(map(str, folder.glob(os.path.basename(pattern))))


def _hash(parts):
  digest = hashlib.sha256()
  for part in parts:
    digest.update(repr(part).encode())
  return digest.hexdigest()


def _listed(names, what):
  """'3 subfolders (a, b, c)', shortened; 'no subfolders'."""
  if not names:
    return f'no {what}'
  more = ', ...' if len(names) > 5 else ''
  return f'{len(names)} {what} ({", ".join(names[:5])}{more})'


def _nearest_path(path):
  """The entry most like a path in the nearest folder that exists."""
  while not os.path.isdir(parent := os.path.dirname(path)):
    if parent == path:
      return None
    path = parent
  entries = sorted(os.listdir(parent))
  near = errors.nearest(os.path.basename(path), entries)
  return near and os.path.join(parent, near)
