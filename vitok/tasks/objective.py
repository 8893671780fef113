"""Terms of an auto-encoder's loss, for every task that trains one.

arXiv 2501.09755, equation 1, without the adversarial term:

  pixel + ssim_weight * (1 - SSIM) + lpips_weight * LPIPS + kl_weight * KL
    + feature_weight * distance of a frozen network's features (ViTok-v2)

Pixel losses and SSIM are means over the numbers of an example, LPIPS and SSIM
means over its frames. With `loss.kl_reduction='mean'`, the paper's form, so is
KL over the floats of the code. With 'sum' a nat costs the same whatever the
size of the code: sum of squared errors + kl_weight * nats, the whole divided by
the numbers of an example to stay on the same scale.

All is per example; B examples.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vitok import errors
from vitok.interop import weights
from vitok.losses import features, lpips, pixels, structural
from vitok.metrics import image as image_metrics
from vitok.models import layers
from vitok.tasks import base

LPIPS = {f'lpips_{network}': network for network in lpips.NETWORKS}


class Objective:
  """The loss that a config describes.

  Args:
    config: of the run.

  Raises:
    InputError: an unknown choice, or images that a term cannot measure.
  """

  def __init__(self, config: Any):
    loss, side = config.loss, config.data.resolution
    self._loss = loss
    self._shape = (config.data.frames, side, side, 3)
    self._pixel = pixels.pixel(loss.pixel)
    errors.one_of('config.loss.lpips_network', loss.lpips_network, tuple(LPIPS))
    errors.one_of('config.loss.feature_network', loss.feature_network,
                  tuple(features.NETWORKS))
    dtype = layers.DTYPES[config.model.dtype]
    self._distances = {}  # Term -> (its weight, the distance of a network).
    if loss.lpips_weight:
      distance = lpips.LPIPS(LPIPS[loss.lpips_network], dtype)
      _check_side(side, distance.smallest, loss.lpips_network)
      self._distances['lpips'] = loss.lpips_weight, distance
    if loss.feature_weight:
      tile = loss.feature_tile
      if tile and side % tile:
        raise errors.InputError(
            'config.loss.feature_tile', tile, 'does not divide '
            f'config.data.resolution={side}', math.gcd(side, tile))
      distance = features.Features(loss.feature_network, tile, dtype)
      _check_side(tile or side, distance.smallest, loss.feature_network,
                  'loss.feature_tile' if tile else 'data.resolution')
      self._distances['features'] = loss.feature_weight, distance
    if loss.ssim_weight:
      _check_side(side, image_metrics.SSIM_WINDOW, 'SSIM')

  @functools.cached_property
  def weights(self) -> dict[str, base.WeightRef]:
    """Of frozen networks; reads the heads of their files.

    Raises:
      InputError: a file is not there; says the command that fetches it.
    """
    infos = [weights.describe(distance.weights)
             for _, distance in self._distances.values()]
    return {info.name: base.WeightRef(
        info.source, info.sha256, functools.partial(weights.load, info.name))
            for info in infos}

  def image(self, original: jax.Array, made: jax.Array,
            frozen: Mapping[str, Any], where: jax.Array | None = None
            ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What the reconstruction costs, differentiable everywhere.

    Args:
      original, made: (B, T, H, W, C) in [-1, 1].
      frozen: parameters by the names of `weights`.
      where: mask of the pixels that count, broadcast to the images, where
        there is a pixel loss alone; `None` is all.

    Returns:
      The weighted sum (B,), and each term before its weight: 'l2' (or the
      other pixel loss), 'dssim', 'lpips' and 'features' where they have one.
    """
    loss = self._loss
    total = pixel = self._pixel(original, made, where)
    terms = {loss.pixel: pixel}
    if loss.ssim_weight:
      terms['dssim'] = structural.dissimilarity(original, made)
      total += loss.ssim_weight * terms['dssim']
    for term, (weight, distance) in self._distances.items():
      terms[term] = distance(frozen[distance.weights], original, made)
      total += weight * terms[term]
    return total, terms

  def code(self, code: Any) -> jax.Array:
    """What the code costs, (B,); zero without a prior."""
    losses, weight = code.losses, self._loss.kl_weight
    if 'kl_sum' not in losses:
      return jnp.zeros(len(code.z))
    if self._loss.kl_reduction == 'mean':
      return weight * losses['kl_mean']
    return weight * losses['kl_sum'] / math.prod(self._shape)

  def cost(self, batch: int) -> dict[str, dict[str, int]]:
    """What the networks of the loss cost, by name.

    Args:
      batch: examples of a (micro-)batch on one device.

    Returns:
      {name: {'parameters' (without heads), 'macs' (forward, one example),
      'train_step' (FLOP of an example: two forward passes, of the original and
      of what was made, and one backward pass to the pixels), 'memory' (bytes
      per device: parameters, and the activations of both passes)}}.
    """
    frames, *image = self._shape
    costs = {}
    for _, distance in self._distances.values():
      one = distance.count(image)
      itemsize = jnp.dtype(distance.dtype).itemsize
      costs[distance.weights] = {
          'parameters': one['parameters'],
          'macs': frames * one['macs'],
          # 2 FLOP a MAC; a backward pass without updates is one product more.
          'train_step': 2 * 3 * frames * one['macs'],
          'memory': 4 * one['parameters'] + (
              2 * batch * frames * one['outputs'] * itemsize)}
    return costs


def _check_side(side, smallest, name, key='data.resolution'):
  if side < smallest:
    raise errors.InputError(f'config.{key}', side, f'is too small for {name}',
                            smallest)
