"""`init_from`: start from another run's parameters, or a part of them."""

from collections.abc import Callable
from typing import Any

import jax

from vitok import errors
from vitok.tasks import base
from vitok.training import checkpoints


def from_run(state: base.State, config: Any,
             say: Callable[[str], None]) -> base.State:
  """Replaces fresh parameters by those of `config.init_from`.

  A parameter is taken if path and shape agree; `say` tells what matched and
  what did not. Moving averages start from the same values.

  Args:
    state: freshly initialised.
    config: `init_from` is a workdir or the directory of one checkpoint,
      `init_subtree` '' or a path of parameters: 'autoencoder/encoder'.

  Raises:
    errors.InputError: there is no such checkpoint, or nothing matches.
  """
  prefix = config.init_subtree
  stored, _, step = checkpoints.restore_params(config.init_from, prefix)
  stored = {'/'.join(part for part in (prefix, path) if part): value
            for path, value in _flat(stored).items()}
  taken, other_shape = [], []

  def replace(tree):
    def one(path, leaf):
      name = _name(path)
      if name not in stored:
        return leaf
      if stored[name].shape != leaf.shape:
        other_shape.append(f'{name} {stored[name].shape} for {leaf.shape}')
        return leaf
      taken.append(name)
      return jax.device_put(stored[name].astype(leaf.dtype), leaf.sharding)
    return jax.tree_util.tree_map_with_path(one, tree)

  params = replace(state.params)
  wanted = [name for name in _flat(state.params) if name.startswith(prefix)]
  if not taken:
    raise errors.InputError(
        'config.init_from', config.init_from,
        f'none of its {len(stored)} parameters fits the model'
        + (f': {other_shape[0]}' if other_shape else ''))
  fresh = sorted(set(wanted) - set(taken))
  unused = sorted(set(stored) - set(taken))
  say(f'init_from {config.init_from}, step {step}: '
      f'{len(wanted) - len(fresh)} of {len(wanted)} parameters taken; '
      f'left fresh: {fresh or "none"}; of another shape: '
      f'{other_shape or "none"}; not in this model: {unused or "none"}')
  return state.replace(params=params, ema=replace(state.ema))


def _name(path):
  return jax.tree_util.keystr(path, simple=True, separator='/')


def _flat(tree):
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {_name(path): leaf for path, leaf in leaves}
