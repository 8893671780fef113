"""Terms of an auto-encoder's loss, for every task that trains one.

arXiv 2501.09755, equation 1, without the adversarial term:

  pixel + ssim_weight * (1 - SSIM) + lpips_weight * LPIPS + kl_weight * KL
    + feature_weight * distance of a frozen network's features (ViTok-v2)

Pixel losses and SSIM are means over the numbers of an example, LPIPS and SSIM
means over its frames. With `loss.kl_reduction='mean'`, the paper's form, so is
KL over the floats of the code. With 'sum' a nat costs the same whatever the
size of the code: sum of squared errors + kl_weight * nats, the whole divided by
the numbers of an example to stay on the same scale. A discrete code costs its
bottleneck's losses instead (`models.bottlenecks`), each with its weight:
commitment_weight, codebook_weight, entropy_weight.

Of an image at its own size the pixel loss alone is of the whole. SSIM and the
networks need squares: they see one of `loss.feature_tile`, drawn anew at every
step (`native.tile`).

All is per example; B examples.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vitok import errors, sizes
from vitok.data import native
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
    at_own_size = config.data.crop == native.CROP
    # Side of the squares that SSIM and networks are given.
    self._side = loss.feature_tile if at_own_size else side
    self._pixel = pixels.pixel(loss.pixel)
    errors.one_of('config.loss.lpips_network', loss.lpips_network, tuple(LPIPS))
    errors.one_of('config.loss.feature_network', loss.feature_network,
                  tuple(features.NETWORKS))
    dtype = layers.DTYPES[config.model.dtype]
    self._distances = {}  # Term -> (its weight, the distance of a network).
    needs = {}  # Term -> (what it is called, pixels of a side at least).
    if loss.lpips_weight:
      distance = lpips.LPIPS(LPIPS[loss.lpips_network], dtype)
      needs['lpips'] = loss.lpips_network, distance.smallest
      self._distances['lpips'] = loss.lpips_weight, distance
    if loss.feature_weight:
      distance = features.Features(loss.feature_network, loss.feature_tile,
                                   dtype)
      needs['features'] = loss.feature_network, distance.smallest
      self._distances['features'] = loss.feature_weight, distance
    if loss.ssim_weight:
      needs['ssim'] = 'SSIM', image_metrics.SSIM_WINDOW
    (_check_tile if at_own_size else _check_sides)(config, needs)

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
            frozen: Mapping[str, Any], where: jax.Array | None = None,
            tile: Callable[[jax.Array], jax.Array] = lambda image: image
            ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What the reconstruction costs, differentiable everywhere.

    Args:
      original, made: (B, T, H, W, C) in [-1, 1].
      frozen: parameters by the names of `weights`.
      where: mask of the pixels that count in the pixel loss, broadcast to the
        images; `None` is all.
      tile: makes of images (B, T, H, W, C) those that all other terms see.

    Returns:
      The weighted sum (B,), and each term before its weight: 'l2' (or the
      other pixel loss), 'dssim', 'lpips' and 'features' where they have one.
    """
    loss = self._loss
    total = pixel = self._pixel(original, made, where)
    terms = {loss.pixel: pixel}
    original, made = tile(original), tile(made)
    if loss.ssim_weight:
      terms['dssim'] = structural.dissimilarity(original, made)
      total += loss.ssim_weight * terms['dssim']
    for term, (weight, distance) in self._distances.items():
      terms[term] = distance(frozen[distance.weights], original, made)
      total += weight * terms[term]
    return total, terms

  def code(self, code: Any) -> jax.Array:
    """What the code costs, (B,); zero without a prior or a codebook."""
    losses, loss = code.losses, self._loss
    total = jnp.zeros(len(code.z))
    for name, value in losses.items():
      if name not in ('kl_sum', 'kl_mean'):  # One of these counts, below.
        total += loss[f'{name}_weight'] * value
    if 'kl_sum' not in losses:
      return total
    if loss.kl_reduction == 'mean':
      return total + loss.kl_weight * losses['kl_mean']
    return total + loss.kl_weight * losses['kl_sum'] / math.prod(self._shape)

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
    frames, costs = self._shape[0], {}
    for _, distance in self._distances.values():
      one = distance.count((self._side, self._side, 3))
      itemsize = jnp.dtype(distance.dtype).itemsize
      costs[distance.weights] = {
          'parameters': one['parameters'],
          'macs': frames * one['macs'],
          # 2 FLOP a MAC; a backward pass without updates is one product more.
          'train_step': 2 * 3 * frames * one['macs'],
          'memory': 4 * one['parameters'] + (
              2 * batch * frames * one['outputs'] * itemsize)}
    return costs


def _check_sides(config, needs):
  """Refuses squares of which a term sees too few pixels."""
  side, tile = config.data.resolution, config.loss.feature_tile
  for term, (name, smallest) in needs.items():
    key, seen = 'data.resolution', side
    if term == 'features' and tile:
      key, seen = 'loss.feature_tile', tile
      if side % tile:
        raise errors.InputError(
            f'config.{key}', tile, f'does not divide config.data.resolution='
            f'{side}', math.gcd(side, tile))
    if seen < smallest:
      raise errors.InputError(f'config.{key}', seen,
                              f'is too small for {name}', smallest)


def _check_tile(config, needs):
  """Refuses a tile of images at their own size that no image could fill, that
  cuts through patches, or that is too small for a term."""
  if not needs:
    return
  name, smallest = max(needs.values(), key=lambda need: need[1])
  patch, most = sizes.from_config(config.model).patch, config.data.resolution
  least, tile = -(-smallest // patch) * patch, config.loss.feature_tile
  if least > most:
    raise errors.InputError('config.data.resolution', most,
                            f'is too small for {name}', least)
  if tile % patch or not least <= tile <= most:
    nearest = min(max(round(tile / patch) * patch, least), most)
    raise errors.InputError(
        'config.loss.feature_tile', tile, f'config.data.crop={native.CROP!r} '
        f'shows {name} a tile of each image, of whole patches of {patch} and '
        f'{least} to {most} pixels', nearest if tile else most)
