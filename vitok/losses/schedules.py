"""Weights of losses that are switched on while a run trains, as data.

A schedule is three fields of a config: {'weight': 0.05, 'start': 5_000,
'ramp': 50_000} is no weight in the first 5000 updates, which then grows by
equal amounts to 0.05 in 50,000 updates and stays there.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vitok import errors

# field -> the highest value: what float32 and what int32 can hold with room.
FIELDS = {'weight': 1e9, 'start': 2**31 - 1, 'ramp': 2**31 - 1}


def build(fields: Mapping[str, Any], key: str
          ) -> Callable[[jax.typing.ArrayLike], jax.Array]:
  """The weight of the update that leaves `step` updates behind it.

  Args:
    fields: 'weight', the final one, at least 0; 'start', the first update that
      has a weight; 'ramp', how many updates it takes to reach the final one (0
      and 1: the first has it all).
    key: dotted config key of `fields`, for errors.

  Returns:
    A function of a step, traced or not, to a float32 scalar.

  Raises:
    InputError: a field is missing, unknown, or out of range.
  """
  for field in fields:
    errors.one_of(key, field, tuple(FIELDS))
  for field, most in FIELDS.items():
    if field not in fields:
      raise errors.InputError(f'{key}.{field}', None, 'is missing')
    value, kind = fields[field], float if field == 'weight' else int
    if type(value) not in (int, kind) or not value >= 0:
      raise errors.InputError(f'{key}.{field}', value, 'is not a number of '
                              f'type {kind.__name__}, 0 or more', 0)
    if value > most:
      raise errors.InputError(f'{key}.{field}', value, f'is above {most}', most)
  weight, start, ramp = (fields[field] for field in FIELDS)

  def at(step: jax.typing.ArrayLike) -> jax.Array:
    # In integers: float32 does not tell update 2**24 from the next one.
    counted = jnp.clip(jnp.asarray(step, jnp.int32) + 1 - start, 0,
                       max(ramp, 1))
    return jnp.float32(weight) * (counted / max(ramp, 1))

  return at
