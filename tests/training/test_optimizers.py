"""AdamW, its schedule and its groups, against NumPy written from the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from vitok import config as config_lib
from vitok import errors
from vitok.training import optimizers

LAYERS = 3


def _config(**fields):
  config = config_lib.default().optimizer
  config.reference_batch = 0
  for name, value in fields.items():
    config[name] = value
  return config


def _arrays(seed, scale=1.0):
  """An unrolled tree: {'embed': ..., 'blocks_0': ..., 'blocks_1': ...}."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: np.float32(scale * rng.standard_normal(shape))
  tree = {'embed': {'kernel': draw(4, 6), 'bias': draw(6)}}
  for i in range(LAYERS):
    tree[f'blocks_{i}'] = {'mlp': {'kernel': draw(6, 6), 'bias': draw(6)},
                           'norm': {'scale': draw(6)}}
  return tree


def _stack(tree):
  """The same numbers with one leading axis for all blocks."""
  return {'embed': tree['embed'], 'blocks': jax.tree.map(
      lambda *leaves: np.stack(leaves),
      *[tree[f'blocks_{i}'] for i in range(LAYERS)])}


def _boxed(stacked):
  box = lambda x, *names: nn.LogicallyPartitioned(
      jax.ShapeDtypeStruct(x.shape, x.dtype),
      (*names, *[None] * (x.ndim - len(names))))
  return {'embed': jax.tree.map(box, stacked['embed']),
          'blocks': jax.tree.map(lambda x: box(x, 'layers'),
                                 stacked['blocks'])}


def _train(transform, params, grads):
  state = transform.init(params)
  for grad in grads:
    updates, state = jax.jit(transform.update)(grad, state, params)
    params = optax.apply_updates(params, updates)
  return params, state


def _numpy_adamw(config, params, grads, total_steps):
  """Loshchilov and Hutter 2019, algorithm 2, on a flat {path: array}."""
  params = {path: np.float64(x) for path, x in params.items()}
  m = {path: 0.0 for path in params}
  v = {path: 0.0 for path in params}
  warmup = round(config.warmup * total_steps)
  for t, grad in enumerate(grads, start=1):
    norm = np.sqrt(sum(np.sum(np.float64(g)**2) for g in grad.values()))
    clip = min(1.0, config.clip / norm) if config.clip else 1.0
    if t < warmup:
      rate = config.learning_rate * t / warmup
    elif config.schedule == 'constant':
      rate = config.learning_rate
    else:
      cosine = np.cos(np.pi * (t - warmup) / (total_steps - warmup))
      rate = config.min_learning_rate + 0.5 * (1 + cosine) * (
          config.learning_rate - config.min_learning_rate)
    for path, g in grad.items():
      g = clip * np.float64(g)
      m[path] = config.b1 * m[path] + (1 - config.b1) * g
      v[path] = config.b2 * v[path] + (1 - config.b2) * g**2
      step = (m[path] / (1 - config.b1**t)
              / (np.sqrt(v[path] / (1 - config.b2**t)) + 1e-8))
      if path.endswith('kernel'):
        step += config.weight_decay * params[path]
      params[path] -= rate * step
  return params


def _flat(tree):
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf
          for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize('fields', [
    dict(clip=0.0, weight_decay=0.0), dict(clip=1.0), dict(clip=1e3),
    dict(weight_decay=0.3), dict(schedule='constant', weight_decay=0.1)])
def test_updates_equal_numpy_adamw(fields):
  config = _config(learning_rate=1e-2, min_learning_rate=1e-3, warmup=0.4,
                   **fields)
  params, grads = _stack(_arrays(0)), [_stack(_arrays(i)) for i in (1, 2, 3, 4)]
  transform = optimizers.build(config, 32, 5, _boxed(params))
  ours, _ = _train(transform, params, grads)
  golden = _numpy_adamw(config, _flat(params), [_flat(g) for g in grads], 5)
  for path, leaf in _flat(ours).items():
    np.testing.assert_allclose(leaf, golden[path], rtol=0, atol=2e-6,
                               err_msg=path)


def test_the_schedule_climbs_to_its_peak_and_ends_at_its_minimum():
  config = _config(learning_rate=1e-3, min_learning_rate=1e-5, warmup=0.1)
  rates = np.array([optimizers.schedule(config, 1, 100)(t) for t in range(100)])
  np.testing.assert_allclose(rates[:10], 1e-4 * np.arange(1, 11), rtol=1e-5)
  np.testing.assert_allclose(rates[54], (1e-3 + 1e-5) / 2, rtol=1e-5)
  np.testing.assert_allclose(rates[99], 1e-5, rtol=1e-4)
  assert np.all(np.diff(rates[10:]) < 0)


