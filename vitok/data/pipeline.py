"""From sources to sharded batches: a batch is a pure function of its step.

Row r of step t of the global batch is record t * G + r of one seeded stream:
record numbers are shuffled anew each epoch, repeated, mixed by weight, read
and augmented with a generator keyed by their place in the stream; only then
does a process take the rows that its devices hold. So any number of processes
and workers sees the same batches in the same order, and the data's state is
the step number: to resume is to slice.

G: rows of the global batch. B: rows of this process. T, H, W, C: frames,
height, width, channels.
"""

import bisect
import collections
import functools
import hashlib
import logging
import os

import grain
import jax
import numpy as np
from absl import flags

from vitok import errors
from vitok.data import sources as sources_lib
from vitok.data import splits, transforms

_PAD = -1  # Number of the record that a row of padding holds.


class UnreadableError(RuntimeError):
  """A record that was in the index cannot be decoded; its name is given."""


class Examples:
  """Numbered records of several sources, read, cropped and resized.

  Records are numbered through: those of the second source follow the last of
  the first. Pickled to worker processes.

  Args:
    key: config key of the sources, for messages.
    names: source names.
    split: split with an optional slice, the same for each source.
    resolution: side of the result.
    crop: function of `transforms.CROPS`.
    scale, ratio, flip: of the augmentation; see the config.
    filter_name: resampling filter.
    skip: whether unreadable records give way.
  """

  def __init__(self, key, names, split, *, resolution, crop, filter_name,
               scale=(1., 1.), ratio=(1., 1.), flip=False, skip=False):
    chosen = splits.parse(key.rsplit('.', 1)[0] + '.split', split)
    self._sources = [_open(key, name, chosen.name, resolution, skip)
                     for name in names]
    counts = [len(source) for source in self._sources]
    self._offsets = np.cumsum([0, *counts]).tolist()
    self.ranges = []
    for source, name, offset in zip(self._sources, names, self._offsets):
      rows = chosen.range(len(source))
      if not rows:
        raise errors.InputError(
            key.rsplit('.', 1)[0] + '.split', split,
            f'holds no record of the {len(source)} of {name}', chosen.name)
      self.ranges.append(range(offset + rows.start, offset + rows.stop))
    self._crop, self._scale, self._ratio = crop, scale, ratio
    self._size, self._filter, self._flip = resolution, filter_name, flip
    self._skip = skip
    self.fingerprint = hashlib.sha256(repr(
        [(s.fingerprint, r) for s, r in zip(self._sources, self.ranges)]
    ).encode()).hexdigest()

  @property
  def unreadable(self):
    """Files left out of the index when it was built."""
    return [name for source in self._sources for name in source.unreadable]

  def train(self, number, rng):
    """Example of a record; an unreadable one gives way to its successor."""
    source = bisect.bisect(self._offsets, number) - 1
    rows = self.ranges[source]
    for skipped in range(len(rows)):
      record = rows[(number - rows.start + skipped) % len(rows)]
      try:
        return self._example(source, record, rng) | {
            'skipped': np.int32(skipped)}
      except UnreadableError:
        if not self._skip:
          raise
    raise UnreadableError(f'none of {len(rows)} records can be read')

  def evaluate(self, number):
    """Example of a record; padding, or an unreadable one, has mask False."""
    if number != _PAD:
      source = bisect.bisect(self._offsets, number) - 1
      try:
        return self._example(source, number, None) | {'skipped': np.int32(0)}
      except UnreadableError:
        if not self._skip:
          raise
    image = np.zeros((1, self._size, self._size, 3), np.uint8)
    return _example(image, False, number, _PAD) | {
        'skipped': np.int32(number != _PAD)}

  def name(self, number):
    source = bisect.bisect(self._offsets, number) - 1
    return self._sources[source].name(number - self._offsets[source])

  def skipped_names(self, number, skipped):
    """The records before `number` that gave way to it, or an unread one."""
    rows = self.ranges[bisect.bisect(self._offsets, number) - 1]
    return [self.name(rows[(number - rows.start - back) % len(rows)])
            for back in range(skipped, 0, -1)]

  def _example(self, source, number, rng):
    index = number - self._offsets[source]
    try:
      image = self._pixels(self._sources[source].read(index, rng), rng)
    except MemoryError:
      raise
    except Exception as error:
      raise UnreadableError(f'{self._sources[source].name(index)}: '
                            f'{type(error).__name__}: {error}') from error
    if self._flip and rng.random() < .5:
      image = image[:, :, ::-1]
    group = self._sources[source].group(index) + self._offsets[source]
    return _example(image, True, number, group)

  def _pixels(self, image, rng):
    crop = lambda height, width: self._crop(
        height, width, rng, self._scale, self._ratio)
    if isinstance(image, bytes):
      return transforms.decode(image, crop, self._size, self._filter,
                               draft=rng is not None)
    return transforms.resize(image, crop(*image.shape[1:3]), self._size,
                             self._filter)


def _example(image_TxHxWxC, mask, index, group):
  return {'image': image_TxHxWxC, 'mask': np.bool_(mask),
          'index': np.int32(index), 'group': np.int32(group)}


