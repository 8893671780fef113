"""One update: players' gradients in, a new state out, all or nothing.

Everything that happens to a gradient happens here: accumulation, clipping and
optimizer (`optimizers.build`), moving averages, the finite check and the
commit. The step is one pure function, compiled once; what changes between the
units of a sweep (seed, length, learning rate) is an argument, not a constant,
so that they share the compiled program.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from vitok import errors
from vitok.tasks import base
from vitok.training import optimizers

PyTree = Any


@flax.struct.dataclass
class Run:
  """What differs between runs that share a compiled step.

  Attributes:
    key: typed PRNG key of the run's seed.
    total_steps: float32 scalar, length of the learning-rate schedule.
    learning_rate: float32 scalar, `config.optimizer.learning_rate`.
  """
  key: jax.Array
  total_steps: jax.Array
  learning_rate: jax.Array


def init(task: base.Task, config, run: Run) -> base.State:
  """The state of step 0, with Linen's boxes around the parameters."""
  # Streams of the run's key: 0 init, 1 steps, 2 evaluation, 3 rewinds.
  params, stats = task.init(jax.random.fold_in(run.key, 0))
  opt, ema = {}, {}
  for player in task.players:
    mine = params.get(player.name)
    opt[player.name] = ema[player.name] = None
    if mine is not None:
      opt[player.name] = _transform(config, run, player, mine).init(mine)
    if player.ema_decay:  # A copy: donated buffers may not be shared.
      ema[player.name] = jax.tree.map(jnp.copy, mine)
  return base.State(step=jnp.zeros((), jnp.int32), params=params, opt=opt,
                    ema=ema, stats=stats)


def check_accumulation(task: base.Task, accumulate: int):
  """Refuses to split a batch for a player whose gradient is not a mean."""
  for player in task.players:
    if accumulate > 1 and not player.additive:
      raise errors.InputError(
          'config.optimizer.accumulate', accumulate,
          f'the gradient of player {player.name!r} is not a mean over '
          'micro-batches', 1)


def make(task: base.Task, config) -> Callable[..., tuple[base.State, dict]]:
  """Returns `step(state, batch, frozen, run) -> (state, metrics)`.

  `metrics` are float32 scalars: the players' own as `<player>/<name>` (without
  prefix if the task has one player), `gradient_norm`, `learning_rate`, and
  `committed`: the new state's number of updates.
  """
  accumulate = config.optimizer.accumulate
  check_accumulation(task, accumulate)
  # Boxed: groups of the optimizer know a stack of layers by its axis name.
  boxed, _ = jax.eval_shape(lambda: task.init(jax.random.key(0)))

  def step(state, batch, frozen, run):
    rows = jnp.arange(batch['mask'].shape[0], dtype=jnp.int32)
    batch = dict(batch, row=rows)
    key = jax.random.fold_in(jax.random.fold_in(run.key, 1), state.step)
    if accumulate == 1:
      results = _play(task.players, state, frozen, batch, key)
    else:
      results = _accumulate(task.players, state, frozen, batch, key,
                            accumulate)
    params, opt, ema = dict(state.params), dict(state.opt), dict(state.ema)
    stats, metrics = dict(state.stats), {}
    finite = jnp.bool_(True)
    for player in task.players:
      result, name = results[player.name], player.name
      prefix = f'{name}/' if len(task.players) > 1 else ''
      stats[name] = result.stats
      for metric, value in result.metrics.items():
        metrics[prefix + metric] = value = jnp.asarray(value, jnp.float32)
        finite &= jnp.isfinite(value).all()
      if result.grads is None:
        continue
      norm = optax.tree.norm(result.grads)
      metrics[f'{prefix}gradient_norm'] = norm
      finite &= jnp.isfinite(norm)
      transform = _transform(config, run, player, boxed[name])
      updates, new_opt = transform.update(
          result.grads, state.opt[name], state.params[name])
      new_params = optax.apply_updates(state.params[name], updates)
      plays = _plays(player, state.step)
      params[name] = _where(plays, new_params, state.params[name])
      opt[name] = _where(plays, new_opt, state.opt[name])
      if player.ema_decay:
        # Exact where they are equal, as a frozen parameter and its average.
        ema[name] = jax.tree.map(
            lambda old, new, d=player.ema_decay: old + (1 - d) * (new - old),
            state.ema[name], params[name])
    new = base.State(step=state.step + 1, params=params, opt=opt, ema=ema,
                     stats=stats)
    state = jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, state)
    metrics['learning_rate'] = optimizers.schedule(
        config.optimizer, config.batch_size, run.total_steps,
        run.learning_rate)(new.step - 1)
    metrics['committed'] = state.step
    return state, metrics

  return step


def _play(players, state, frozen, batch, key):
  """{player: Result} of one (micro-)batch, each seeing the earlier carries."""
  results, carry = {}, {}
  for number, player in enumerate(players):
    result = player.grad(state, frozen, batch, jax.random.fold_in(key, number),
                         dict(carry))
    carry.update(result.carry)
    results[player.name] = result
  return results


def _accumulate(players, state, frozen, batch, key, parts):
  """As `_play`, with the mean of gradients and metrics over `parts` parts.

  Part i takes rows i, i + parts, ...: each device splits its own rows, so no
  example moves. Statistics pass from part to part.
  """
  def split(x):
    return jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)

  def one(stats, part):
    now = state.replace(stats=stats)
    results = _play(players, now, frozen, part, key)
    stats = {**stats, **{n: r.stats for n, r in results.items()}}
    return stats, {n: (r.grads, r.metrics) for n, r in results.items()}

  def body(carry, part):
    stats, sums = carry
    stats, new = one(stats, part)
    return (stats, jax.tree.map(jnp.add, sums, new)), None

  batch_parts = jax.tree.map(split, dict(batch))
  first = jax.tree.map(lambda x: x[0], batch_parts)
  shapes = jax.eval_shape(one, state.stats, first)[1]
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  (stats, sums), _ = jax.lax.scan(body, (state.stats, zeros), batch_parts)
  means = jax.tree.map(lambda x: x / parts, sums)
  return {name: base.Result(grads=grads, stats=stats.get(name),
                            metrics=metrics)
          for name, (grads, metrics) in means.items()}


def _plays(player, step):
  return True if player.when is None else player.when(step)


def _where(condition, new, old):
  if condition is True:
    return new
  return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)


def _transform(config, run, player, params):
  if player.optimizer is not None:
    return optimizers.build(player.optimizer, config.batch_size,
                            run.total_steps, params,
                            key=player.optimizer_key)
  return optimizers.build(config.optimizer, config.batch_size,
                          run.total_steps, params,
                          learning_rate=run.learning_rate)
