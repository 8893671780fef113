"""DINOv2, a self-supervised ViT (arXiv 2304.07193; registers: 2309.16588).

Letters: N images, H height, W width, L tokens, D width, h and w patches along
height and width, P patches along a side of the images it was trained on.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vitok import sizes
from vitok.models import autoencoder, layers, stack
from vitok.models.features import layers as feature_layers
from vitok.models.features import vgg

PATCH = 14
SIDE = 37  # P of the published networks: 518 pixels.
_TOWERS = {
    'small': sizes.Tower(384, 12, 6),
    'base': sizes.Tower(768, 12, 12),
    'large': sizes.Tower(1024, 24, 16),
    'giant': sizes.Tower(1536, 40, 24),
}
_INIT = nn.initializers.normal(0.02)  # Of what is always loaded.


class DINOv2(nn.Module):
  """Images to tokens.

  Attributes:
    tower: dimensions.
    mlp: key of `models.layers.MLPS`.
    registers: tokens beside the class token and the patches. Networks that
      have them interpolate positions with antialiasing.
    side: P, of the table of positions.
    dtype: of matrix products.
  """
  tower: sizes.Tower
  mlp: str = 'gelu'
  registers: int = 0
  side: int = SIDE
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x_NxHxWx3: jax.Array, taps: Sequence[int] = ()
               ) -> dict[str, jax.Array]:
    """`{'tokens': (N, h, w, D), 'features': (N, D), 'taps': {k: (N, L, D)}}`.

    Tokens and features (the class token) come after the last norm, taps (block
    k's output: class, registers, patches) before it. Images whose sides are no
    multiples of the patch are enlarged to the next ones, bilinearly.

    Args:
      x_NxHxWx3: floats in [-1, 1].
      taps: numbers of blocks.
    """
    feature_layers.check_images(x_NxHxWx3, 'DINOv2')
    n, *size, _ = x_NxHxWx3.shape
    grid = tuple(-(-pixels // PATCH) for pixels in size)
    x = x_NxHxWx3.astype(jnp.float32)
    if size != [PATCH * k for k in grid]:
      x = jax.image.resize(
          x, (n, PATCH * grid[0], PATCH * grid[1], 3), 'bilinear')
    x = (x - jnp.array(vgg.MEAN)) / jnp.array(vgg.DEVIATION)
    width = self.tower.width
    x_NxLxD = layers.Linear(width, ('patch', 'embed'), dtype=self.dtype,
                            name='embed')(
        autoencoder.patchify(x[:, None], 1, PATCH))
    positions_LxD = self.param('positions', _INIT, (1 + self.side**2, width))
    x_NxLxD += resize_positions(
        positions_LxD[1:], grid, self.registers > 0).astype(self.dtype)
    first = [self.param('class', _INIT, (1, width)) + positions_LxD[:1]]
    if self.registers:
      first.append(self.param('registers', _INIT, (self.registers, width)))
    first_LxD = jnp.concatenate(first).astype(self.dtype)
    x_NxLxD = jnp.concatenate([
        jnp.broadcast_to(first_LxD, (n, *first_LxD.shape)), x_NxLxD], 1)
    block = stack.Block(self.tower, self.mlp, layer_scale=1.0,
                        dtype=self.dtype, name='blocks')
    x_NxLxD, tapped, _ = stack.stack(
        block, self.tower.depth, x_NxLxD, None, taps=taps)
    x_NxLxD = layers.LayerNorm(jnp.float32, name='norm')(x_NxLxD)
    return {'tokens': x_NxLxD[:, 1 + self.registers:].reshape(
        n, *grid, width), 'features': x_NxLxD[:, 0], 'taps': tapped}

  def count(self, shape: Sequence[int]) -> dict[str, int]:
    """As `models.counting.count`, of images (H, W, 3), by arithmetic.

    A loop over blocks shows that function only one of them.
    """
    patches = -(-shape[0] // PATCH) * -(-shape[1] // PATCH)
    tokens, tower = patches + 1 + self.registers, self.tower
    width, hidden = tower.width, tower.hidden(self.mlp)
    maps = 3 if self.mlp == 'swiglu' else 2
    one = (4 * width**2 + maps * width * hidden, 2 * tokens * width)
    numbers = 5 * width + (maps - 1) * hidden + tower.heads * tokens
    embed = 3 * PATCH**2 * width
    made = jax.eval_shape(self.init, jax.random.key(0),
                          jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    return {
        'parameters': sum(leaf.size for leaf in jax.tree.leaves(made)),
        'macs': patches * embed + tokens * tower.depth * sum(one),
        'outputs': patches * width + tokens * tower.depth * numbers}


def make(name: str, dtype: jnp.dtype = jnp.float32) -> DINOv2:
  """The network of a name in `interop.weights.REPOSITORIES`."""
  _, size, *registers = name.split('_')
  return DINOv2(_TOWERS[size], 'swiglu' if size == 'giant' else 'gelu',
                4 if registers else 0, dtype=dtype)


def resize_positions(table_PPxD: jax.Array, grid: tuple[int, int],
                     antialias: bool) -> jax.Array:
  """A square table at another grid, as PyTorch's bicubic `interpolate`."""
  side = int(table_PPxD.shape[0]**0.5)
  if grid == (side, side):
    return table_PPxD
  rows, columns = (_cubic(side, n, antialias) for n in grid)
  table = table_PPxD.reshape(side, side, -1)
  return jnp.einsum('hp,wq,pqd->hwd', rows, columns, table,
                    precision=jax.lax.Precision.HIGHEST).reshape(
                        -1, table.shape[-1])


def _cubic(inputs, outputs, antialias):
  """(outputs, inputs) weights. PyTorch's cubic has another sharpness with
  antialiasing (-0.5) than without (-0.75), and another border: it drops what
  lies outside, where it otherwise repeats the edge."""
  a = -0.5 if antialias else -0.75
  scale = inputs / outputs
  wide = max(scale, 1.0) if antialias else 1.0
  centre = (np.arange(outputs) + 0.5) * scale - 0.5
  reach = int(np.ceil(2 * wide)) + 1
  matrix = np.zeros((outputs, inputs))
  for offset in range(-reach, reach + 1):
    place = np.floor(centre) + offset
    t = np.abs(place - centre) / wide
    weight = np.where(
        t <= 1, (a + 2) * t**3 - (a + 3) * t**2 + 1,
        np.where(t < 2, a * (t**3 - 5 * t**2 + 8 * t - 4), 0.0))
    inside = (place >= 0) & (place < inputs)
    if antialias:
      weight = weight * inside
    np.add.at(matrix, (np.arange(outputs),
                       np.clip(place, 0, inputs - 1).astype(int)), weight)
  return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)


