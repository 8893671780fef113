"""AdamW with the paper's schedule, in groups, exact per layer inside a scan.

Paper (arXiv 2501.09755, appendix A): AdamW (.9, .95), decay 1e-4, linear
warm-up, cosine; the peak learning rate grows in proportion to the batch.

Which parameters decay: those whose last name is `kernel`, the matrices of
linear maps. Biases, norms' scales, positions, tokens and codebooks do not.
(A rule by rank would be wrong: layers are stacked, so a bias has two axes.)

Groups: each is a dictionary with `match`, a regular expression that must match
the whole path (`encoder/blocks/.*`), and any of

  learning_rate: a factor on the schedule.
  weight_decay: in place of the common one (still for kernels only).
  frozen: True keeps the values, and spends no optimizer memory on them.
  layer_decay: layer i of a stack of L learns with factor decay**(L - 1 - i).

The first group that matches a parameter has it.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vitok import errors
from vitok.training import mesh as mesh_lib


def schedule(
    config: Any, batch_size: int, total_steps: jax.typing.ArrayLike,
    learning_rate: jax.typing.ArrayLike | None = None,
    key: str = 'config.optimizer',
) -> Callable[[jax.typing.ArrayLike], jax.Array]:
  """The learning rate of the update that leaves `step` updates behind it.

  The first update (step 0) already learns, update `warmup * total_steps` has
  the peak, the last one `min_learning_rate`.

  Args:
    config: `config.optimizer`. The peak is `learning_rate * batch_size /
      reference_batch`, or `learning_rate` where `reference_batch` is 0; so is
      the last value, `min_learning_rate`.
    batch_size: examples per update.
    total_steps: updates of the run. It and `learning_rate` may be traced, so
      that runs of other lengths and rates share a compiled step.
    learning_rate: in place of the config's.
    key: dotted config key of `config`, for errors.

  Raises:
    InputError: the schedule is unknown, or would climb to its minimum.
  """
  errors.one_of(f'{key}.schedule', config.schedule, ('cosine', 'constant'))
  share = batch_size / config.reference_batch if config.reference_batch else 1
  if (config.schedule == 'cosine'
      and config.min_learning_rate > config.learning_rate):
    raise errors.InputError(
        f'{key}.min_learning_rate', config.min_learning_rate,
        f'is above the peak, {key}.learning_rate='
        f'{config.learning_rate:g}', f'{config.learning_rate:g}')
  rate = config.learning_rate if learning_rate is None else learning_rate
  peak, floor = rate * share, config.min_learning_rate * share

  def at(step):
    warmup = jnp.round(config.warmup * total_steps)
    count = jnp.asarray(step + 1, jnp.float32)
    climb = peak * jnp.minimum(count / jnp.maximum(warmup, 1), 1)
    if config.schedule == 'constant':
      return climb
    done = (count - warmup) / jnp.maximum(total_steps - warmup, 1)
    fall = floor + (peak - floor) * 0.5 * (
        1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1)))
    return jnp.where(count < warmup, climb, fall)

  return at


def build(
    config: Any, batch_size: int, total_steps: jax.typing.ArrayLike,
    params: Any, learning_rate: jax.typing.ArrayLike | None = None,
    key: str = 'config.optimizer',
) -> optax.GradientTransformation:
  """Clip, AdamW, groups, schedule.

  Args:
    config: `config.optimizer`.
    batch_size: examples per update.
    total_steps: updates of the run.
    params: abstract or real parameters, in the boxes that name their axes (a
      stack of layers is known by its axis name, never by its shape).
    learning_rate: in place of the config's, see `schedule`.
    key: dotted config key of `config`, for errors.

  Returns:
    A transformation for such parameters, boxed (`init`) or not (`update`, which
    needs `params`).

  Raises:
    InputError: see `schedule`; a group is not as described above, gets no
      parameter, or its `layer_decay` no stack of layers; all are frozen.
  """
  labels, factors, decays = _plan(config, params, f'{key}.groups')
  adam = optax.scale_by_adam(b1=config.b1, b2=config.b2)
  if config.clip:
    adam = optax.chain(optax.clip_by_global_norm(config.clip), adam)

  def decay_and_scale(updates, params):
    return jax.tree.map(
        lambda update, param, factor, decay: factor * (update + decay * param),
        updates, params, factors, decays)

  return optax.chain(
      optax.partition(
          {'trained': adam, 'frozen': optax.set_to_zero()}, labels),
      optax.stateless(decay_and_scale),
      optax.scale_by_learning_rate(
          schedule(config, batch_size, total_steps, learning_rate, key)),
  )


# Field of a group -> (lowest, highest), both included.
_NUMBERS = {'learning_rate': (0, 1e3), 'weight_decay': (0, 1e3),
            'layer_decay': (1e-9, 1)}


def _check(group, key):
  """Refuses a group that is not as the top of the file says."""
  if not isinstance(group.get('match'), str):
    raise errors.InputError(key, group, "has no text for 'match'",
                            "({'match': 'encoder/.*', 'frozen': True},)")
  for field, value in group.items():
    errors.one_of(key, field, ('match', 'frozen', *_NUMBERS))
    if field == 'frozen' and not isinstance(value, bool):
      raise errors.InputError(key, group, f'frozen is {value!r}', True)
    if field in _NUMBERS:
      low, high = _NUMBERS[field]
      if type(value) not in (int, float) or not low <= value <= high:
        raise errors.InputError(
            key, group, f'{field} is not a number from {low:g} to {high:g}',
            high if field == 'layer_decay' else low)
  try:
    re.compile(group['match'])
  except (re.error, OverflowError) as error:
    raise errors.InputError(
        key, group['match'], f'is not a regular expression: {error}',
        "'encoder/.*'") from error


def _plan(config, params, key):
  """Per parameter: 'trained' or 'frozen', rate factor, weight decay."""
  for group in config.groups:
    _check(group, key)
  flat, treedef = jax.tree_util.tree_flatten_with_path(
      params, is_leaf=mesh_lib.is_boxed)
  paths = [jax.tree_util.keystr(path, simple=True, separator='/')
           for path, _ in flat]
  names = [mesh_lib.axis_names(leaf) for _, leaf in flat]
  owners = [next((i for i, group in enumerate(config.groups)
                  if re.fullmatch(group['match'], path)), None)
            for path in paths]
  for i, group in enumerate(config.groups):
    mine = [axes for axes, owner in zip(names, owners, strict=True)
            if owner == i]
    if not mine:
      raise errors.InputError(
          key, group['match'],
          'matches no parameter that an earlier group left',
          errors.nearest(group['match'], paths))
    if 'layer_decay' in group and not any(
        mesh_lib.LAYERS in axes for axes in mine):
      raise errors.InputError(
          key, group['match'],
          'has layer_decay but matches no stack of layers', 'encoder/blocks/.*')
  plan = []
  for (_, leaf), path, axes, owner in zip(
      flat, paths, names, owners, strict=True):
    group = {} if owner is None else config.groups[owner]
    frozen = group.get('frozen', False)
    factor = 0.0 if frozen else group.get('learning_rate', 1.0)
    decay = group.get('weight_decay', config.weight_decay)
    if 'layer_decay' in group and mesh_lib.LAYERS in axes:
      shape = [size if axis == mesh_lib.LAYERS else 1 for size, axis in zip(
          jax.tree.leaves(leaf)[0].shape, axes, strict=True)]
      height = np.arange(max(shape))[::-1].reshape(shape)  # Above layer i.
      factor = np.float32(factor * group['layer_decay'] ** height)
    plan.append((
        'frozen' if frozen else 'trained', factor,
        decay if re.fullmatch('(.*/)?kernel', path) else 0.0))
  if all(label == 'frozen' for label, _, _ in plan):
    raise errors.InputError(key, config.groups, 'freeze every parameter')
  return [treedef.unflatten(column) for column in zip(*plan, strict=True)]
