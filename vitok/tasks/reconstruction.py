"""Reconstruction, stage 1 of ViTok; its loss is in `objective`."""

from typing import Any

import jax
import jax.numpy as jnp

from vitok import accounting, models, sizes
from vitok.data import native as native_data
from vitok.tasks import base, evaluation, native, objective


class Reconstruction:
  """One player, the auto-encoder; see `base.Task`."""

  def __init__(self, config: Any):
    self._config = config
    self.model = models.build(config.model, frames=config.data.frames,
                              resolution=config.data.resolution)
    self.players = (base.Player(
        base.AUTOENCODER, self._grad, ema_decay=config.ema_decay,
        additive=models.BOTTLENECKS[config.model.bottleneck].additive),)
    self._objective = objective.Objective(config)
    at_own_size = config.evaluation.crop == native_data.CROP
    self._evaluator = (native.Evaluator if at_own_size else
                       evaluation.Reconstruction)(self.model, config)

  @property
  def weights(self) -> dict[str, base.WeightRef]:
    return self._objective.weights | self._evaluator.weights

  @property
  def evaluation_weights(self) -> dict[str, base.WeightRef]:
    return self._evaluator.weights

  def init(self, key: jax.Array):
    shape = self._config.data
    image = jnp.zeros((1, shape.frames, shape.resolution, shape.resolution, 3))
    variables = dict(self.model.init(key, image))
    params = variables.pop('params')
    return {base.AUTOENCODER: params}, {base.AUTOENCODER: variables}

  def _grad(self, state, frozen, batch, key, carry):
    del carry
    name = base.AUTOENCODER
    (_, (metrics, stats)), grads = jax.value_and_grad(
        self.loss, has_aux=True)(state.params[name], state.stats[name],
                                 frozen, batch, key)
    return base.Result(grads=grads, stats=stats, metrics=metrics)

  def loss(self, params, stats, frozen, batch, key):
    """Returns (scalar loss, (metrics, new statistics)) of a batch."""
    image, keys = batch['image'], base.example_keys(key, batch['row'])
    (reconstruction_, out), stats = self.model.apply(
        {'params': params, **stats}, image, keys=keys, train=True,
        patches=native.patches(batch), mutable=list(stats))
    code = out['code']
    total, terms = self._objective.image(
        image, reconstruction_, frozen, native.pixels(batch),
        native.tile(batch, keys, self._config.loss.feature_tile))
    total += self._objective.code(code)
    metrics = {'loss': total, **terms, **code.losses}
    metrics = {name: base.masked_mean(value, batch['mask'])
               for name, value in metrics.items()}
    return metrics['loss'], (metrics | code.stats, stats)

  def evaluators(self):
    return (self._evaluator,)

  def cost(self, devices: int = 1) -> dict[str, Any]:
    """As `accounting.describe`, and 'losses': networks that only the loss
    uses. Their FLOPs are apart from all others, their memory in the sum."""
    config = self._config
    model = config.model
    cost = accounting.describe(
        sizes.from_config(model), config.data.frames, config.data.resolution,
        batch=config.batch_size // config.optimizer.accumulate,
        **models.arithmetic(model),
        remat=model.remat, dtype=model.dtype, attention=model.attention,
        ema=config.ema_decay > 0,
        mesh=config.mesh.to_dict(), sharding=config.sharding, devices=devices)
    networks = self._networks(self._local_batch(devices))
    cost['losses'] = networks
    more = sum(one['memory'] for one in networks.values())
    total = cost['memory'].pop('total')
    cost['memory'] |= {'losses': more, 'total': total + more}
    return cost

  def _local_batch(self, devices):
    """Examples of a micro-batch that a device holds."""
    mesh = accounting.resolve_mesh(self._config.mesh.to_dict(), devices)
    return -(-self._config.batch_size // (
        self._config.optimizer.accumulate * mesh['replica'] * mesh['fsdp']))

  def _networks(self, batch: int) -> dict[str, dict[str, int]]:
    """Cost of the networks that only the loss uses; see `objective`."""
    return self._objective.cost(batch)