def test_the_constant_schedule_stays_at_its_peak():
  config = _config(learning_rate=1e-3, schedule='constant', warmup=0.1)
  at = optimizers.schedule(config, 1, 100)
  np.testing.assert_allclose([at(4), at(9), at(99)], [5e-4, 1e-3, 1e-3],
                             rtol=1e-5)


@pytest.mark.parametrize('reference, share', [(256, 4), (0, 1)])
def test_the_whole_schedule_grows_with_the_batch(reference, share):
  # The paper: 1e-4 per 256 images is 4e-4 at a batch of 1024.
  config = _config(learning_rate=1e-4, min_learning_rate=1e-5, warmup=0.03,
                   reference_batch=reference)
  at = optimizers.schedule(config, 1024, 1000)
  np.testing.assert_allclose([at(29), at(999)], [1e-4 * share, 1e-5 * share],
                             rtol=1e-4)


def test_a_minimum_above_the_peak_is_refused():
  config = _config(learning_rate=1e-6, min_learning_rate=1e-5)
  with pytest.raises(errors.InputError, match='min_learning_rate=1e-05'):
    optimizers.schedule(config, 8, 100)


@pytest.mark.parametrize('fields', [
    dict(), dict(clip=0.0), dict(schedule='constant', weight_decay=0.5)])
@pytest.mark.parametrize('decay', [1.0, 0.7])
def test_stacked_layers_learn_as_separate_ones(fields, decay):
  """Rate, decay and clipping are those of a layer, not of a stacked leaf."""
  config = _config(learning_rate=1e-2, warmup=0.0, **fields)
  params, grads = _arrays(0), [_arrays(1), _arrays(2, scale=3.0)]
  config.groups = (
      dict(match='blocks/.*', layer_decay=decay, learning_rate=0.5,
           weight_decay=0.2),)
  scanned, _ = _train(
      optimizers.build(config, 32, 10, _boxed(_stack(params))),
      _stack(params), [_stack(g) for g in grads])
  config.groups = tuple(
      dict(match=f'blocks_{i}/.*', learning_rate=0.5 * decay**(LAYERS - 1 - i),
           weight_decay=0.2) for i in range(LAYERS))
  unrolled, _ = _train(optimizers.build(config, 32, 10, params), params, grads)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-7),
               scanned, _stack(unrolled))


def test_frozen_parameters_stay_and_cost_no_optimizer_memory():
  config = _config(clip=1.0, groups=(dict(match='embed/.*', frozen=True),))
  params = _stack(_arrays(0))
  grads = _stack(_arrays(1))
  transform = optimizers.build(config, 32, 10, _boxed(params))
  ours, state = _train(transform, params, [grads])
  jax.tree.map(np.testing.assert_array_equal, ours['embed'], params['embed'])
  held = sum(x.size for x in jax.tree.leaves(state) if jnp.ndim(x))
  assert held == 2 * sum(x.size for x in jax.tree.leaves(params['blocks']))
  # Nor do their gradients take part in the clip.
  grads = dict(grads, embed=jax.tree.map(lambda g: 1e6 * g, grads['embed']))
  again, _ = _train(transform, params, [grads])
  jax.tree.map(np.testing.assert_array_equal, ours, again)


def test_the_first_group_that_matches_has_the_parameter():
  config = _config(warmup=0.0, clip=0.0, groups=(
      dict(match='.*/bias', frozen=True),
      dict(match='blocks/.*', learning_rate=0.25)))
  params, grads = _stack(_arrays(0)), _stack(_arrays(1))
  transform = optimizers.build(config, 32, 10, _boxed(params))
  updates, _ = transform.update(grads, transform.init(params), params)
  assert not np.any(updates['blocks']['mlp']['bias'])
  ratio = (np.abs(updates['blocks']['norm']['scale']).max()
           / np.abs(updates['embed']['kernel']).max())
  np.testing.assert_allclose(ratio, 0.25, rtol=1e-3)


@pytest.mark.parametrize('groups, why', [
    ([dict(match='blcks/norm/scale')], 'choice: blocks/norm/scale'),
    ([dict(match='blocks')], 'matches no parameter'),  # The whole path.
    ([dict(match='.*'), dict(match='embed/.*')], 'an earlier group left'),
    ([dict(match='embed/.*', layer_decay=0.5)], 'no stack of layers'),
])
def test_a_group_without_parameters_is_refused(groups, why):
  with pytest.raises(errors.InputError, match=why):
    optimizers.build(_config(groups=tuple(groups)), 256, 10,
                     _boxed(_stack(_arrays(0))))
