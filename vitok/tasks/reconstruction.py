"""Reconstruction, stage 1 of ViTok without perceptual terms.

Loss (arXiv 2501.09755, eq. 1): pixel loss + kl_weight * KL. With
`loss.kl_reduction='mean'`, the paper's form, both terms are means over the
numbers of an example (pixels; floats of the code). With 'sum' a nat costs the
same whatever the size of the code: sum of squared errors + kl_weight * nats,
the whole divided by the number of pixels to stay on the same scale.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from vitok import accounting, models, sizes
from vitok.losses import pixels
from vitok.tasks import base, evaluation


class Reconstruction:
  """One player, the auto-encoder; see `base.Task`."""

  weights: dict[str, base.WeightRef] = {}

  def __init__(self, config: Any):
    self._config = config
    self.model = models.build(config.model, frames=config.data.frames,
                              resolution=config.data.resolution)
    self.players = (base.Player(
        base.AUTOENCODER, self._grad, ema_decay=config.ema_decay,
        additive=True),)
    self._pixel = pixels.pixel(config.loss.pixel)

  def init(self, key: jax.Array):
    shape = self._config.data
    image = jnp.zeros((1, shape.frames, shape.resolution, shape.resolution, 3))
    variables = dict(self.model.init(key, image))
    params = variables.pop('params')
    return {base.AUTOENCODER: params}, {base.AUTOENCODER: variables}

  def _grad(self, state, frozen, batch, key, carry):
    del frozen, carry
    name = base.AUTOENCODER
    (_, (metrics, stats)), grads = jax.value_and_grad(
        self.loss, has_aux=True)(state.params[name], state.stats[name],
                                 batch, key)
    return base.Result(grads=grads, stats=stats, metrics=metrics)

  def loss(self, params, stats, batch, key):
    """Returns (scalar loss, (metrics, new statistics)) of a batch."""
    config = self._config.loss
    image = batch['image']
    (reconstruction_, out), stats = self.model.apply(
        {'params': params, **stats}, image,
        keys=base.example_keys(key, batch['row']), train=True,
        mutable=list(stats))
    pixel = self._pixel(image, reconstruction_)
    total, code = pixel, out['code']
    if 'kl_sum' in code.losses:
      numbers = math.prod(image.shape[1:])
      kl = (code.losses['kl_mean'] if config.kl_reduction == 'mean'
            else code.losses['kl_sum'] / numbers)
      total = total + config.kl_weight * kl
    metrics = {'loss': total, config.pixel: pixel, **code.losses}
    metrics = {name: base.masked_mean(value, batch['mask'])
               for name, value in metrics.items()}
    return metrics['loss'], (metrics | code.stats, stats)

  def evaluators(self):
    return (evaluation.Reconstruction(self.model, self._config),)

  def cost(self, devices: int = 1) -> dict[str, Any]:
    config = self._config
    model = config.model
    bottleneck = models.BOTTLENECKS[model.bottleneck]
    return accounting.describe(
        sizes.from_config(model), config.data.frames, config.data.resolution,
        batch=config.batch_size // config.optimizer.accumulate,
        **{name: model[name] for name in accounting.OPTIONS},
        remat=model.remat, dtype=model.dtype, attention=model.attention,
        ema=config.ema_decay > 0,
        mesh=config.mesh.to_dict(), sharding=config.sharding, devices=devices,
        code_projection=bottleneck.code_projection)