def from_huggingface(state: Mapping[str, np.ndarray], network: DINOv2) -> dict:
  """Parameters from the tensors of a published `model.safetensors`.

  Raises:
    ValueError: a tensor is missing, unknown or of the wrong shape.
  """
  state = dict(state)

  def take(name):
    if name not in state:
      raise ValueError(f'has no tensor {name}')
    return np.asarray(state.pop(name), np.float32)

  def linear(*names):  # One, or several side by side.
    return {'kernel': np.concatenate(
                [take(f'{name}.weight').T for name in names], -1),
            'bias': np.concatenate([take(f'{name}.bias') for name in names])}

  def norm(name):
    return {'scale': take(f'{name}.weight'), 'bias': take(f'{name}.bias')}

  def by_head(qkv):  # Columns by q, k, v, head: by head, q, k, v.
    heads = network.tower.heads
    split = lambda x: x.reshape(*x.shape[:-1], 3, heads, -1)
    return {leaf: split(x).swapaxes(-3, -2).reshape(x.shape)
            for leaf, x in qkv.items()}

  def mlp(name):
    if network.mlp == 'gelu':
      return {'up': linear(f'{name}.fc1'), 'down': linear(f'{name}.fc2')}
    both = linear(f'{name}.weights_in')
    gate, value = ({leaf: np.split(x, 2, -1)[k] for leaf, x in both.items()}
                   for k in (0, 1))
    return {'gate': gate, 'value': value, 'down': linear(f'{name}.weights_out')}

  def block(name):
    attention = f'{name}.attention'
    return {
        'norm1': norm(f'{name}.norm1'), 'norm2': norm(f'{name}.norm2'),
        'attention': {
            'qkv': by_head(linear(*(f'{attention}.attention.{part}' for part in
                                    ('query', 'key', 'value')))),
            'out': linear(f'{attention}.output.dense')},
        'layer_scale1': take(f'{name}.layer_scale1.lambda1'),
        'layer_scale2': take(f'{name}.layer_scale2.lambda1'),
        'mlp': mlp(f'{name}.mlp')}

  embed = 'embeddings.patch_embeddings.projection'
  weight = take(f'{embed}.weight').transpose(2, 3, 1, 0)
  params = {
      'embed': {'kernel': weight.reshape(-1, weight.shape[-1]),
                'bias': take(f'{embed}.bias')},
      'class': take('embeddings.cls_token')[0],
      'positions': take('embeddings.position_embeddings')[0],
      'blocks': jax.tree.map(lambda *x: np.stack(x), *(
          block(f'encoder.layer.{k}') for k in range(network.tower.depth))),
      'norm': norm('layernorm')}
  if network.registers:
    params['registers'] = take('embeddings.register_tokens')[0]
  state.pop('embeddings.mask_token', None)  # Of its training.
  if state:
    raise ValueError(f'{min(state)} is no tensor of this network')
  return params
