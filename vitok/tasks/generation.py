"""A DiT that generates the codes of a frozen tokenizer.

ViTok's generator (arXiv 2501.09755, section 3.2 and appendix A): each token of
the code is a token of a class-conditional DiT, trained by diffusion or flow
matching on posterior samples of the code. Codes are made in the step, by the
tokenizer as the step's frozen network, or come from a cache (`codes:`).

Each channel of the code is shifted and scaled to mean 0 and variance 1
(`diffusion.normalise`), since a schedule of noise supposes a unit scale: the
variance of a code trained with a small weight on its KL is what it happens to
be. Labels below 0 count as the null class.

Dimensions: B batch, L tokens, c channels of the code.
"""

from typing import Any

import jax
import jax.numpy as jnp

from vitok import errors, sizes
from vitok.accounting import dit as accounting
from vitok.losses import diffusion
from vitok.models import dit
from vitok.sampling import (
    Schedule,
    dimension_shift,
    guided,
    predictions,
    samplers,
)
from vitok.tasks import base, samples
from vitok.tasks.tokenizer import Frozen

PLAYER = 'dit'


class Generator:
  """Network, noise and tokenizer of a config: pure functions of parameters.

  Attributes:
    tokenizer: `tokenizer.Frozen`.
    classes: of the labels; 0: unconditional.
    network: the `models.dit.DiT`; `spec` is its accounting's.

  Raises:
    InputError: an impossible field of `config.diffusion` or `generation`.
  """

  def __init__(self, config: Any):
    self._diffusion = config.diffusion
    self._interval = tuple(config.generation.interval)
    self.tokenizer = Frozen(config)
    self.classes = config.diffusion.classes
    size = self.tokenizer.model.size
    self.network = dit.build(config, self.tokenizer.grid, size.channels)
    self.spec = accounting.Spec(
        self.network.tower, self._shape[0], size.channels, self.classes,
        config.dit.mlp, config.dit.positions)
    self._schedule = Schedule(
        config.diffusion.schedule,
        config.diffusion.shift or dimension_shift(self.tokenizer.floats))
    predictions.check(config.diffusion.prediction, self._schedule)
    _check(config, self._schedule)

  def init(self, key: jax.Array) -> Any:
    """Fresh parameters, in Linen's boxes."""
    return self.network.init(
        key, jnp.zeros((1, *self._shape)), jnp.zeros(1),
        jnp.zeros(1, jnp.int32))['params']

  def codes(self, frozen: Any, batch: base.Batch,
            keys_B: jax.Array | None) -> jax.Array:
    """What the network is trained on: (B, L, c), without gradient."""
    z_BxLxc = jax.lax.stop_gradient(
        self.tokenizer.encode(frozen, batch, keys_B))
    if self._diffusion.normalise:
      z_BxLxc = (z_BxLxc - frozen['mean']) / frozen['deviation']
    return z_BxLxc

  def labels(self, batch: base.Batch) -> jax.Array:
    """(B,) labels, those of no class as the null class."""
    return jnp.where((batch['label'] < 0) | (self.classes == 0), self.classes,
                     batch['label'])

  def loss(self, params: Any, x_BxLxc: jax.Array, label_B: jax.Array,
           keys_B: jax.Array, time_B: jax.Array | None = None) -> jax.Array:
    """(B,) losses, at drawn times or the given ones."""
    arguments = (lambda z, time: self._predict(params, z, time, label_B),
                 x_BxLxc, keys_B)
    kind = self._schedule, self._diffusion.prediction
    if time_B is not None:
      return diffusion.denoising_at(*arguments, time_B, *kind)
    return diffusion.denoising(*arguments, *kind)[0]

  def sample(self, params: Any, frozen: Any, keys_B: jax.Array,
             label_B: jax.Array, guidance: float | jax.Array,
             sampler: str = '', steps: int = 0) -> jax.Array:
    """Images (B, T, H, W, C), about [-1, 1], not clipped.

    Args:
      params: of the network.
      frozen: what the tokenizer's `reference` loads.
      keys_B: (B,) keys, one a sample.
      label_B: classes to generate; negative: the null class.
      guidance: scale; 1: none.
      sampler, steps: other than the config's.
    """
    network = lambda *arguments: self._predict(params, *arguments)
    z_BxLxc = samplers.sample(
        guided(network, self.labels({'label': label_B}), self.classes,
               guidance if self.classes else 1, self._interval),
        keys_B, self._shape, self._schedule, self._diffusion.prediction,
        sampler=sampler or self._diffusion.sampler,
        steps=steps or self._diffusion.steps)
    if self._diffusion.normalise:
      z_BxLxc = z_BxLxc * frozen['deviation'] + frozen['mean']
    return self.tokenizer.decode(frozen, z_BxLxc)

  @property
  def _shape(self):
    channels = self.tokenizer.model.size.channels
    return self.tokenizer.floats // channels, channels

  def _predict(self, params, z_BxLxc, time_B, label_B):
    return self.network.apply({'params': params}, z_BxLxc, time_B, label_B)


