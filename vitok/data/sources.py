"""Where records come from: photographs, films, TFDS, folders, ArrayRecord.

A record is an image or a video, of which a clip is read.

A source is one split with random access (`Source` below). It is pickled to
worker processes, so it holds an index and no open file. A new kind is a class
and a line in `_KINDS`.
"""

import collections
import functools
import glob
import os
import sys
from typing import Protocol

import numpy as np

from vitok import errors
from vitok.data import (
    clips,
    codes,
    films,
    folders,
    photographs,
    records,
    videos,
)


class Source(Protocol):
  """What every kind of source offers.

  Attributes:
    fingerprint: hash of the index, equal wherever the data lie.
    moving: whether records are videos, as far as the first one tells.
    timed: whether it is known when their frames are shown.
    classes: of the labels; 0: records have none; None: it is not known.
    code_shape, code_dtype: (L, c) and float32, or (L, K) and int32, of a source
      of codes alone.
  """
  fingerprint: str
  moving: bool
  timed: bool
  classes: int | None

  def __len__(self) -> int:
    ...

  def read(self, index: int, rng: np.random.Generator | None,
           choose: clips.Chooser | None = None
           ) -> tuple[bytes | list[bytes] | np.ndarray, int]:
    """A record, or a clip of it, and its label.

    Args:
      index: number of the record in the split.
      rng: the generator of a training example; `None` in evaluation.
      choose: which frames of a video to read, in this order; `None`: all.

    Returns:
      The bytes of an image file, or of one for each frame, or uint8 pixels
      (T, H, W, 3); and the number of its class, `NO_LABEL` if it has none.
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
    spec: `photographs`, `films`, `tfds:NAME`, `folder:PATH`, `videos:PATH`,
      `array_record:GLOB` or `codes:PATH`.
    split: name of the split, without a slice.
    resolution: side of the images that will be made of it, in pixels.
    skip_unreadable: whether unreadable files are left out, or refused.

  Raises:
    errors.InputError: for key 'source' or 'split': no such thing, or nothing
      in it; says what was found there.
  """
  kind, _, where = spec.partition(':')
  if kind not in _KINDS or bool(where) == (kind in _EMBEDDED):
    choices = (*_EMBEDDED, 'tfds:NAME', 'folder:PATH', 'videos:PATH',
               'array_record:GLOB', 'codes:PATH')
    raise errors.InputError('source', spec, 'is not a known source', next(
        (c for c in choices if c.startswith(f'{kind}:')),
        errors.nearest(kind, choices)))
  return _KINDS[kind](where, split, resolution, skip_unreadable)


