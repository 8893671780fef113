"""Discrete bottlenecks: published values, codes, gradients, state."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from scipy import special

from vitok import config as config_lib
from vitok import errors, fields, models
from vitok.models import bottlenecks
from vitok.models.bottlenecks import binary

QUANTIZER = fields.FIELDS['model']['quantizer']
B, L = 3, 5
# Every kind, in parts and in stages: (name, channels, options).
KINDS = {
    'vq': ('vq', 4, dict(size=7)),
    'vq_parts': ('vq', 4, dict(size=7, product=2)),
    'vq_stages': ('vq', 4, dict(size=7, residual=3)),
    'vq_parts_stages': ('vq', 4, dict(size=6, product=2, residual=2)),
    'vq_cosine': ('vq', 4, dict(size=7, distance='cosine')),
    'vq_gradient': ('vq', 4, dict(size=7, update='gradient')),
    'vq_gradient_stages': ('vq', 4, dict(size=7, update='gradient',
                                         residual=2, product=2)),
    'fsq': ('fsq', 4, dict(levels=(8, 5, 4, 3))),
    'fsq_parts': ('fsq', 4, dict(levels=(8, 5), product=2)),
    'fsq_stages': ('fsq', 3, dict(levels=(4, 5, 3), residual=2)),
    'lfq': ('lfq', 6, {}),
    'lfq_parts_stages': ('lfq', 6, dict(product=3, residual=2)),
    'bsq': ('bsq', 6, {}),
    'bsq_bits': ('bsq', 6, dict(product=6)),
    'bsq_parts_stages': ('bsq', 6, dict(product=2, residual=3)),
    'bsq_28': ('bsq', 28, dict(product=2)),
    'bsq_36': ('bsq', 36, dict(product=36)),
}


def build(name, channels, options=None, kind=None):
  """(module whose projection passes its input through, its variables)."""
  kind = kind or bottlenecks.BOTTLENECKS[name]
  chosen = {key: (QUANTIZER | (options or {}))[key] for key in kind.reads}
  kind.check(channels, chosen)
  module = kind(channels, jnp.float32, chosen)
  variables = nn.unbox(jax.jit(module.init)(
      jax.random.key(0), jnp.zeros((1, 1, channels))))
  variables['params']['down'] = {'kernel': jnp.eye(channels),
                                 'bias': jnp.zeros(channels)}
  return module, variables


def encode(module, variables, x):
  """The code; compiled, which takes less time than each product alone."""
  return jax.jit(module.apply)(variables, x)


def tokens(channels, batch=B, length=L, seed=0, scale=1.0):
  return jnp.array(np.random.default_rng(seed).normal(
      0, scale, (batch, length, channels)), jnp.float32)


def keys(batch=B):
  return jax.random.split(jax.random.key(1), batch)


@pytest.mark.parametrize('kind', KINDS)
def test_codes_and_back_are_exact_and_below_their_radices(kind):
  name, channels, options = KINDS[kind]
  module, variables = build(name, channels, options)
  code = encode(module, variables, tokens(channels))
  radices = module.radices(channels, module.options)
  assert code.ids.shape == (B, L, len(radices))
  assert code.ids.dtype == jnp.int32
  assert (code.ids >= 0).all() and (code.ids < np.array(radices)).all()
  back = jax.jit(lambda ids: module.apply(variables, ids, method='from_codes'))(
      code.ids)
  assert back.shape == code.z.shape and back.dtype == code.z.dtype
  # Roots are rounded otherwise where they are compiled with something else.
  np.testing.assert_allclose(
      back, code.z, rtol=5e-7 if options.get('distance') else 0, atol=0)


@pytest.mark.parametrize('kind', ['vq_parts', 'fsq', 'lfq', 'bsq'])
def test_a_code_is_its_own_code(kind):
  name, channels, options = KINDS[kind]
  module, variables = build(name, channels, options)
  # FSQ's projection is bounded by tanh before it is rounded.
  z = encode(module, variables, tokens(channels)).z
  for stage in range(module.options['residual']):
    x = module.parts(z)
    ids = module.apply(variables, x, stage, method='nearest')
    np.testing.assert_array_equal(
        module.apply(variables, ids, stage, method='lookup'), x)


@pytest.mark.parametrize('kind', ['vq_stages', 'fsq_stages', 'bsq_bits'])
def test_a_further_stage_comes_closer(kind):
  name, channels, options = KINDS[kind]
  distances = []
  for stages in (1, 2, 4):
    module, variables = build(name, channels, options | {
        'residual': stages, 'decay': 0.9})
    if name == 'vq':  # Codebooks as training leaves them.
      variables = trained(module, variables, *(
          tokens(channels, 64, seed=seed) for seed in range(40)))
    x = tokens(channels, 64, seed=99, scale=0.5)
    u = x if name == 'vq' else module.apply(variables, x, method='prepare')
    z = encode(module, variables, x).z
    distances.append(float(jnp.square(z - u.reshape(z.shape)).mean()))
  assert distances[0] > 1.5 * distances[1] > 2.25 * distances[2]


@pytest.mark.parametrize('kind', [
    'vq_parts_stages', 'vq_cosine', 'vq_gradient', 'fsq_parts', 'fsq_stages',
    'lfq_parts_stages', 'bsq_parts_stages'])
def test_the_gradient_is_straight_through_once_whatever_the_stages(kind):
  name, channels, options = KINDS[kind]
  module, variables = build(name, channels, options)
  x, up = tokens(channels), tokens(channels, seed=1)

  def through(x):
    return (module.apply(variables, x).z * up).sum()

  def expected(x):
    u = x
    if name == 'bsq':
      u = x / jnp.linalg.norm(x, axis=-1, keepdims=True) / channels**0.5
    elif name == 'fsq':
      levels = np.resize(module.options['levels'], channels)
      reach = (levels - 1) * 1.001 / 2
      shift = np.where(levels % 2, 0, 0.5)
      u = (jnp.tanh(x + np.arctanh(shift / reach)) * reach - shift) / (
          levels // 2)
    elif options.get('distance') == 'cosine':
      u = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    return (u * up).sum()
  np.testing.assert_allclose(
      jax.jit(jax.grad(through))(x), jax.jit(jax.grad(expected))(x),
                             rtol=2e-5, atol=1e-6)


# arXiv 2502.05178's class on inputs without a random generator: group size,
# tau, beta -> loss, H_sample, H_codebook, first integers, their sum, norm of
# the loss's gradient, its first four.
PUBLISHED = {
    (1, 1.0, 0.0): (-0.071115, 19.336966, 19.408081, (1, 1, 1, 1), 449,
                    0.0250546, (-1.13963e-4, -5.37434e-4, -8.84967e-4,
                                -1.110960e-3)),
    (7, 100.0, 1.0): (0.1122884, 1.461198, 10.176453, (127, 96, 15, 124), 8195,
                      0.1859921, (-0.01337173, -0.00402372, 0.00099959,
                                  0.00428513)),
    (7, 1.0, 1.0): (0.1287965, 19.336985, 19.407629, (127, 96, 15, 124), 8195,
                    0.1543192, (-0.01020326, -0.00454602, 0.00013090,
                                0.00319311)),
    (1, 100.0, 0.0): (-0.1791549, 1.461111, 19.376606, (1, 1, 1, 1), 449,
                      0.0398782, (-5.01061e-3, -1.80716e-5, 0, 0)),
}


class OnSphere(binary.BSQ):
  """BSQ of vectors that are of unit length already."""

  def prepare(self, u_BxLxc):
    return self.parts(u_BxLxc)


def unit_vectors():
  """(2, 16, 28) float32."""
  s = np.sin(0.37 * np.arange(896) + 0.1).reshape(2, 16, 28)
  return (s / np.linalg.norm(s, axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize('case', PUBLISHED)
def test_bsq_has_the_published_values_and_gradients(case):
  group, tau, beta = case
  loss, sample, whole, first, total, norm, start = PUBLISHED[case]
  u = jnp.array(unit_vectors())
  module, variables = build('bsq', 28, dict(
      product=28 // group, temperature=tau), OnSphere)

  def losses(u):
    code = module.apply(variables, u)
    return (code.losses['entropy'] + beta * code.losses['commitment']).mean(
        ), code
  (value, code), gradient = jax.jit(jax.value_and_grad(
      losses, has_aux=True))(u)
  # At tau 1 the loss is a difference of two numbers near 19.4 in float32.
  assert float(value) == pytest.approx(loss, abs=1e-5)
  # The published class adds 1e-8 to the probability of each code of a group.
  p = special.expit(4 * tau / 28**0.5 * unit_vectors().astype(float)).reshape(
      2, 16, -1, group)
  joint = np.stack([
      np.where(bits, p, 1 - p).prod(-1)
      for bits in itertools.product((0, 1), repeat=group)], -1)
  entropy = lambda x: -(x * np.log(np.maximum(x, 1e-300))).sum((-1, -2))
  added = entropy(joint + 1e-8).mean() - entropy(joint).mean()
  assert abs(added) < 1e-4
  assert float(code.stats['sample_entropy']) + added == pytest.approx(
      sample, rel=1e-5)
  assert float(code.stats['codebook_entropy']) == pytest.approx(
      whole, rel=1e-5)
  assert tuple(np.asarray(code.ids[0, 0, :4])) == first
  assert int(code.ids.sum()) == total
  assert float(jnp.linalg.norm(gradient)) == pytest.approx(norm, rel=1e-4)
  np.testing.assert_allclose(gradient[0, 0, :4], start, rtol=5e-4, atol=2e-7)


def test_bsq_codes_and_their_gradient_are_the_published_ones():
  u = jnp.array(unit_vectors())
  np.testing.assert_allclose(
      u[0, 0, :4], (0.02748085, 0.12466466, 0.20497571, 0.25754425), rtol=1e-6)
  g = jnp.array(np.cos(0.11 * np.arange(896)).reshape(u.shape), jnp.float32)
  module, variables = build('bsq', 28, dict(product=28), OnSphere)
  z, back = jax.vjp(lambda u: module.apply(variables, u).z, u)
  np.testing.assert_allclose(np.abs(z), 0.18898223, rtol=1e-6)
  assert float(z.sum()) == pytest.approx(0.37796447, rel=1e-4)
  assert float((z * g).sum()) == pytest.approx(0.73466292, rel=1e-5)
  gradient, = back(g)
  np.testing.assert_allclose(gradient[0, 0, :4], (
      0.18898223, 0.18784004, 0.18442728, 0.17878520), rtol=1e-6)
  assert float(jnp.linalg.norm(gradient)) == pytest.approx(4.0091343, rel=1e-6)


def test_the_sign_of_0_is_minus_1():
  module, variables = build('lfq', 4)
  code = encode(module, variables, jnp.zeros((1, 1, 4)))
  np.testing.assert_array_equal(code.z, -np.ones((1, 1, 4)))
  assert int(code.ids[0, 0, 0]) == 0
  module, variables = build('bsq', 4)
  assert np.isfinite(jax.jit(jax.grad(lambda x: module.apply(
      variables, x).z.sum()))(jnp.zeros((1, 1, 4)))).all()


@pytest.mark.parametrize('width', [1, 2, 5])
def test_the_codebook_entropy_is_that_of_the_mean_over_all_codes(width):
  p = np.random.default_rng(0).uniform(0, 1, (2, 7, 3, width))
  joint = np.stack([np.where(bits, p, 1 - p).prod(-1) for bits in
                    itertools.product((0, 1), repeat=width)], -1)
  mean = joint.mean((0, 1))
  expected = -(mean * np.log(mean)).sum()
  assert float(binary.codebook_entropy(jnp.array(p, jnp.float32))
               ) == pytest.approx(expected, rel=1e-5)


def test_losses_of_bits_weigh_the_two_entropies_by_gammas_over_tau():
  x = tokens(4)
  module, variables = build('lfq', 4, dict(temperature=2.0, gammas=(0.3, 0.7)))
  code = encode(module, variables, x)
  p = jax.nn.sigmoid(8 * x)
  bits = -(p * jnp.log(p) + (1 - p) * jnp.log(1 - p)).sum(-1).mean(1)
  np.testing.assert_allclose(
      code.losses['entropy'],
      (0.3 * bits - 0.7 * code.stats['codebook_entropy']) / 2, rtol=1e-4)
  np.testing.assert_allclose(
      code.losses['commitment'],
      jnp.square(x - jnp.sign(x)).sum(-1).mean(1), rtol=1e-5)


@pytest.mark.parametrize('name', ['lfq', 'bsq'])
@pytest.mark.parametrize('temperature', [1.0, 100.0])
def test_bits_that_are_certain_have_finite_losses_and_gradients(
    name, temperature):
  module, variables = build(name, 4, dict(temperature=temperature))
  cost = jax.jit(jax.value_and_grad(lambda x: sum(
      loss.mean() for loss in module.apply(variables, x).losses.values())))
  for scale in (0.0, 1e-9, 1.0, 1e4):
    x = scale * jnp.ones((2, 3, 4))  # All codes but one have no probability.
    value, gradient = cost(x)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_a_small_entropy_is_exact():
  for logit in (-25.0, -9.0, 0.0, 3.0, 12.0):
    p = special.expit(np.array([logit, -logit]))
    assert float(binary._entropy(jnp.float32(logit))) == pytest.approx(
        -(p * np.log(p)).sum(), rel=1e-5)


def trained(module, variables, *batches):
  """Variables after training steps without gradients."""
  step = jax.jit(lambda variables, x: variables | module.apply(
      variables, x, keys(len(x)), True, mutable=['stats'])[1])
  for x in batches:
    variables = step(variables, x)
  return variables


def test_entries_are_moving_averages_of_the_tokens_that_chose_them():
  module, variables = build('vq', 2, dict(size=3, restart=0.0))
  variables = trained(module, variables, tokens(2, 16))
  before, x = variables['stats'], tokens(2, 16, seed=5)
  entries = np.asarray(before['entries'][0, 0], np.float64)
  counts = np.asarray(before['mass'][0, 0], np.float64)
  flat = np.asarray(x, np.float64).reshape(-1, 2)
  chosen = np.square(flat[:, None] - entries).sum(-1).argmin(1)
  share = np.bincount(chosen, minlength=3) / len(flat)
  sums = np.stack([flat[chosen == i].sum(0) for i in range(3)]) / len(flat)
  new = 0.99 * counts + 0.01 * share
  after = trained(module, variables, x)['stats']
  np.testing.assert_allclose(after['mass'][0, 0], new, rtol=1e-5)
  np.testing.assert_allclose(
      after['entries'][0, 0],
      (0.99 * counts[:, None] * entries + 0.01 * sums) / new[:, None],
      rtol=1e-5)
  assert int(after['batches']) == 2


@pytest.mark.parametrize('update', ['ema', 'gradient'])
def test_the_first_batch_places_the_entries_and_dead_ones_start_again(update):
  module, variables = build('vq', 2, dict(size=4, restart=0.5, update=update,
                                          decay=0.5))
  x = 10 + tokens(2, 8)
  variables = trained(module, variables, x)
  place = lambda v: np.asarray(v['stats']['entries'][0, 0])
  near = lambda v, x: np.abs(
      place(v)[:, None] - np.asarray(x).reshape(-1, 2)).max(-1).min(1)
  # Of 'ema', half a step has been made towards the means.
  assert (near(variables, x) < (2 if update == 'ema' else 1e-6)).all()
  far = -10 + tokens(2, 8, seed=3)
  variables = trained(module, variables, *8 * [far])
  assert (near(variables, far) < 2).all()
  assert (variables['stats']['mass'] > 0.1).all()
  # What restarts nothing leaves what is not chosen where it is.
  module, variables = build('vq', 2, dict(size=4, restart=0.0, update=update,
                                          decay=0.5))
  variables = trained(module, variables, x, *8 * [far])
  assert (place(variables)[:, 0] > 5).sum() >= 3


def test_trained_entries_go_to_their_tokens_and_tokens_to_their_entries():
  module, variables = build('vq', 2, dict(size=3, update='gradient'))
  x = tokens(2)

  def loss(params, x, name):
    return module.apply(variables | {'params': params}, x).losses[name].sum()
  params = variables['params']
  assert not jax.grad(loss)(params, x, 'commitment')['codebook'].any()
  assert not jax.grad(loss, 1)(params, x, 'codebook').any()
  code = encode(module, variables, x)
  pull = jax.grad(loss)(params, x, 'codebook')['codebook'][0, 0]
  ids = np.asarray(code.ids).reshape(-1)
  gap = 2 * np.asarray(code.z - x).reshape(-1, 2) / L
  expected = np.stack([gap[ids == i].sum(0) for i in range(3)])
  np.testing.assert_allclose(pull, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('kind', ['vq', 'vq_gradient', 'bsq', 'fsq'])
def test_use_is_that_of_codes_and_not_of_restarts(kind):
  name, channels, options = KINDS[kind]
  module, variables = build(name, channels, options)
  x = jnp.ones((4, 6, channels))
  variables = trained(module, variables, *150 * [x])
  code = encode(module, variables, x)
  radix, = module.radices(channels, module.options)
  assert float(code.stats['usage']) == pytest.approx(1 / radix)
  assert float(code.stats['code_entropy']) < 0.01
  two = trained(module, variables, *300 * [jnp.concatenate([x, -x])])
  stats = encode(module, two, x).stats
  # Of equal entries that were restarted, one may follow on another.
  assert 2 / radix - 1e-6 < float(stats['usage']) < 3 / radix + 1e-6
  assert 0.95 < float(stats['code_entropy']) < 1.5


def test_an_entry_that_is_never_chosen_stays_finite_for_ever():
  module, variables = build('vq', 2, dict(size=5, restart=0.0, decay=0.1))
  x = jnp.ones((2, 3, 2))
  variables = trained(module, variables, *60 * [x])
  assert np.isfinite(variables['stats']['entries']).all()
  assert np.isfinite(encode(module, variables, x).z).all()


@pytest.mark.parametrize('kind', ['vq_parts_stages', 'vq_gradient',
                                  'fsq_parts', 'bsq_28'])
def test_evaluation_leaves_the_state_and_training_counts_codes(kind):
  name, channels, options = KINDS[kind]
  module, variables = build(name, channels, options)
  x = tokens(channels)
  run = jax.jit(module.apply, static_argnums=3, static_argnames='mutable')
  _, same = run(variables, x, keys(), False, mutable=('stats',))
  jax.tree.map(np.testing.assert_array_equal, same['stats'],
               variables['stats'])
  code, new = run(variables, x, keys(), True, mutable=('stats',))
  counts = new['stats']['counts']
  radices = module.radices(channels, module.options)
  assert counts.shape == (len(radices), radices[0])
  for k, radix in enumerate(radices):
    share = np.bincount(np.asarray(code.ids[..., k]).ravel(), minlength=radix)
    np.testing.assert_allclose(counts[k], share / (B * L), rtol=1e-5)
  assert 0 < float(code.stats['usage']) <= 1
  assert 0 < float(code.stats['code_entropy']) <= (
      sum(map(math.log2, radices)) * (1 + 1e-6))


@pytest.mark.parametrize('kind', ['vq_parts_stages', 'vq_gradient', 'fsq',
                                  'bsq_parts_stages'])
def test_codes_losses_and_state_are_those_of_one_device_on_eight(kind):
  name, channels, options = KINDS[kind]
  module, variables = build(name, channels, options)
  x = tokens(channels, 16)
  step = jax.jit(lambda v, x, k: module.apply(v, x, k, True,
                                              mutable=['stats']))
  code, new = step(variables, x, keys(16))
  mesh = jax.make_mesh((8,), ('rows',), (AxisType.Auto,))
  rows, whole = (NamedSharding(mesh, spec) for spec in (P('rows'), P()))
  with jax.set_mesh(mesh):
    many, other = step(jax.device_put(variables, whole),
                       *jax.device_put((x, keys(16)), rows))
  np.testing.assert_array_equal(many.ids, code.ids)
  # Sums of eight parts, in another order.
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, many.losses | many.stats, code.losses | code.stats)
  jax.tree.map(close, other, new)
  for leaf in jax.tree.leaves(other):
    copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
    assert len(copies) == 8
    for copy in copies[1:]:
      np.testing.assert_array_equal(copy, copies[0])


@pytest.mark.parametrize('changes, key, nearest', [
    ({'model.bottleneck': 'gaussian', 'model.quantizer.size': 7},
     'config.model.quantizer.size', 1024),
    ({'model.bottleneck': 'bsq', 'model.quantizer.levels': (8, 8)},
     'config.model.quantizer.levels', ()),
    ({'model.bottleneck': 'vq', 'model.quantizer.product': 3},
     'config.model.quantizer.product', 1),
    ({'model.bottleneck': 'vq', 'model.quantizer.residual': 0},
     'config.model.quantizer.residual', 1),
    ({'model.bottleneck': 'vq', 'model.quantizer.distance': 'cosin'},
     'config.model.quantizer.distance', 'cosine'),
    ({'model.bottleneck': 'vq', 'model.quantizer.update': 'grad'},
     'config.model.quantizer.update', 'gradient'),
    ({'model.bottleneck': 'vq', 'model.quantizer.size': 1},
     'config.model.quantizer.size', 2),
    ({'model.bottleneck': 'vq', 'model.quantizer.distance': 'cosine',
      'model.quantizer.residual': 2}, 'config.model.quantizer.residual', 1),
    ({'model.bottleneck': 'fsq'}, 'config.model.quantizer.levels',
     (8, 5, 5, 5)),
    ({'model.bottleneck': 'fsq', 'model.quantizer.levels': (8, 5, 5)},
     'config.model.quantizer.levels', (8, 5, 5, 8)),
    ({'model.bottleneck': 'fsq', 'model.quantizer.levels': 4 * (64,)},
     'config.model.quantizer.levels', 4 * (22,)),
    ({'model.bottleneck': 'fsq', 'model.quantizer.levels': (8, 5, 5, 5),
      'model.quantizer.product': 3}, 'config.model.quantizer.product', 1),
    ({'model.bottleneck': 'vq', 'model.quantizer.distance': 'cosine',
      'model.quantizer.product': 4}, 'config.model.quantizer.distance',
     'euclidean'),
    ({'model.bottleneck': 'lfq', 'model.quantizer.gammas': (1.0,)},
     'config.model.quantizer.gammas', (1.0, 1.0)),
    ({'model.name': 'A-A/1x8x1', 'model.bottleneck': 'bsq'},
     'config.model.bottleneck', 'lfq'),
    ({'model.name': 'A-A/1x8x28', 'model.bottleneck': 'bsq'},
     'config.model.quantizer.product', 2),
])
def test_impossible_codes_are_refused_with_the_nearest(changes, key, nearest):
  conf = config_lib.override(config_lib.default(), {
      'model.name': 'A-A/1x8x4', **changes})
  with pytest.raises(errors.InputError) as caught:
    models.build(conf.model, frames=1, resolution=16)
  assert (caught.value.key, caught.value.nearest) == (key, nearest)
