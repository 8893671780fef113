"""From sources to sharded batches: a batch is a pure function of its step.

Row r of step t is record t * G + r of one seeded stream of record numbers,
which are shuffled anew each epoch, repeated, mixed by weight, then read and
augmented with a generator keyed by their place in the stream. Only then does
a process take the rows that its devices hold. (Taken earlier, augmentation
would depend on the number of processes, and their epochs would drift apart.)
So any number of processes and workers sees the same batches in the same
order, and the state of the data is the step: to resume is to slice.

G: rows of the global batch. B: rows that this process holds. T, H, W, C:
frames, height, width, channels.
"""

import bisect
import collections
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import jax
import numpy as np
from absl import flags, logging

from vitok.data import examples as examples_lib
from vitok.data import selection, transforms

Batch = dict[str, jax.Array]


def host_batch(config: Any, step: int,
               rows: Sequence[int] | None = None) -> dict[str, np.ndarray]:
  """The training batch of a step, or some of its rows, as numpy arrays."""
  rows = range(config.batch_size) if rows is None else rows
  batch = _train_dataset(selection.train_examples(config), config, rows)[step]
  return {key: transforms.to_float(x) if key == 'image' else x
          for key, x in batch.items() if key != 'skipped'}


def train_batches(config: Any, sharding: jax.sharding.Sharding,
                  start: int = 0) -> 'TrainBatches':
  """Training batches from step `start` on, without end.

  Args:
    config: a config that `check` has passed.
    sharding: of the leading axis of every array in a batch.
    start: step of the first batch.

  Returns:
    An iterator of batches on the devices: 'image' float32 (G, T, H, W, C) in
    [-1, 1], 'mask' bool (G,), 'index', 'group' and 'label' (-1: none) int32
    (G,). Sources of codes have 'code' float32 (G, L, c) and no image. Close it.
  """
  return TrainBatches(config, sharding, start)


def eval_batches(config: Any, sharding: jax.sharding.Sharding) -> 'EvalBatches':
  """The evaluation split as a sized iterable, padded with mask False.

  Args:
    config: a config that `check` has passed.
    sharding: of the leading axis of every array in a batch.

  Returns:
    An iterable of batches as in `train_batches`. G is the configured batch
    size, rounded up so that every device holds equally many rows.
  """
  return EvalBatches(config, sharding)


class TrainBatches(Iterator[Batch]):
  """Iterator over training batches; see `train_batches`.

  Attributes:
    unreadable: {name: times it gave way}, as far as this process has read.
  """

  def __init__(self, config, sharding, start):
    self._examples = selection.train_examples(config)
    self.unreadable = collections.Counter()
    self._place = _Place(sharding, config.batch_size)
    batches = _train_dataset(self._examples, config, self._place.rows)
    self._host = _read_ahead(batches[start:], config.data.workers)
    self._ready, self._count = collections.deque(), config.data.prefetch
    self._error = None

  def __next__(self) -> Batch:
    """The next batch.

    Raises:
      examples.UnreadableError: a record cannot be decoded. Every later call
        raises it again: neither an old batch nor a later one takes its place.
    """
    while self._error is None and len(self._ready) < self._count:
      try:
        batch = next(self._host)
        _report(batch, self._examples, self.unreadable)
        self._ready.append(self._place(batch))
      except Exception as error:
        self._error = error
    if not self._ready:
      raise self._error
    return self._ready.popleft()

  def close(self) -> None:
    """Ends the readers; there is no next batch."""
    self._error = ValueError('the iterator is closed')
    self._ready.clear()
    self._host.close()
    if self.unreadable:
      logging.warning('%d records were unreadable; others took their place %d '
                      'times', len(self.unreadable), self.unreadable.total())


