"""From the number of a record to an example: read, crop, resize, flip.

Runs in threads and worker processes. An example is {'image' uint8 (T, H, W,
3), 'mask', 'index', 'group', 'label', 'skipped'}; `label` is -1 where there is
none, `skipped` counts the records that gave way to it, which is how names of
unreadable files get back to the process that reports them. Crop and flip are
drawn once for all frames of a clip. A source of codes has 'code' float32 (L, c)
in place of 'image', as it is.
"""

import bisect
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vitok import errors
from vitok.data import clips as clips_lib
from vitok.data import native as native_lib
from vitok.data import sources, splits, transforms
from vitok.data.records import NO_LABEL

PAD = -1  # Number of the record that a row of padding holds.


class UnreadableError(RuntimeError):
  """A record that was in the index cannot be decoded; its name is given."""


class Examples:
  """The records of one split of several sources, numbered through.

  Records of the second source follow the last of the first, so a number is an
  example's `index`, and a source's groups are numbered from its first record.
  Where K clips of each record are evaluated, clip k of record n is number
  n * K + k.

  Args:
    keys: config keys of the sources and of the split, for messages.
    names: the sources.
    split: a split with an optional slice, the same of every source.
    size: side of an example's image.
    clips: which frames of a video are an example.
    native: of what size images stay, as patches; `None`: they become squares.
    crop: function (height, width, rng) -> box.
    name_of_filter: of `transforms.FILTERS`.
    flip: whether half of the training examples are mirrored.
    skip_unreadable: whether unreadable records give way.
    classes: of the labels that may occur; 0: whatever there is.

  Attributes:
    ranges: the numbers of each source's records.
    evaluated: the numbers of each source's examples in evaluation.
    moving: names of the sources that hold videos.
    untimed: names of the sources of videos that do not say when their frames
      are shown.
    classes: {source: number of classes}, as its `Source` says.
    code_shape: (L, c), or (L, K) of integers, of the examples if they are
      codes, or else None.
    fingerprint: hash of indices and ranges.
  """

  def __init__(self, keys: tuple[str, str], names: Sequence[str], split: str,
               *, size: int, crop: Callable, name_of_filter: str,
               clips: clips_lib.Clips = clips_lib.Clips(),
               native: native_lib.Native | None = None,
               flip: bool = False, skip_unreadable: bool = False,
               classes: int = 0):
    chosen = splits.parse(keys[1], split)
    self._size, self._crop, self._filter = size, crop, name_of_filter
    self._clips, self._native = clips, native
    self._flip, self._skip = flip, skip_unreadable
    self._classes = classes
    self._sources, self._starts, self.ranges, end = [], [], [], 0
    for name in names:
      try:
        source = sources.open_source(name, chosen.name, size, skip_unreadable)
        records = chosen.range(len(source))
        if not records:
          raise ValueError(f'holds none of its {len(source)} records')
      except errors.InputError as error:
        raise errors.InputError(keys[error.key == 'split'], error.value,
                                error.reason, error.nearest) from error
      except ValueError as error:
        raise errors.InputError(keys[1], split, f'{name}: {error}',
                                chosen.name) from error
      self._sources.append(source)
      self._starts.append(end)
      self.ranges.append(range(end + records.start, end + records.stop))
      end += len(source)
    self.evaluated = [range(numbers.start * clips.parts,
                            numbers.stop * clips.parts)
                      for numbers in self.ranges]
    self.moving = [name for name, source in zip(
        names, self._sources, strict=True) if source.moving]
    self.untimed = [name for name, source in zip(
        names, self._sources, strict=True) if source.moving > source.timed]
    self.code_shape = getattr(self._sources[0], 'code_shape', None)
    self.classes = {name: source.classes for name, source in zip(
        names, self._sources, strict=True)}
    self.fingerprint = hashlib.sha256(repr([
        (source.fingerprint, numbers) for source, numbers
        in zip(self._sources, self.ranges, strict=True)]).encode()).hexdigest()

  def train(self, number: int, rng: np.random.Generator) -> dict[str, Any]:
    """An augmented example; an unreadable record gives way to its successor.

    Raises:
      UnreadableError: the record cannot be decoded and may not be skipped, or
        no record can.
    """
    numbers = self._range(number)
    for skipped in range(len(numbers) if self._skip else 1):
      try:
        return self._example(_after(numbers, number, skipped), rng, skipped)
      except UnreadableError as error:
        last = error
    raise last

  def evaluate(self, number: int) -> dict[str, Any]:
    """An example; padding, and what is unreadable, has mask False."""
    if number != PAD:
      try:
        record, part = divmod(number, self._clips.parts)
        return self._example(record, None, 0, part) | {
            'index': np.int32(number)}
      except UnreadableError:
        if not self._skip:
          raise
    side = self._native.patch if self._native else self._size
    blank = (np.zeros((self._clips.frames, side, side, 3), np.uint8)
             if self.code_shape is None
             else np.zeros(self.code_shape, self._sources[0].code_dtype))
    return self._formed(_example(blank, False, number, PAD, NO_LABEL,
                                 int(number != PAD)))

  def overlaps(self, other: 'Examples') -> bool:
    """Whether some record is in both."""
    def held(examples):
      return {(source.fingerprint, start): numbers for source, start, numbers
              in zip(examples._sources, examples._starts, examples.ranges,
                     strict=True)}
    mine, theirs = held(self), held(other)
    return any(fingerprint == another and max(
        a.start - start, b.start - begin) < min(a.stop - start, b.stop - begin)
        for (fingerprint, start), a in mine.items()
        for (another, begin), b in theirs.items())

  def name(self, number: int) -> str:
    """What messages call a record."""
    source, index = self._find(number)
    return source.name(index)

  def names_skipped(self, number: int, mask: bool, skipped: int) -> list[str]:
    """Names of the records that gave way to an example."""
    if not mask:
      return [self.name(number // self._clips.parts)]
    return [self.name(_after(self._range(number), number, -back))
            for back in range(skipped, 0, -1)]

  def _find(self, number):
    which = bisect.bisect(self._starts, number) - 1
    return self._sources[which], number - self._starts[which]

  def _range(self, number):
    return self.ranges[bisect.bisect(self._starts, number) - 1]

  def _example(self, number, rng, skipped, part=0):
    source, index = self._find(number)
    try:
      read, label = source.read(index, rng, functools.partial(
          self._clips.choose, rng=rng, part=part))
      if 0 < self._classes <= label:
        raise ValueError(f'label {label} of {self._classes} classes')
      image = read if self.code_shape else self._pixels(read, rng)
    except MemoryError:
      raise
    except Exception as error:  # Pillow raises many kinds for broken files.
      raise UnreadableError(f'{source.name(index)}: {type(error).__name__}: '
                            f'{error}') from error
    if rng is not None and self._flip and not self.code_shape:
      image = transforms.random_flip(image, rng)
    group = source.group(index) + number - index
    return self._formed(_example(image, True, number, group, label, skipped))

  def _formed(self, example):
    return example | (
        self._native.example(example['image']) if self._native else {})

  def _pixels(self, read, rng):
    """What a source has read, cropped and resized; an image is a still clip."""
    size = self._native.size if self._native else self._size
    if isinstance(read, np.ndarray):
      box = self._crop(*read.shape[1:3], rng)
      image = transforms.resize(read, box, size, self._filter)
    else:
      crop = functools.cache(self._crop)  # Drawn once for frames of one size.
      image = np.concatenate([
          transforms.decode(data, crop, rng, size, self._filter,
                            fast=rng is not None)
          for data in ([read] if isinstance(read, bytes) else read)])
    repeats = self._clips.frames if len(image) == 1 else 1
    return image if repeats == 1 else image.repeat(repeats, axis=0)


def _example(read, mask, index, group, label, skipped):
  kind = 'image' if read.dtype == np.uint8 else 'code'
  return {kind: read, 'mask': np.bool_(mask),
          'index': np.int32(index), 'group': np.int32(group),
          'label': np.int32(label), 'skipped': np.int32(skipped)}


def _after(numbers, number, steps):
  """The record so many steps after (or before) one, around the end."""
  return numbers[(number - numbers.start + steps) % len(numbers)]