class _Rows(grain.MapDataset):
  """Rows of each global batch that one process holds, one after the other."""

  def __init__(self, parent, rows, batch_size):
    super().__init__(parent)
    self._rows, self._batch_size = rows, batch_size

  def __len__(self):
    return len(self._parent) // self._batch_size * len(self._rows)

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    step, row = divmod(index, len(self._rows))
    return self._parent[step * self._batch_size + self._rows[row]]


def check(config) -> None:
  """Refuses sources, splits and transforms that cannot work.

  Reads indices and first records; touches no device.

  Raises:
    errors.InputError: with the field at fault and what was found.
  """
  _open.cache_clear()  # What lies on disk may have changed since.
  data, evaluation = config.data, config.evaluation
  if data.frames != 1:
    raise errors.InputError('config.data.frames', data.frames,
                            'sources hold images, which have one frame', 1)
  for name, node in (('data', data), ('evaluation', evaluation)):
    errors.one_of(f'config.{name}.crop', node.crop, list(transforms.CROPS))
    errors.one_of(f'config.{name}.filter', node.filter,
                  list(transforms.FILTERS))
  if evaluation.crop == 'random_resized':
    raise errors.InputError('config.evaluation.crop', evaluation.crop,
                            'evaluation is not random', 'center')
  for field, low, high in (('crop_scale', 0, 1), ('crop_ratio', 0, 100)):
    value = tuple(data[field])
    if len(value) != 2 or not low < value[0] <= value[1] <= high:
      raise errors.InputError(f'config.data.{field}', value,
                              f'is not (low, high) within {low} and {high}',
                              {'crop_scale': (.8, 1.),
                               'crop_ratio': (.75, 4 / 3)}[field])
  if not data.sources:
    raise errors.InputError('config.data.sources', (), 'names no source',
                            ('photographs',))
  if data.weights and len(data.weights) != len(data.sources):
    raise errors.InputError(
        'config.data.weights', tuple(data.weights),
        f'is not one weight for each of {len(data.sources)} sources',
        (1.,) * len(data.sources))
  if not all(weight > 0 for weight in data.weights):
    raise errors.InputError('config.data.weights', tuple(data.weights),
                            'holds a weight that is not positive', 1.)
  _train_examples(config)
  _eval_examples(config)


def fingerprint(config) -> str:
  """Hash of what is trained and evaluated on: indices, splits, weights."""
  parts = [_train_examples(config).fingerprint, tuple(config.data.weights),
           _eval_examples(config).fingerprint]
  return hashlib.sha256(repr(parts).encode()).hexdigest()


def host_batch(config, step: int, rows=None) -> dict[str, np.ndarray]:
  """Rows of the training batch of a step, on this host, as numpy arrays."""
  rows = range(config.batch_size) if rows is None else rows
  batch = dict(_train_dataset(_train_examples(config), config, rows)[step])
  del batch['skipped']
  return batch | {'image': transforms.to_float(batch['image'])}


def train_batches(config, sharding, start: int = 0) -> 'TrainBatches':
  """Training batches from step `start` on, without end.

  Args:
    config: a checked config.
    sharding: of the leading axis of every array in a batch.
    start: step of the first batch.

  Returns:
    An iterator of {'image' (G, T, H, W, C) f32 in [-1, 1], 'mask' (G,) bool,
    'index' (G,) i32, 'group' (G,) i32} on the devices. Close it after use.

  Raises:
    UnreadableError: by the iterator, for a record that cannot be decoded.
  """
  return TrainBatches(config, sharding, start)


class TrainBatches:
  """Iterator of batches; see `train_batches`.

  Attributes:
    unreadable: {file name: times it gave way}, of this process.
  """

  def __init__(self, config, sharding, start):
    self._examples = _train_examples(config)
    self.unreadable = collections.Counter(self._examples.unreadable)
    _report(self.unreadable, 'left out of the index')
    self._put = _Put(sharding, config.batch_size)
    batches = _train_dataset(self._examples, config, self._put.rows)
    self._host = _prefetch(batches[start:], config.data.workers)
    self._ready, self._count = collections.deque(), config.data.prefetch
    self._error = None

  def __iter__(self):
    return self

  def __next__(self):
    # After an error nothing follows it: neither an old batch nor a later one.
    while self._error is None and len(self._ready) < self._count:
      try:
        self._ready.append(self._put(_note(
            next(self._host), self._examples, self.unreadable)))
      except Exception as error:
        self._error = error
    if self._ready:
      return self._ready.popleft()
    raise self._error

  def close(self):
    """Ends worker processes and drops what was prefetched."""
    self._error = self._error or ValueError('the iterator is closed')
    self._ready.clear()
    self._host.close()


