"""ResNet50 as Keras has it since its first version (arXiv 1512.03385).

Unlike torchvision's: images are BGR levels minus channel means, the stride of
a stage lies on its first 1x1 convolution, and convolutions have biases.

Letters: N images, H height, W width, C channels.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vitok.models.features import layers

MEAN_BGR = (103.939, 116.779, 123.68)  # Of ImageNet, levels of 255.
FEATURES = 2048
CLASSES = 1000
_EPSILON = 1e-3
# Width of the inner convolutions, and blocks, of stages 2 to 5.
_STAGES = {2: (64, 3), 3: (128, 4), 4: (256, 6), 5: (512, 3)}


class _Block(nn.Module):
  """relu(shortcut + three convolutions)."""
  width: int
  strides: int
  projects: bool

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    def unit(x, name, width, kernel=1, strides=1):
      x = layers.conv(width, (kernel, kernel), strides, 'SAME',
                      name=f'conv_{name}')(x)
      return layers.BatchNorm(_EPSILON, name=f'norm_{name}')(x)

    y = nn.relu(unit(x, '2a', self.width, 1, self.strides))
    y = nn.relu(unit(y, '2b', self.width, 3))
    y = unit(y, '2c', 4 * self.width)
    if self.projects:
      x = unit(x, '1', 4 * self.width, 1, self.strides)
    return nn.relu(x + y)


class ResNet50(nn.Module):
  """Images to the tokens of the last stage, their mean and 1000 logits."""

  @nn.compact
  def __call__(self, x_NxHxWx3: jax.Array) -> dict[str, jax.Array]:
    """`{'tokens': (N, H/32, W/32, 2048), 'features': (N, 2048), 'logits'}`.

    Args:
      x_NxHxWx3: floats in [-1, 1], at least 32 x 32 pixels (ImageNet's
        training saw 224 x 224).
    """
    layers.check_images(x_NxHxWx3, 'ResNet50', smallest=32)
    levels = (x_NxHxWx3.astype(jnp.float32) + 1) * 127.5
    x = levels[..., ::-1] - jnp.array(MEAN_BGR)
    x = layers.conv(64, (7, 7), 2, 3, name='conv1')(x)
    x = nn.relu(layers.BatchNorm(_EPSILON, name='bn_conv1')(x))
    x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    for stage, (width, depth) in _STAGES.items():
      for k in range(depth):
        x = _Block(width, 2 if k == 0 and stage > 2 else 1, k == 0,
                   name=f'{stage}{"abcdef"[k]}')(x)
    features = x.mean((1, 2))
    logits = nn.Dense(CLASSES, precision=jax.lax.Precision.HIGHEST,
                      name='fc1000')(features)
    return {'tokens': x, 'features': features, 'logits': logits}


def from_keras(arrays: Mapping[str, np.ndarray]) -> dict:
  """Parameters from Keras' arrays ('res2a_branch2a/kernel', ...)."""
  leaves = {'gamma': 'scale', 'beta': 'bias', 'moving_mean': 'mean',
            'moving_variance': 'var'}
  params = {}
  for name, array in arrays.items():
    layer, leaf = name.split('/')
    path = [layer]
    if '_branch' in layer:  # 'res2a_branch2b' or 'bn2a_branch2b'.
      block, branch = layer.split('_branch')
      kind = 'conv' if block.startswith('res') else 'norm'
      path = [block.removeprefix('res').removeprefix('bn'), f'{kind}_{branch}']
    node = params
    for part in path:
      node = node.setdefault(part, {})
    node[leaves.get(leaf, leaf)] = array
  return params
