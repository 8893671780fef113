"""The arithmetic of a DiT against the module, XLA and what is published."""

import functools
import itertools

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from vitok import sizes
from vitok.accounting import dit as accounting
from vitok.models import dit, layers, positions
from vitok.training import mesh as mesh_lib


def build(spec, grid, **options):
  """The module of a `Spec`, its abstract arguments and parameters."""
  model = dit.DiT(spec.tower, grid, spec.channels, spec.classes, spec.mlp,
                  spec.positions, **options)
  args = (jax.ShapeDtypeStruct((1, spec.tokens, spec.channels), jnp.float32),
          jax.ShapeDtypeStruct((1,), jnp.float32),
          jax.ShapeDtypeStruct((1,), jnp.int32))
  return model, args, jax.eval_shape(
      model.init, jax.random.key(0), *args)['params']


def real(spec, grid):
  """{path: (shape, axis names)} of the module's parameters."""
  *_, tree = build(spec, grid)
  boxed = lambda leaf: isinstance(leaf, nn.Partitioned)
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=boxed)
  return {jax.tree_util.keystr(path, simple=True, separator='/'):
          (leaf.value.shape, leaf.names) for path, leaf in leaves}


@pytest.mark.parametrize('mlp, position', [*zip(
    itertools.cycle(layers.MLPS), positions.NAMES)])
def test_every_choice_is_the_module_tree(mlp, position):
  spec = accounting.Spec(sizes.Tower(96, 2, 3), 8, 5, 10, mlp, position)
  made = {p.path: (p.shape, p.axes) for p in accounting.parameters(spec)}
  assert made == real(spec, (2, 2, 2) if position == 'rope3d' else (1, 2, 4))


@pytest.mark.parametrize('name', accounting.SIZES)
def test_every_size_is_the_module_tree(name):
  spec = accounting.Spec(accounting.SIZES[name], 256, 16)
  made = accounting.parameters(spec)
  assert {p.path: (p.shape, p.axes) for p in made} == real(spec, (1, 16, 16))
  counts = accounting.count(made)
  assert counts['total'] == sum(counts[part] for part in accounting.PARTS)
  shown = f'{counts["total"] / 1e6:.1f} M'  # In the docstring's table.
  row = next(row for row in dit.__doc__.splitlines()
             if row.split()[:1] == [name])
  tower = accounting.SIZES[name]
  assert row.split()[1:7] == [*map(str, (
      tower.width, tower.depth, tower.heads, tower.head_dim)), *shown.split()]


@pytest.mark.parametrize('name, millions, gmac', [
    ('S', 33, 6.06), ('B', 130, 23.01), ('L', 458, 80.71), ('XL', 675, 118.64)])
def test_sizes_are_those_of_the_dit_paper(name, millions, gmac):
  """arXiv 2212.09748, table 4: patch 2 at 256 pixels; but half its outputs."""
  spec = accounting.Spec(accounting.SIZES[name], 256, 16, mlp='gelu')
  made = accounting.count(accounting.parameters(spec))
  assert made['total'] == pytest.approx(millions * 1e6, rel=0.006)
  assert accounting.macs(spec)['total'] == pytest.approx(gmac * 1e9, rel=0.005)


def counted(spec, grid, train, **options):
  """XLA's FLOPs of the unrolled program as it is lowered; nothing is run."""
  model, args, params = build(spec, grid, scan=False, **options)
  forward = lambda params, *args: model.apply({'params': params}, *args)
  program = jax.value_and_grad(
      lambda *args: jnp.square(forward(*args)).mean()) if train else forward
  lowered = jax.jit(program).lower(mesh_lib.unbox(params), *args)
  return lowered.cost_analysis()['flops']


@functools.cache
def temporary(depth, mlp, remat):
  """XLA's temporary bytes of loss and gradients, and the accounting's."""
  spec = accounting.Spec(sizes.Tower(96, depth, 3), 64, 8, 10, mlp)
  model, args, params = build(spec, (1, 8, 8), remat=remat)
  args = [jax.ShapeDtypeStruct((4, *x.shape[1:]), x.dtype) for x in args]
  loss = lambda params, *args: jnp.square(
      model.apply({'params': params}, *args) - 1).mean()
  counted = jax.jit(jax.value_and_grad(loss)).lower(
      mesh_lib.unbox(params), *args).compile(
          {'xla_backend_optimization_level': 0}).memory_analysis()
  predicted = accounting.memory(spec, batch=4, remat=remat)
  # Whole gradients are outputs of this program; one block's are temporary.
  return spec, counted.temp_size_in_bytes, (
      predicted['activations'] + predicted['gradients']
      - predicted['parameters'])


@pytest.mark.parametrize('remat', ['none', 'full'])
def test_a_block_stores_what_its_policy_says(remat):
  (_, two, _), (spec, four, _) = (
      temporary(depth, 'swiglu', remat) for depth in (2, 4))
  assert (four - two) / 2 == pytest.approx(
      4 * accounting.stored_by_block(spec, remat), rel=0.02)


@pytest.mark.parametrize('mlp, remat', [
    ('swiglu', 'none'), ('gelu', 'dots'), ('swiglu', 'full')])
def test_activations_are_within_10_percent_of_xlas_temporary_memory(
    mlp, remat):
  _, counted, predicted = temporary(4, mlp, remat)
  assert predicted == pytest.approx(counted, rel=0.1)


def test_what_a_dit_is_said_to_cost_is_what_its_parts_say():
  spec = accounting.Spec(accounting.SIZES['L'], 256, 16)
  made = accounting.describe(spec, batch=64, devices=8, ema=True,
                             mesh={'replica': 1, 'fsdp': 8})
  assert made['code_floats'] == 4096
  assert made['flops']['train_step'] == accounting.train_step(spec)['total']
  memory = made['memory']
  total = 4 * made['parameters']['total']
  assert total / 8 <= memory['parameters'] < 1.01 * total / 8
  assert memory['optimizer'] == 2 * memory['ema'] == 2 * memory['parameters']
  assert memory['total'] == sum(
      n for kind, n in memory.items() if kind != 'total')


@pytest.mark.parametrize('train', [False, True])
def test_products_are_within_1_percent_of_xla_from_width_512(train):
  spec = accounting.Spec(sizes.Tower(512, 2, 8), 256, 16)
  products = (accounting.train_step if train else accounting.forward)(spec)
  assert products['total'] == pytest.approx(
      counted(spec, (1, 16, 16), train), rel=0.01)


def test_recomputed_products_are_those_that_remat_repeats():
  spec = accounting.Spec(sizes.Tower(192, 1, 3), 256, 4)
  extra = (counted(spec, (1, 16, 16), True, remat='full')
           - counted(spec, (1, 16, 16), True))
  # Element-wise work of the blocks is repeated too.
  assert extra == pytest.approx(accounting.recomputed(spec, 'full'), rel=0.05)
  attend = 2 * 256 * 2 * 256 * 192  # Of two products, L * L * D each.
  assert accounting.recomputed(spec, 'dots') == attend


def test_backward_is_two_products_but_for_codes_and_times():
  spec = accounting.Spec(accounting.SIZES['T'], 16, 8, 10)
  forward, step = accounting.forward(spec), accounting.train_step(spec)
  assert forward == {part: 2 * n for part, n in accounting.macs(spec).items()}
  assert step['blocks'] == 3 * forward['blocks']
  assert 3 * forward['total'] - step['total'] == 2 * 192 * (256 + 16 * 8)
  for counts in (forward, step):
    assert counts['total'] == sum(counts[part] for part in accounting.PARTS)
