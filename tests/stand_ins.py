"""Small networks in the place of published ones, for tests of the wiring."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vitok import sizes
from vitok.interop import weights
from vitok.losses import features as feature_losses
from vitok.metrics import networks
from vitok.models.features import dinov2

FEATURES = 4
_NAMES = ('inception_fid', 'lpips_alexnet')


def install(monkeypatch, folder):
  """Puts them and their weights where the real ones are looked for."""
  rng = np.random.default_rng(0)
  monkeypatch.setenv(weights.CACHE_VARIABLE, str(folder))
  for name in _NAMES:
    weights.save(name, {'w': rng.standard_normal((3, FEATURES)).astype('f4')},
                 'a stand-in')
  monkeypatch.setitem(networks.FEATURES, 'inception_fid', networks.Network(
      ('inception_fid',), lambda frozen, x: features(
          frozen['inception_fid']['w'], x)))
  monkeypatch.setitem(networks.DISTANCES, 'lpips_alexnet', networks.Network(
      ('lpips_alexnet',), lambda frozen, x, y: distances(
          frozen['lpips_alexnet']['w'], x, y)))


def install_dinov2(monkeypatch, folder):
  """Puts a small one of random weights where 'dinov2_base' is looked for."""
  network = dinov2.DINOv2(sizes.Tower(48, 2, 2), side=3)
  monkeypatch.setitem(feature_losses.NETWORKS, 'dinov2_base',
                      lambda dtype: network)
  params = nn.unbox(jax.jit(network.init)(
      jax.random.key(0), jnp.zeros((1, 28, 28, 3))))['params']
  rng = np.random.default_rng(0)  # Larger: at first blocks do next to nothing.
  monkeypatch.setenv(weights.CACHE_VARIABLE, str(folder))
  weights.save('dinov2_base', jax.tree.map(
      lambda p: np.float32(p + 0.1 * rng.normal(size=p.shape)), params),
               'a stand-in')


def features(w, x, xp=jnp):
  """(B, T, FEATURES) of uint8 (B, T, H, W, 3): of the pixels' deviations."""
  x = xp.asarray(x).astype('float32') / 255
  return xp.square(xp.tanh(x @ w)).mean((2, 3))


def distances(w, x, y, xp=jnp):
  """(B,), mean over frames of the features' absolute difference."""
  return xp.abs(features(w, x, xp) - features(w, y, xp)).mean((1, 2))
