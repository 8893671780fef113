"""`init_from`: start from another run's parameters, or a part of them."""

from collections.abc import Callable
from typing import Any

import jax

from vitok import errors
from vitok.interop import saved
from vitok.tasks import adversarial, base


def from_run(state: base.State, config: Any, say: Callable[[str], None]
             ) -> tuple[base.State, dict[str, Any]]:
  """Replaces fresh parameters by those of `config.init_from`.

  A parameter is taken if path and shape agree; `say` tells what matched and
  what did not. Moving averages start from the same values. Taken is the
  source's own moving average where it keeps one: `vitok.load`, evaluations and
  a generator's tokenizer read that one, so its codes are those that exist.

  Args:
    state: freshly initialised.
    config: `init_from` is a workdir or the directory of one checkpoint,
      `init_subtree` '' or a path of parameters: 'autoencoder/encoder'.
    say: receives the account of what was taken.

  Returns:
    The state, and where it came from: {'workdir', 'subtree', 'step',
    'parameters' ('moving average' or 'trained'), 'taken'}.

  Raises:
    errors.InputError: there is no such checkpoint, nothing matches, or what
      stage 2 does not train was not taken as a whole.
  """
  source, subtree = config.init_from, config.init_subtree
  try:
    stored, step, kind = _read(source, subtree)
  except errors.InputError as error:
    key, value = (('config.init_subtree', subtree) if error.key == 'subtree'
                  else ('config.init_from', source))
    raise errors.InputError(key, value, error.reason,
                            error.nearest) from error
  stored = {'/'.join(part for part in (subtree, path) if part): value
            for path, value in stored.items()}
  taken, other_shape = set(), set()

  def replace(path, leaf):
    name = saved.leaf_name(path)
    if name not in stored:
      return leaf
    if stored[name].shape != leaf.shape:
      other_shape.add(f'{name} {stored[name].shape} for {leaf.shape}')
      return leaf
    taken.add(name)
    return jax.device_put(stored[name].astype(leaf.dtype), leaf.sharding)

  params, ema = (jax.tree_util.tree_map_with_path(replace, tree)
                 for tree in (state.params, state.ema))
  if not taken:
    raise errors.InputError(
        'config.init_from', source,
        f'none of its {len(stored)} parameters fits the model'
        + (f': {min(other_shape)}' if other_shape else ''))
  names = saved.flat(state.params)
  _check_frozen(config, sorted(set(names) - taken), other_shape)
  wanted = {name for name in names
            if f'{name}/'.startswith(f'{subtree}/' if subtree else '')}
  fresh, unused = sorted(wanted - taken), sorted(set(stored) - taken)
  say(f'init_from {source}, step {step}, {kind} parameters: {len(taken)} of '
      f'{len(wanted)} parameters taken; left fresh: {fresh or "none"}; of '
      f'another shape: {sorted(other_shape) or "none"}; not in this model: '
      f'{unused or "none"}')
  return state.replace(params=params, ema=ema), {
      'workdir': source, 'subtree': subtree, 'step': step,
      'parameters': kind, 'taken': len(taken)}


def _read(source, subtree):
  """({path below the subtree: value}, step, which parameters these are)."""
  params, _, step = saved.restore_params(source, subtree)
  stored = saved.flat(params)
  try:
    averages, _, _ = saved.restore_params(source, subtree, step, 'ema')
  except errors.InputError:  # None is kept, or none of this subtree.
    return stored, step, 'trained'
  # A discriminator has no average beside that of its generator.
  return stored | saved.flat(averages), step, 'moving average'


def _check_frozen(config, fresh, other_shape):
  """Refuses to leave random what no update will change.

  Args:
    config: of the run.
    fresh: names of the parameters that were not taken.
    other_shape: which of them, in words, the source has in another shape.
  """
  if config.task != 'adversarial' or config.adversarial.trained != 'decoder':
    return
  frozen = tuple(f'{base.AUTOENCODER}/{part}/' for part in adversarial.FROZEN)
  lost = [name for name in fresh if name.startswith(frozen)]
  if lost:
    key = 'init_subtree' if config.init_subtree else 'init_from'
    odd = [words for words in sorted(other_shape) if words.startswith(frozen)]
    raise errors.InputError(
        f'config.{key}', config[key],
        f'lacks {len(lost)} parameters that stage 2 leaves as they are: '
        f'{", ".join((odd or lost)[:3])}',
        base.AUTOENCODER if config.init_subtree else None)
