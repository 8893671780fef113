"""Networks that numbers are measured with: which weights, fed with what.

Names are those of `numbers.NETWORKS`; their weights are files of
`vitok.interop.weights`, by whose names `frozen` holds their parameters.

B: examples, T: frames, H: height, W: width, D: features.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vitok.interop import weights
from vitok.losses import lpips
from vitok.metrics import image as image_metrics
from vitok.models import features

Frozen = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Network:
  """A frozen network.

  Attributes:
    files: names of its weights.
    function: of a distance: `(frozen, x, y) -> (B,)` of uint8 (B, T, H, W, 3);
      of features: `(frozen, x) -> (B, T, D)`, T being 1 if clips have one.
  """
  files: tuple[str, ...]
  function: Callable[..., jax.Array]

  def apply(self, *arguments: Any) -> jax.Array:
    """`function`; refuses arrays that are not this network's."""
    with weights.fit(*self.files):
      return self.function(*arguments)


def _lpips(name: str) -> Network:
  network = lpips.LPIPS(name)

  def apply(frozen, x, y):
    x, y = (levels.astype(jnp.float32) / (image_metrics.LEVELS / 2) - 1
            for levels in (x, y))
    return network(frozen[network.weights], x, y)
  return Network((network.weights,), apply)


def _of_frames(network: Any, params: Any, x: jax.Array) -> dict[str, jax.Array]:
  out = network.apply({'params': params}, x.reshape(-1, *x.shape[2:]))
  return {name: value.reshape(*x.shape[:2], -1) for name, value in out.items()}


def _inception(frozen: Frozen, x: jax.Array) -> jax.Array:
  return _of_frames(features.Inception(), frozen['inception_fid'],
                    x)['features']


def _classes(frozen: Frozen, x: jax.Array) -> jax.Array:
  params = {**frozen['inception_fid'], **frozen['inception_fid_head']}
  return _of_frames(features.Inception(head=True), params, x)['logits']


def _torchvision(frozen: Frozen, x: jax.Array, out: str) -> jax.Array:
  return _of_frames(features.Inception(head=True, torchvision=True),
                    frozen['inception_torchvision'], x)[out]


def _i3d(frozen: Frozen, x: jax.Array) -> jax.Array:
  return features.I3D().apply({'params': frozen['i3d']}, x)[:, None]


DISTANCES = {'lpips_vgg16': _lpips('vgg16'),
             'lpips_alexnet': _lpips('alexnet')}
FEATURES = {
    'inception_fid': Network(('inception_fid',), _inception),
    'inception_fid_head': Network(('inception_fid', 'inception_fid_head'),
                                  _classes),
    'inception_torchvision': Network(
        ('inception_torchvision',),
        functools.partial(_torchvision, out='features')),
    'inception_torchvision_head': Network(
        ('inception_torchvision',),
        functools.partial(_torchvision, out='logits')),
    'i3d': Network(('i3d',), _i3d),
}


def files(network: str) -> tuple[str, ...]:
  """Names of a network's weights, () for no network."""
  return (DISTANCES | FEATURES)[network].files if network else ()


def missing(network: str) -> str:
  """Why a network cannot be used, with the command that gets it; '' if it can.

  Args:
    network: key of `numbers.NETWORKS`.
  """
  return '; '.join(f'get its network with `{weights.command(name)}`'
                   for name in files(network) if not weights.is_cached(name))


def sha256(network: str) -> str:
  """Hash of a network's weights, of all files; '' for no network."""
  return '+'.join(weights.describe(name).sha256 for name in files(network))
