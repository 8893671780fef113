"""Small networks in the place of published ones, for tests of the wiring."""

import jax.numpy as jnp
import numpy as np

from vitok.interop import weights
from vitok.metrics import networks

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


def features(w, x, xp=jnp):
  """(B, T, FEATURES) of uint8 (B, T, H, W, 3): of the pixels' deviations."""
  x = xp.asarray(x).astype('float32') / 255
  return xp.square(xp.tanh(x @ w)).mean((2, 3))


def distances(w, x, y, xp=jnp):
  """(B,), mean over frames of the features' absolute difference."""
  return xp.abs(features(w, x, xp) - features(w, y, xp)).mean((1, 2))