class EvalBatches:
  """Iterable over the evaluation split; see `eval_batches`.

  Attributes:
    count: records, without padding.
    unreadable: as in `TrainBatches`.
  """

  def __init__(self, config, sharding):
    self._config, self._sharding = config, sharding
    self._examples = selection.eval_examples(config)
    self.unreadable = collections.Counter()
    numbers = selection.evaluated(self._examples, config)
    self.count = len(numbers)
    # Workers take seconds to start, at every evaluation.
    self._workers = config.data.workers if self.count >= 5000 else 0
    devices = sharding.num_devices
    parts = devices // sharding.shard_shape((devices,))[0]
    self._batch_size = -(-config.evaluation.batch_size // parts) * parts
    self._place = _Place(sharding, self._batch_size)
    padded = grain.MapDataset.range(len(self) * self._batch_size).map(
        functools.partial(_padded, numbers)).map(self._examples.evaluate)
    self._dataset = _batches(padded, self._place.rows, self._batch_size)

  def spread(self, count: int) -> 'EvalBatches':
    """Batches of so many examples, evenly spread over all; 0: of all."""
    config = self._config.copy_and_resolve_references()
    config.evaluation.count = count
    return EvalBatches(config, self._sharding)

  def __len__(self) -> int:
    return -(-self.count // self._batch_size)

  def __iter__(self) -> Iterator[Batch]:
    host = _read_ahead(self._dataset, self._workers)
    try:
      for batch in host:
        _report(batch, self._examples, self.unreadable)
        yield self._place(batch)
    finally:
      host.close()
      if self.unreadable:
        logging.warning('%d of %d records were unreadable and are left out',
                        len(self.unreadable), self.count)


class _Place:
  """Places the rows that this process holds on its devices.

  Pixels travel as uint8, a quarter of the bytes, and become float there.
  """

  def __init__(self, sharding, batch_size):
    self._sharding, self._batch_size = sharding, batch_size
    held = sharding.addressable_devices_indices_map((batch_size,)).values()
    self.rows = sorted({row for index in held
                        for row in range(batch_size)[index[0]]})

  def __call__(self, batch):
    placed = {key: self._array(x) for key, x in batch.items()
              if key != 'skipped'}
    if 'image' in placed:
      placed['image'] = _to_float(self._sharding)(placed['image'])
    return placed

  def _array(self, x):
    def part(index):
      rows = range(self._batch_size)[index[0]]
      first = bisect.bisect_left(self.rows, rows.start)
      return x[first:first + len(rows)]
    return jax.make_array_from_callback(
        (self._batch_size, *x.shape[1:]), self._sharding, part)


class _Rows(grain.MapDataset):
  """Some rows of each batch of a stream, in the order of batches and rows."""

  def __init__(self, stream, rows, batch_size):
    super().__init__(stream)
    self._rows, self._batch_size = list(rows), batch_size

  def __len__(self):
    return len(self._parent) // self._batch_size * len(self._rows)

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    step, row = divmod(index, len(self._rows))
    return self._parent[step * self._batch_size + self._rows[row]]


def _train_dataset(examples, config, rows):
  """Rows of every training batch, by step, without end.

  Grain makes whole numbers of the weights, right to 1% of each.
  """
  streams = [_shuffled(numbers, _seed(config.seed, 1 + i)).repeat()
             for i, numbers in enumerate(examples.ranges)]
  stream = streams[0] if len(streams) == 1 else grain.MapDataset.mix(
      streams, tuple(config.data.weights) or None)
  stream = stream.random_map(examples.train, seed=_seed(config.seed, 0))
  return _batches(stream, rows, config.batch_size)


def _shuffled(numbers, seed):
  """Numbers in another order each epoch."""
  ordered = grain.MapDataset.range(numbers.start, numbers.stop)
  # Grain draws from at least 2**16 places until it hits one that exists: 11 ms
  # a number for 6 records, 8 us for 5000.
  if len(numbers) < 5000:
    return _Permuted(ordered, seed)
  return ordered.shuffle(seed=seed)


class _Permuted(grain.MapDataset):
  """A short dataset, with a drawn permutation for each epoch."""

  def __init__(self, parent, seed):
    super().__init__(parent)
    self._epoch_seed = seed

  def __len__(self):
    return len(self._parent)

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    epoch, place = divmod(index, len(self))
    return self._parent[
        _permutation(self._epoch_seed, epoch, len(self))[place]]


@functools.lru_cache(maxsize=64)
def _permutation(seed, epoch, count):
  return np.random.default_rng((seed, epoch)).permutation(count).tolist()


def _batches(stream, rows, batch_size):
  return _Rows(stream, rows, batch_size).batch(len(rows))


def _seed(seed, purpose):
  """Seeds of different purposes have nothing in common."""
  return int(np.random.SeedSequence((seed, purpose)).generate_state(1)[0])


def _read_ahead(batches, workers):
  """Iterates over batches that threads or worker processes make ahead."""
  threads = 1 if workers else max(1, min(16, os.cpu_count() - 1))
  ahead = batches.to_iter_dataset(grain.ReadOptions(threads, 2 * threads))
  if workers:
    if not flags.FLAGS.is_parsed():  # Workers are sent Grain's own flags.
      flags.FLAGS.mark_as_parsed()
    ahead = ahead.mp_prefetch(grain.MultiprocessingOptions(workers),
                              worker_init_fn=_start_worker)
  return iter(ahead)


def _start_worker(worker, workers):
  """A worker leaves accelerators and signals to its parent and ends with it."""
  del worker, workers
  os.environ.update(JAX_PLATFORMS='cpu', CUDA_VISIBLE_DEVICES='')
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)

  def end():
    multiprocessing.parent_process().join()
    os._exit(1)
  threading.Thread(target=end, daemon=True).start()


def _padded(numbers, position):
  return numbers[position] if position < len(numbers) else examples_lib.PAD


@functools.cache
def _to_float(sharding):
  return jax.jit(functools.partial(transforms.to_float, xp=jax.numpy),
                 out_shardings=sharding)


def _report(batch, examples, unreadable):
  """Counts and names the records that gave way in a batch."""
  for row in np.flatnonzero(batch['skipped']):
    for name in examples.names_skipped(*(
        batch[key][row].item() for key in ('index', 'mask', 'skipped'))):
      if name not in unreadable:
        logging.warning('unreadable, gave way: %s', name)
      unreadable[name] += 1