class ArrayRecords:
  """ArrayRecord files in the layout of `vitok.data.records`.

  A folder stands for all such files in it. If their names give splits, a
  split is the files of its name; files without are the split 'train'.
  """
  timed = False

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
          + folders.listed('entry', sorted(found)),
          folders.nearest_path('array_record', pattern))
    splits = collections.defaultdict(list)
    for file in files:
      splits[records.split_of(file)].append(file)
    if split not in splits:
      raise errors.InputError(
          'split', split, f'{spec} has no files of that split; found '
          + folders.listed('split', list(splits)),
          errors.nearest(split, splits))
    self._names = [os.path.basename(file) for file in splits[split]]
    missing = records.missing_shards(self._names)
    if missing:
      raise errors.InputError('source', spec, 'lacks some of its files: '
                              + folders.listed('file', missing))
    try:
      self._records = array_record_data_source.ArrayRecordDataSource(
          splits[split])
      first = self._records[0] if len(self) else b''
      records.verify(first)
    except Exception as error:  # The reader's own kinds are not documented.
      found = folders.listed('file', self._names)
      raise errors.InputError('source', spec,
                              f'cannot be read ({error}): {found}') from error
    image, label = records.unpack(first)
    self.moving = isinstance(image, np.ndarray) and len(image) > 1
    self.classes = 0 if label == records.NO_LABEL else None
    # Of some records beside the first: others may lie under the same names.
    self.fingerprint = folders.hash_of(self._names, len(self), *(
        self._records[number] for number in sorted({
            i * len(self) // _LOOKED_AT for i in range(_LOOKED_AT)}
            if len(self) else ())))

  def __len__(self):
    return len(self._records)

  def read(self, index, rng, choose=None):
    del rng
    image, label = records.unpack(self._records[index])
    if choose is None or isinstance(image, bytes) or len(image) == 1:
      return image, label
    return image[choose(len(image), None)], label

  def name(self, index):
    return f'record {index} of {self._names[0]} and the files after it'

  def group(self, index):
    return index


def tfds_builder(where: str):
  """TFDS's builder, for ArrayRecord, of what `Tfds` takes.

  Raises:
    InputError: there is no such data set, or it is prepared in another format.
  """
  import tensorflow_datasets as tfds  # Slow.
  make = (tfds.builder_from_directory if os.path.isabs(where) else tfds.builder)
  try:
    return make(where, **({} if os.path.isabs(where)
                          else {'file_format': 'array_record'}))
  except Exception as error:  # Several kinds, and their text fills a screen.
    try:
      found = make(where).info
    except Exception:
      name, _, variant = where.partition('/')
      near = errors.nearest(name, tfds.list_builders())
      raise errors.InputError(
          'source', f'tfds:{where}', 'TFDS has no such data set, or no such '
          'configuration of it' if variant else 'TFDS has no such data set',
          f'tfds:{near}') from error
    raise errors.InputError(
        'source', f'tfds:{where}', f'is prepared as {found.file_format.value}, '
        f'not as ArrayRecord, in {found.data_dir}',
        f'python tools/prepare_data.py tfds:{where}, with another '
        'TFDS_DATA_DIR') from error


class Tfds:
  """A TensorFlow data set prepared as ArrayRecord; images stay undecoded.

  Its records are the feature 'image' or, where there is none, 'video': TFDS
  stores a video as an image file for each frame, and not when they are shown.

  `NAME` is as TFDS takes it (`cifar10`, `imagenette/320px-v2`), looked for in
  TFDS_DATA_DIR, or the path of a prepared version (`/data/cifar10/3.0.2`).
  Reading uses numpy alone: TensorFlow is not imported.
  """
  timed = False

  def __init__(self, where, split, resolution, skip_unreadable):
    del resolution, skip_unreadable
    import tensorflow_datasets as tfds  # Slow.
    self._name, self._split = f'tfds:{where}', split
    builder = tfds_builder(where)
    self._feature = next((feature for feature in ('image', 'video')
                          if feature in builder.info.features), None)
    if self._feature is None:
      raise errors.InputError(
          'source', self._name, "its records have no 'video' and no feature "
          "'image'; found "
          + folders.listed('feature', list(builder.info.features)))
    self.moving = self._feature == 'video'
    # A label of another kind (several of them, a number) is no class.
    self.classes = 0 if 'label' not in builder.info.features else getattr(
        builder.info.features['label'], 'num_classes', None) or 0
    skip = tfds.decode.SkipDecoding()
    skip.decode_batch_example_np = skip.decode_example_np  # It forgets videos.
    try:
      self._records = builder.as_data_source(
          split, decoders={self._feature: skip})
      len(self._records)
    except Exception as error:
      found = list(builder.info.splits)
      if found and split not in found:
        raise errors.InputError(
            'split', split, f'{self._name} has no such split; found '
            + folders.listed('split', found),
            errors.nearest(split, found)) from error
      raise errors.InputError(
          'source', self._name, 'is not prepared as ArrayRecord in '
          f'{builder.data_path}',
          f'python tools/prepare_data.py {self._name}') from error
    if (tf := sys.modules.get('tensorflow')) is not None:
      tf.config.set_visible_devices([], 'GPU')  # They are JAX's.
    self.fingerprint = folders.hash_of(builder.info.full_name, split, len(self))

  def __len__(self):
    return len(self._records)

  def read(self, index, rng, choose=None):
    del rng
    example = self._records[index]
    record = example[self._feature]
    label = int(example['label']) if self.classes else records.NO_LABEL
    if not self.moving:
      return record, label
    numbers = (range(len(record)) if choose is None
               else choose(len(record), None))
    return [bytes(record[number]) for number in numbers], label

  def name(self, index):
    return f'record {index} of {self._name}, split {self._split}'

  def group(self, index):
    return index


_LOOKED_AT = 8  # Records of ArrayRecord files that tell them from others.
_EMBEDDED = ('photographs', 'films')  # They lie in no place to be named.
_KINDS = {
    'photographs': lambda where, split, resolution, skip_unreadable:
        photographs.Photographs(split, resolution),
    'films': lambda where, split, resolution, skip_unreadable:
        films.Films(split, resolution),
    'tfds': Tfds,
    'folder': folders.Images,
    'videos': videos.Videos,
    'array_record': ArrayRecords,
    'codes': codes.Codes,
}


def _glob(pattern):
  if '://' not in pattern:
    return sorted(filter(os.path.isfile, glob.glob(pattern)))
  from etils import epath
  folder, name = os.path.split(pattern)
  return sorted(map(os.fspath, epath.Path(folder).glob(name)))
