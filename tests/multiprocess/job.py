"""What goes wrong in the processes of a run, and its config."""

import os
import signal
import time
from typing import Any

import jax
import numpy as np

from tests import runs
from vitok import data

# Ten evaluation batches of this length: JAX looks for a SIGTERM once a second.
_PAUSE = 0.4


def config(replica: int, fsdp: int, tensor: int, **changes: Any) -> Any:
  """A tiny run on a mesh, with all parameters that can be split in parts."""
  return runs.tiny(**{
      'mesh__replica': replica, 'mesh__fsdp': fsdp, 'mesh__tensor': tensor,
      'sharding__fsdp_min_size': 64, 'model__encoder__heads': 2,
      'model__decoder__heads': 2, 'evaluation__batch_size': 8,
      'evaluation__count': 80, **changes})


def recorded(drawn: dict[int, list[int]], fail_at: int | None = None) -> type:
  """A `data.train_batches` that tells what it drew.

  Args:
    drawn: filled with this process's record numbers, by step.
    fail_at: the step whose batch cannot be read.
  """
  original = data.train_batches

  class Batches:
    def __init__(self, config, sharding, start):
      self._inner, self._step = original(config, sharding, start=start), start

    def __next__(self):
      if self._step == fail_at:
        raise data.UnreadableError('a.jpg')
      batch = next(self._inner)
      shards = {shard.index[0].start: np.asarray(shard.data)
                for shard in batch['index'].addressable_shards}
      drawn[self._step] = np.concatenate(
          [shards[row] for row in sorted(shards)]).tolist()
      self._step += 1
      return batch

    def close(self):
      self._inner.close()
  return Batches


def interrupted(signalled: bool) -> Any:
  """A slow `data.eval_batches`; its second batch sends a SIGTERM.

  Args:
    signalled: whether this process is the one that gets it.
  """
  original = data.eval_batches

  def batches(*arguments):
    for number, batch in enumerate(original(*arguments)):
      if number == 1 and signalled:
        os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(_PAUSE)
      yield batch
  return batches


def broken(taken: list[int], step: int, here: bool) -> Any:
  """A `data.train_batches` with a batch that holds NaN at its first visit.

  Args:
    taken: filled with the steps of the batches, in the order of their visits.
    step: of that batch.
    here: whether it does in the rows that this process has read.
  """
  original = data.train_batches

  def batches(config, sharding, start):
    inner = original(config, sharding, start=start)
    try:
      for number, batch in enumerate(inner, start):
        if here and number == step and step not in taken:
          image = batch['image']
          batch = dict(batch, image=jax.make_array_from_single_device_arrays(
              image.shape, image.sharding, [
                  shard.data * np.nan for shard in image.addressable_shards]))
        taken.append(number)
        yield batch
    finally:
      inner.close()
  return batches
