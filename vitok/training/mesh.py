"""The device mesh, and where each array of the state lies on it.

Three axes: `replica` (copies of the parameters), `fsdp` (the batch and the
parameters are both split) and `tensor` (heads and MLP units are split). A
parameter is placed by the logical names its module gave its axes:

1. `config.sharding.rules` sends a logical name to a mesh axis.
2. A parameter which no rule put on `fsdp` is split along its largest axis that
   the `fsdp` size divides.
3. A parameter of fewer than `fsdp_min_size` numbers (of one layer, if layers
   are stacked) is not split over `fsdp`: it costs more latency than memory.
4. The stacked `layers` axis is never split: the loop over layers would gather
   every layer before its first step.

Optimizer moments and moving averages carry the names of their parameter (they
are built by mapping over it), hence lie where it lies.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
from flax.core import meta
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vitok import errors
from vitok.accounting.sharding import AXES, BATCH_AXES, LAYERS


def make_mesh(
    config: Any, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """The mesh of `config.mesh` over `devices` (default: all of all processes).

  Args:
    config: sizes `replica`, `fsdp`, `tensor`; at most one -1 takes the rest.
    devices: the devices to use.

  Raises:
    InputError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = [config[axis] for axis in AXES]
  shown = ' x '.join(map(str, sizes))
  if min(sizes) < -1 or 0 in sizes or sizes.count(-1) > 1:
    raise errors.InputError(
        'config.mesh', shown,
        'sizes are positive, and at most one is -1 (the rest)')
  known = math.prod(size for size in sizes if size > 0)
  if len(devices) % known or (-1 not in sizes and known != len(devices)):
    raise errors.InputError(
        'config.mesh', shown,
        f'replica x fsdp x tensor does not make {len(devices)} devices',
        f'replica -1, and fsdp x tensor a divisor of {len(devices)}')
  sizes = [len(devices) // known if size == -1 else size for size in sizes]
  # Auto: the default since JAX 0.9 is Explicit, which rejects the product of
  # a batch-sharded activation with an FSDP-sharded kernel.
  return jax.make_mesh(
      sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def batch_sharding(mesh: Mesh, rows: int | None = None) -> NamedSharding:
  """Splits the leading axis of a batch over `replica` and `fsdp`.

  Args:
    mesh: from `make_mesh`.
    rows: the length of that axis, checked if given.

  Raises:
    InputError: `rows` cannot be split evenly.
  """
  shards = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
  if rows is not None and rows % shards:
    raise errors.InputError(
        'config.batch_size', rows,
        f'does not split over {shards} groups of devices',
        max(rows // shards, 1) * shards)
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  """One whole copy on each device."""
  return NamedSharding(mesh, PartitionSpec())


def is_boxed(leaf: Any) -> bool:
  """Whether `leaf` is an array in a box that names its axes."""
  return isinstance(leaf, meta.AxisMetadata)


def unbox(tree: Any) -> Any:
  """Takes arrays out of the boxes that name their axes.

  Unlike `nn.unbox` it adds no sharding constraint, which abstract arrays do
  not take; shardings come from `state_shardings`.
  """
  return jax.tree.map(
      lambda leaf: leaf.value if is_boxed(leaf) else leaf, tree,
      is_leaf=is_boxed)


def axis_names(leaf: Any) -> tuple[str | None, ...]:
  """The logical name of each axis of a boxed or bare array."""
  ndim = len(jax.tree.leaves(leaf)[0].shape)
  names = tuple(leaf.names) if is_boxed(leaf) else ()
  # A bare array, or a statistic of other rank than its parameter: no names.
  return names if len(names) == ndim else (None,) * ndim


def state_shardings(abstract_state: Any, mesh: Mesh, config: Any) -> Any:
  """Where each leaf of a state lies.

  Args:
    abstract_state: `jax.eval_shape` of the state's init, with parameters,
      optimizer and averages still in their `LogicallyPartitioned` boxes.
    mesh: from `make_mesh`.
    config: `config.sharding`: `rules` and `fsdp_min_size`.

  Returns:
    A tree of `NamedSharding` shaped like `unbox(abstract_state)`.

  Raises:
    InputError: a rule names an unknown mesh axis or repeats a logical name, two
      axes of one parameter fall on one mesh axis, or `tensor` does not divide.
  """
  rules = read_rules(config)

  def place(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    shape = jax.tree.leaves(leaf)[0].shape
    return NamedSharding(mesh, _spec(
        name, axis_names(leaf), shape, mesh, rules, config.fsdp_min_size))

  return jax.tree_util.tree_map_with_path(
      place, abstract_state, is_leaf=is_boxed)


def read_rules(config: Any) -> dict[str, str | None]:
  """`config.sharding.rules` as {logical name: mesh axis or None}.

  Raises:
    InputError: a rule is no pair, names an unknown mesh axis, or repeats a
      logical name.
  """
  rules = {}
  for rule in config.rules:
    if len(rule) != 2 or not isinstance(rule[0], str):
      raise errors.InputError('config.sharding.rules', rule,
                              'is not (logical axis, mesh axis)',
                              "('embed', 'fsdp')")
    name, axis = rule
    errors.one_of('config.sharding.rules', axis, (*AXES, None))
    if name in rules or name == LAYERS:
      why = 'has two rules' if name in rules else 'is never split'
      raise errors.InputError('config.sharding.rules', name, f'this axis {why}')
    rules[name] = axis
  return rules


def _spec(path, names, shape, mesh, rules, fsdp_min_size):
  """The partition of one array; see the top of the file for the order."""
  axes = [rules.get(name) for name in names]
  for axis in set(axes) - {None}:
    if axes.count(axis) > 1:
      both = ' and '.join(name for name in names if rules.get(name) == axis)
      raise errors.InputError(
          'config.sharding.rules', axis, f'is given to both {both} of {path}')
  one_layer = math.prod(size for name, size in zip(names, shape, strict=True)
                        if name != LAYERS)
  for i, axis in enumerate(axes):
    if axis is None:
      continue
    fits = shape[i] % mesh.shape[axis] == 0
    if axis == 'fsdp' and (one_layer < fsdp_min_size or not fits):
      axes[i] = None
    elif not fits:
      raise errors.InputError(
          f'config.mesh.{axis}', mesh.shape[axis],
          f'does not divide the {shape[i]} {names[i]} of {path}',
          math.gcd(shape[i], mesh.shape[axis]))
  if 'fsdp' not in axes and one_layer >= fsdp_min_size:
    free = [i for i, name in enumerate(names)
            if name != LAYERS and axes[i] is None
            and shape[i] % mesh.shape['fsdp'] == 0]
    if free:
      axes[max(free, key=lambda i: shape[i])] = 'fsdp'
  return PartitionSpec(*axes)
