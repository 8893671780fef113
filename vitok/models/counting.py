"""What networks beside the model cost: read from abstract shapes, no device."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util


def count(network: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
  """Counts a network of convolutions and matrix products.

  Args:
    network: a module of one array.
    shape: of one example, without the batch.

  Returns:
    'parameters'; 'macs', multiply-accumulates of a forward pass of one
    example, padding counted as if it were image; 'outputs', numbers that the
    convolutions and products put out for it.
  """
  made = jax.eval_shape(
      lambda x: network.init(jax.random.key(0), x, mutable=True,
                             capture_intermediates=True),
      jax.ShapeDtypeStruct((1, *shape), jnp.float32))
  params = traverse_util.flatten_dict(nn.unbox(made['params']))
  outputs = traverse_util.flatten_dict(made['intermediates'])
  macs = numbers = 0
  for path, kernel in params.items():
    if path[-1] == 'kernel':
      output = outputs[(*path[:-1], '__call__')][0]
      # One kernel for each position of the output.
      macs += math.prod(output.shape[:-1]) * kernel.size
      numbers += output.size
  return {'parameters': sum(leaf.size for leaf in params.values()),
          'macs': macs, 'outputs': numbers}