class EvalBatches:
  """Batches of the evaluation split: fixed order, padded, the same number on
  every host. Iterate as often as needed."""

  def __init__(self, config, sharding):
    self._examples = _eval_examples(config)
    self.unreadable = collections.Counter(self._examples.unreadable)
    (rows,) = self._examples.ranges
    self.count = min(len(rows), config.evaluation.count or len(rows))
    # Rounded up so that every device has the same number of rows.
    shards = sharding.num_devices // sharding.shard_shape(
        (sharding.num_devices,))[0]
    self.batch_size = -(-config.evaluation.batch_size // shards) * shards
    self._put = _Put(sharding, self.batch_size)
    self._workers, first = config.data.workers, rows.start
    padded = len(self) * self.batch_size
    self._dataset = _Rows(
        grain.MapDataset.range(padded).map(functools.partial(
            _numbered, first, self.count)).map(self._examples.evaluate),
        self._put.rows, self.batch_size).batch(len(self._put.rows))

  def __len__(self):
    return -(-self.count // self.batch_size)

  def __iter__(self):
    host = _prefetch(self._dataset, self._workers)
    try:
      for batch in host:
        yield self._put(_note(batch, self._examples, self.unreadable))
    finally:
      host.close()


def eval_batches(config, sharding) -> EvalBatches:
  """The evaluation split as a sized iterable of batches like those of
  `train_batches`; rows of padding have mask False and index -1."""
  return EvalBatches(config, sharding)


class _Put:
  """Places this process's rows of a batch on its devices.

  Pixels travel as uint8, a quarter of the bytes, and become float there.
  """

  def __init__(self, sharding, batch_size):
    self._sharding, self._batch_size = sharding, batch_size
    held = sharding.addressable_devices_indices_map((batch_size,)).values()
    self.rows = sorted({row for (rows,) in held
                        for row in range(batch_size)[rows]})

  def __call__(self, batch):
    arrays = {key: self._array(x) for key, x in batch.items()}
    return arrays | {'image': _on_device(self._sharding)(arrays['image'])}

  def _array(self, x):
    def rows(index):
      wanted = range(self._batch_size)[index[0]]
      first = bisect.bisect_left(self.rows, wanted.start)
      return x[first:first + len(wanted)]
    return jax.make_array_from_callback(
        (self._batch_size, *x.shape[1:]), self._sharding, rows)


@functools.lru_cache
def _on_device(sharding):
  return jax.jit(functools.partial(transforms.to_float, xp=jax.numpy),
                 out_shardings=sharding)


@functools.lru_cache(maxsize=16)
def _open(*args):
  return sources_lib.open_source(*args)


def _train_examples(config):
  data = config.data
  return Examples(
      'config.data.sources', tuple(data.sources), data.split,
      resolution=data.resolution, crop=transforms.CROPS[data.crop],
      filter_name=data.filter, scale=tuple(data.crop_scale),
      ratio=tuple(data.crop_ratio), flip=data.flip, skip=data.skip_unreadable)


def _eval_examples(config):
  evaluation = config.evaluation
  return Examples(
      'config.evaluation.source',
      (evaluation.source or config.data.sources[0],), evaluation.split,
      resolution=config.data.resolution, filter_name=evaluation.filter,
      crop=transforms.CROPS[evaluation.crop], skip=config.data.skip_unreadable)


def _train_dataset(examples, config, rows):
  """Batches of the given rows of each step, without end."""
  streams = [
      grain.MapDataset.range(numbers.start, numbers.stop)
      .shuffle(seed=_seed(config.seed, 1 + i)).repeat()
      for i, numbers in enumerate(examples.ranges)]
  numbers = streams[0] if len(streams) == 1 else grain.MapDataset.mix(
      streams, config.data.weights or None)
  augmented = numbers.random_map(examples.train, seed=_seed(config.seed, 0))
  rows = list(rows)
  return _Rows(augmented, rows, config.batch_size).batch(len(rows))


def _prefetch(batches, workers):
  """Iterates over batches, read ahead by threads or by worker processes."""
  threads = 1 if workers else max(1, min(16, os.cpu_count() - 1))
  read = batches.to_iter_dataset(grain.ReadOptions(threads, 2 * threads))
  if workers:
    if not flags.FLAGS.is_parsed():  # Workers inherit Grain's own flags.
      flags.FLAGS.mark_as_parsed()
    read = read.mp_prefetch(grain.MultiprocessingOptions(workers),
                            worker_init_fn=_hide_accelerators)
  return iter(read)


def _hide_accelerators(worker, workers):
  del worker, workers
  os.environ.update(JAX_PLATFORMS='cpu', CUDA_VISIBLE_DEVICES='')


def _numbered(first, count, position):
  return first + position if position < count else _PAD


def _note(batch, examples, unreadable):
  """Counts and names the records of a batch that gave way."""
  skipped = batch.pop('skipped')
  names = collections.Counter()
  for number, times in zip(batch['index'][skipped > 0], skipped[skipped > 0]):
    names.update(examples.skipped_names(int(number), int(times)))
  _report([name for name in names if name not in unreadable], 'unreadable')
  unreadable.update(names)
  return batch


def _report(names, what):
  for name in names:
    logging.warning('%s: %s', what, name)


def _seed(seed, purpose):
  return int(np.random.SeedSequence((seed, purpose)).generate_state(1)[0])