class Generation:
  """One player, the DiT; see `base.Task`."""

  def __init__(self, config: Any):
    self._config = config
    self.generator = Generator(config)
    self._evaluator = samples.Samples(self.generator, config)
    self.players = (base.Player(
        PLAYER, self._grad, ema_decay=config.ema_decay, additive=True),)

  @property
  def weights(self) -> dict[str, base.WeightRef]:
    return {'tokenizer': self.generator.tokenizer.reference,
            **self._evaluator.weights}

  evaluation_weights = weights  # Samples need the tokenizer as well.

  def init(self, key: jax.Array):
    return {PLAYER: self.generator.init(key)}, {PLAYER: {}}

  def _grad(self, state, frozen, batch, key, carry):
    del carry
    generator, options = self.generator, self._config
    # Streams: 0 the loss's (time, noise, label), 1 the posterior's.
    keys_B, posterior_B = (base.example_keys(
        jax.random.fold_in(key, stream), batch['row']) for stream in range(2))
    x_BxLxc = generator.codes(
        frozen['tokenizer'], batch,
        posterior_B if options.tokenizer.sample else None)
    label_B = generator.labels(batch)
    if generator.classes and options.diffusion.label_dropout:
      label_B = diffusion.drop_labels(
          label_B, keys_B, options.diffusion.label_dropout, generator.classes)

    def loss(params):
      loss_B = generator.loss(params, x_BxLxc, label_B, keys_B)
      return base.masked_mean(loss_B, batch['mask'])

    value, grads = jax.value_and_grad(loss)(state.params[PLAYER])
    metrics = {'loss': value, 'code_square': base.masked_mean(
        jnp.square(x_BxLxc).mean((1, 2)), batch['mask'])}
    return base.Result(grads=grads, stats=state.stats[PLAYER], metrics=metrics)

  def evaluators(self):
    return (self._evaluator,)

  def cost(self, devices: int = 1) -> dict[str, Any]:
    """Accounting of the DiT; the tokenizer's FLOPs are under 'tokenizer',
    apart from all others, its memory is in the sum."""
    config, tokenizer = self._config, self.generator.tokenizer
    size, frames = tokenizer.model.size, config.data.frames
    cost = accounting.describe(
        self.generator.spec,
        batch=config.batch_size // config.optimizer.accumulate,
        remat=config.dit.remat, dtype=config.model.dtype,
        attention=config.model.attention, ema=config.ema_decay > 0,
        mesh=config.mesh.to_dict(), sharding=config.sharding, devices=devices)
    numbers = 3 * frames * config.data.resolution**2
    frozen = tokenizer.cost()
    cost['memory']['tokenizer'] = 4 * frozen['parameters']['total']
    cost['memory']['total'] += cost['memory']['tokenizer']
    return cost | {
        'name': f'{config.dit.name} on {sizes.name(size)}',
        'frames': frames,
        'resolution': config.data.resolution,
        'grid': list(tokenizer.grid),
        'pixels_per_float': numbers / cost['code_floats'],
        'tokenizer': frozen}


def _check(config, schedule):
  """Refuses values that no sampler can use."""
  options, generation = config.diffusion, config.generation
  errors.one_of('config.diffusion.sampler', options.sampler, samplers.NAMES)
  schedule.times(options.steps)  # Refuses their number.
  interval = tuple(generation.interval)
  if len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
    raise errors.InputError(
        'config.generation.interval', interval,
        'is not (low, high) with 0 <= low <= high <= 1', (0.0, 1.0))
  if not generation.guidance or min(generation.guidance) < 0:
    raise errors.InputError(
        'config.generation.guidance', tuple(generation.guidance),
        'is not one scale or several, none below 0', (1.0,))
  if set(generation.guidance) != {1.0} and not (
      options.classes and options.label_dropout):
    raise errors.InputError(
        'config.generation.guidance', tuple(generation.guidance),
        'needs the null class, which config.diffusion.label_dropout=0 never '
        'trains' if options.classes else
        'needs classes, and config.diffusion.classes=0 has none', (1.0,))
  for label in generation.labels:  # -1 is the null class.
    if not -1 <= label < options.classes:
      raise errors.InputError(
          'config.generation.labels', label, 'is none of the '
          f'{options.classes} classes (config.diffusion.classes)',
          -1)
