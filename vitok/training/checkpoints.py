"""Checkpoints: written in the background, verified before they are trusted.

Layout of `<workdir>/checkpoints`:

  <step>/             one directory per checkpoint, written by Orbax
    params/ opt/ ...  one item per field of the state, so that a reader of the
                      parameters neither reads nor verifies the optimizer
    meta/             JSON: config hash, clock, samples seen, versions, ...
    manifest.json     ours, last and atomically: SHA-256 of every file
  UNFINISHED.json     steps being written or deleted at this moment

A directory without a manifest is half a checkpoint if UNFINISHED.json names
it (its writer was killed: removed by the next run), and a damaged one if not.
A checkpoint is deleted only when a newer one has its manifest, manifest first.
So a run without any whole checkpoint never completed one, or was damaged: the
second is an error, never a silent fresh start.
"""

import json
import threading
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from vitok import errors, files
from vitok.interop import manifest, saved


class TreeMismatchError(ValueError):
  """A whole checkpoint holds another tree than the program's state."""


class Checkpoints:
  """The checkpoints of the one run that writes to `workdir`.

  Every process calls every method, in the same order, but for `close`. Opening
  removes what a killed writer left, so programs that only read use
  `restore_params`.
  """

  def __init__(self, workdir: epath.PathLike, config: Any):
    """Opens, and cleans up after a killed run.

    Args:
      workdir: of the run; local or `gs://`.
      config: fields `every` (steps; 0: only when asked), `keep` (the newest
        so many), `keep_every` (and each multiple of this; 0: none).
    """
    self.directory = saved.absolute(workdir) / saved.DIRECTORY
    self._config = config
    self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
    self._thread, self._error = None, None
    self._newest = None  # The step that was saved or restored last.
    self._damaged = set()
    self._journal = self.directory / saved.JOURNAL
    if jax.process_index() == 0:
      self.directory.mkdir(parents=True, exist_ok=True)
      self._clean_up()

  def should_save(self, step: int) -> bool:
    """Whether the cadence asks for step; raises a background save's error."""
    if self._error is not None:  # No barrier here: processes differ in time.
      self._join()
    every = self._config.every
    return bool(every and step and step % every == 0 and step != self._newest)

  def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
    """Copies `state` off the devices, then writes it in the background.

    The state may be donated as soon as this returns. A step that was just
    saved or restored is not written again.

    Args:
      step: names the checkpoint.
      state: any pytree of arrays whose top level has names.
      meta: JSON values; `step` is added.

    Raises:
      CheckpointError: this save, or the one before it, failed; the message
        names the path, and every earlier checkpoint is untouched.
    """
    self.wait()
    step = int(step)
    if step == self._newest:
      return
    path = self.directory / str(step)
    items = {name: ocp.args.PyTreeSave({name: tree})
             for name, tree in saved.nested(state).items()}
    items['meta'] = ocp.args.JsonSave({**meta, 'step': step})
    try:
      if jax.process_index() == 0:
        if path.exists():  # Damaged, or of a future that was left behind.
          if self._newest is None:
            raise FileExistsError('it exists, and no checkpoint was restored')
          self._delete([step])
        self._write_journal([step])
      with jax.transfer_guard('allow'):
        self._orbax.save(path, ocp.args.Composite(**items))
    except Exception as error:
      self._fail(path, error)
    self._newest = step
    self._thread = threading.Thread(
        target=self._finish, args=(path,), name='checkpoint')
    self._thread.start()

  def wait(self) -> None:
    """Returns when the last save is whole on disk, or raises its error."""
    if self._thread is not None:
      self._join()
      multihost_utils.sync_global_devices('checkpoint')  # The manifest of 0.

  def close(self) -> None:
    """Ends this process's part of the last save; frees Orbax's threads.

    It meets no other process: where one fails, the others stand elsewhere,
    and a barrier would hang them all. A run that ends well calls `wait` first.

    Raises:
      CheckpointError: the last save failed.
    """
    try:
      self._join()
    finally:
      self._orbax.close()

  def restore(self, abstract_state: Any, step: int | None = None
              ) -> tuple[Any, dict[str, Any], int] | None:
    """The newest whole checkpoint, laid out as `abstract_state` says.

    Args:
      abstract_state: the state with `jax.ShapeDtypeStruct` leaves that carry
        shardings: of any mesh and number of processes.
      step: this checkpoint and no other.

    Returns:
      (state, meta, step), or `None` if the run has never saved one.

    Raises:
      CheckpointError: there are checkpoints, and none is whole.
      TreeMismatchError: names the first paths that differ.
    """
    self.wait()
    with jax.transfer_guard('allow'):
      chosen = self._choose(step)
      if chosen is None:
        return None
      path = self.directory / str(chosen)
      _check_tree(path, abstract_state)
      restored = saved.flat(saved.read(path, saved.nested(abstract_state)))
    leaves, treedef = jax.tree_util.tree_flatten_with_path(abstract_state)
    state = treedef.unflatten(
        [restored[saved.leaf_name(key)] for key, _ in leaves])
    self._newest = chosen
    return state, saved.read_meta(path), chosen

  def _choose(self, step):
    """Process 0 verifies; all processes take or refuse what it found."""
    chosen, failure = None, None
    if jax.process_index() == 0:
      try:
        chosen = saved.newest_whole(self.directory, step, (), self._damaged)
      except (saved.CheckpointError, errors.InputError) as error:
        failure = error
    found, failed = multihost_utils.broadcast_one_to_all(
        np.asarray([-1 if chosen is None else chosen, failure is not None],
                   np.int32))
    if failed:
      raise failure or saved.CheckpointError(
          f'{self.directory}: see process 0')
    return int(found) if found >= 0 else None

  def _finish(self, path):
    """In the background: Orbax commits, then our manifest, then deletions."""
    try:
      self._orbax.wait_until_finished()  # All processes have written.
      if jax.process_index() == 0:
        manifest.write(path)
        self._prune(int(path.name))
    except BaseException as error:  # pylint: disable=broad-except
      self._error = error

  def _join(self):
    """Returns when the thread of the last save has ended; raises its error."""
    if self._thread is None:
      return
    self._thread.join()
    self._thread = None
    error, self._error = self._error, None
    if error is not None:
      self._fail(self.directory / str(self._newest), error)

  def _fail(self, path, error):
    """Frees the half checkpoint's space and raises with its path."""
    self._newest = None
    if jax.process_index() == 0:
      try:
        self._clean_up()
      except OSError as again:
        logging.warning('%s could not be removed: %s', path, again)
    raise saved.CheckpointError(f'could not save {path}: {error}') from error

  def _prune(self, newest):
    """Deletes what the keep-policies let go, now that `newest` is whole."""
    every, keep = self._config.keep_every, max(1, self._config.keep)
    steps = saved.steps_of(self.directory)
    past = [s for s in steps if s <= newest and s not in self._damaged]
    kept = set(past[-keep:]) | {s for s in past if every and s % every == 0}
    self._delete([s for s in steps if s not in kept])

  def _delete(self, steps):
    """Manifest first, so that a kill leaves nothing that looks whole."""
    self._write_journal(steps)
    for step in steps:
      path = self.directory / str(step)
      if (path / manifest.NAME).is_file():  # A damaged one may be a folder.
        (path / manifest.NAME).unlink()
      path.rmtree()
      self._damaged.discard(step)
    self._write_journal([])

  def _write_journal(self, steps):
    files.write_text(self._journal, json.dumps(sorted(steps)))

  def _clean_up(self):
    """Removes what a killed (or failed) save or deletion left."""
    for name in saved.unfinished(self.directory):
      logging.warning('removing the unfinished checkpoint %s',
                      self.directory / name)
      (self.directory / name).rmtree()
    self._journal.unlink(missing_ok=True)


def _check_tree(path, abstract_state):
  """Compares names, shapes and types before Orbax is asked for arrays."""
  def described(tree):
    return {name: f'{tuple(leaf.shape)} {np.dtype(leaf.dtype).name}'
            for name, leaf in saved.flat(tree).items()}
  held = described(saved.metadata(path, saved.fields_of(path)))
  wanted = described(saved.nested(abstract_state))
  different = [
      f'{name}: {held.get(name, "absent")} in the checkpoint, '
      f'{wanted.get(name, "absent")} in the program'
      for name in sorted(held | wanted)
      if held.get(name) != wanted.get(name)]
  if different:
    more = f'; and {len(different) - 8} more' if len(different) > 8 else ''
    raise TreeMismatchError(
        f'{path} holds another tree: {"; ".join(different[:8])}{more}')
