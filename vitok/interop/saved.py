"""Reads the checkpoints of a run: what is whole, and any part of it.

`training.checkpoints` writes them and says how they lie on disk. Programs that
only read, and tasks that hold another run's network, need no more than this.
"""

import json
import os
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from vitok import errors
from vitok.interop import manifest, weights

DIRECTORY = 'checkpoints'
JOURNAL = 'UNFINISHED.json'
_HALF = 'orbax-checkpoint-tmp'  # In the name of what Orbax has not committed.


class CheckpointError(RuntimeError):
  """A checkpoint could not be written, or none on disk is whole."""



def restore_params(path: epath.PathLike, subtree: str = '',
                   step: int | None = None, field: str = 'params'
                   ) -> tuple[Any, dict[str, Any], int]:
  """Reads a part of a checkpoint, and only that, into numpy arrays.

  Args:
    path: a workdir, or the directory of one checkpoint.
    subtree: '' or a path below the field: 'autoencoder/encoder'.
    step: this checkpoint; by default the newest whole one.
    field: of the state: 'params', 'ema', 'stats'.

  Returns:
    (nested dict of numpy arrays, meta, step).

  Raises:
    errors.InputError: no such checkpoint, field or subtree.
    CheckpointError: there are checkpoints, and none is whole.
  """
  directory, named = _locate(path)
  step = step if named is None else named
  step = newest_whole(directory, step, (field, 'meta'), set())
  if step is None:
    raise errors.InputError('checkpoint', str(path), 'holds no checkpoint')
  path = directory / str(step)
  fields = fields_of(path)
  if field not in fields:
    raise errors.InputError('checkpoint', field, f'is not saved in {path}',
                            errors.nearest(field, fields))
  stored = flat(metadata(path, [field]))
  prefix = '/'.join(part for part in (field, subtree) if part)
  wanted = {name: leaf for name, leaf in stored.items()
            if f'{name}/'.startswith(f'{prefix}/')}
  if not wanted:
    paths = {name.split('/', 1)[1].rsplit('/', 1)[0] for name in stored}
    raise errors.InputError('subtree', subtree, f'is not in {path}',
                            errors.nearest(subtree, sorted(paths)))
  tree = read(path, weights.nest(wanted), numpy=True)
  for part in prefix.split('/'):
    tree = tree[part]
  return tree, read_meta(path), step


def unfinished(directory: epath.PathLike) -> set[str]:
  """Names of what is half written or half deleted in `directory`."""
  directory = epath.Path(directory)
  try:
    journal = json.loads((directory / JOURNAL).read_text())
  except (FileNotFoundError, ValueError):
    journal = []
  return {path.name for path in directory.iterdir() if _HALF in path.name or (
      path.name.isdigit() and int(path.name) in journal
      and not (path / manifest.NAME).exists())}


def absolute(path: epath.PathLike) -> epath.Path:
  """As Orbax takes it; an object store's path is never relative."""
  path = os.fspath(path)
  return epath.Path(path if '://' in path else os.path.abspath(path))


def exist(path: epath.PathLike) -> bool:
  """Whether `path`, as `restore_params` takes it, holds any, whole or not."""
  directory, step = _locate(path)
  steps = steps_of(directory)
  return bool(steps) if step is None else step in steps


def workdir_of(path: epath.PathLike) -> epath.Path:
  """The run's folder, of `path` as `restore_params` takes it."""
  return _locate(path)[0].parent


def _locate(path):
  """The folder of the checkpoints, and the step if `path` is one of them."""
  path = absolute(path)
  if path.name.isdigit() and path.parent.name == DIRECTORY:
    return path.parent, int(path.name)
  return path / DIRECTORY, None


def newest_whole(directory, step, parts, damaged):
  """The newest step whose files are as written; adds others to `damaged`."""
  steps = steps_of(directory)
  if step is not None:
    if step not in steps:
      raise errors.InputError('checkpoint', step, f'is not in {directory}',
                              errors.nearest(step, steps))
    steps = [step]
  reasons = []
  for step in reversed(steps):
    try:
      manifest.verify(directory / str(step), parts)
      return step
    except manifest.Damaged as reason:
      damaged.add(step)
      reasons.append(f'{directory / str(step)}: {reason}')
      logging.warning('damaged checkpoint skipped: %s', reasons[-1])
  if reasons:
    raise CheckpointError('no whole checkpoint: ' + '; '.join(reasons))
  return None


def steps_of(directory):
  """Steps on disk in ascending order, without those still being written."""
  if not directory.exists():
    return []
  half = unfinished(directory)
  return sorted(int(path.name) for path in directory.iterdir()
                if path.name.isdigit() and path.name not in half)



def fields_of(path):
  """Names of the state's fields that a checkpoint holds."""
  return sorted(item.name for item in path.iterdir()
                if item.is_dir() and item.name != 'meta')


def metadata(path, fields):
  """Nested dict of Orbax's array metadata (shape, dtype), by field."""
  handler = ocp.PyTreeCheckpointHandler()
  return {name: handler.metadata(path / name).tree[name] for name in fields}


def read(path, tree, numpy=False):
  """Arrays of a nested dict of descriptions, read from the checkpoint."""
  def restore_args(leaf):
    if numpy:
      return ocp.RestoreArgs(restore_type=np.ndarray)
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(
        jax.local_devices()[0])
    return ocp.ArrayRestoreArgs(
        sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype)
  reader = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
  items = {
      name: ocp.args.PyTreeRestore(
          {name: item}, {name: jax.tree.map(restore_args, item)},
          partial_restore=True)
      for name, item in tree.items()}
  restored = reader.restore(path, ocp.args.Composite(**items))
  return {name: restored[name][name] for name in items}


def read_meta(path):
  reader = ocp.Checkpointer(ocp.CompositeCheckpointHandler())
  return reader.restore(
      path, ocp.args.Composite(meta=ocp.args.JsonRestore()))['meta']


def leaf_name(key_path):
  return jax.tree_util.keystr(key_path, simple=True, separator='/')


def flat(tree):
  """{'params/encoder/kernel': leaf, ...}."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {leaf_name(path): leaf for path, leaf in leaves}


def nested(tree):
  """Plain nested dicts, whatever the containers of `tree` are."""
  return weights.nest(flat(tree))
