"""Stage 2 of ViTok: the decoder against a discriminator.

arXiv 2501.09755, section 2.3: the encoder is frozen, so that codes (and what
was trained on them) stay valid; the decoder goes on with a generator's loss
added, and the moving average of its parameters is the result. Players, in
their order:

  autoencoder    reconstruction loss + weight(step) * generator's loss.
  latent         no gradient: mean and variance of each channel of the code.
  discriminator  sees the autoencoder's images of the same step by `carry`.

The control is the same task with a final weight of 0. It has no discriminator
but the same batches, noise and names of metrics, so that the difference of two
runs is the adversary's doing.

Dimensions: B examples, N logits of an example, L tokens, D width, P numbers of
a patch, c channels of the code.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from vitok import config as config_lib
from vitok import errors, models
from vitok.accounting import flops as flops_lib
from vitok.interop import saved
from vitok.losses import adversarial, schedules
from vitok.models import autoencoder, counting, discriminators
from vitok.tasks import base, reconstruction, reuse

LATENT = 'latent'
DISCRIMINATOR = 'discriminator'

# What training the decoder alone leaves as it is, and how a config says so.
FROZEN = ('encoder', 'bottleneck')
_GROUPS = "({'match': '(encoder|bottleneck)/.*', 'frozen': True},)"

# Batches of which the latent's moments are the plain mean; from then on the
# old ones fade, should the encoder be trained.
LATENT_HORIZON = 1000


class Adversarial(reconstruction.Reconstruction):
  """See the top of the file, and `base.Task`.

  Args:
    config: of the run. Of `config.adversarial`,
      trained: 'decoder', or 'all' for the paper's full fine-tuning.
      schedule: of the generator's loss, see `losses.schedules`.
      adaptive: whether the scheduled weight is multiplied by the ratio of
        gradient norms at the decoder's last layer, within `adaptive_limits`.
      discriminator, width: see `models.discriminators`.
      loss: key of `losses.adversarial.LOSSES`.
      r1: gamma of the gradient penalty (0: none), taken every `r1_every` steps
        with as many times the weight.
      lecam: weight of LeCam's regularisation (0: none), whose averages have
        decay `lecam_decay`.
      optimizer: the discriminator's, fields as `config.optimizer`.

  Raises:
    InputError: an impossible option; the encoder is not frozen but should be.
  """

  def __init__(self, config: Any):
    super().__init__(config)
    self._options = options = config.adversarial
    errors.one_of('config.adversarial.trained', options.trained,
                  ('decoder', 'all'))
    self._weight = schedules.build(options.schedule,
                                   'config.adversarial.schedule')
    self._game = adversarial.loss(options.loss)
    self._discriminator = discriminators.build(
        options.discriminator, resolution=config.data.resolution,
        width=options.width, dtype=config.model.dtype)
    self._plays = options.schedule.weight > 0
    _check_limits(options.adaptive_limits)
    if options.trained == 'decoder' and not config.optimizer.groups:
      raise errors.InputError('config.optimizer.groups', (), 'does not freeze '
                              'the encoder, as stage 2 needs', _GROUPS)
    self.players = (
        base.Player(base.AUTOENCODER, self._generate,
                    ema_decay=config.ema_decay,
                    additive=not (self._plays and options.adaptive) and (
                        options.trained == 'decoder'
                        or self.players[0].additive)),
        base.Player(LATENT, self._observe, additive=True))
    if self._plays:
      self.players += (base.Player(
          DISCRIMINATOR, self._discriminate, options.optimizer,
          'config.adversarial.optimizer', additive=not options.lecam),)

  def init(self, key: jax.Array):
    params, stats = super().init(key)
    if self._options.trained == 'decoder':
      self._check_frozen(params[base.AUTOENCODER])
    zeros = jnp.zeros(self.model.size.channels)
    stats[LATENT] = {'mean': zeros, 'variance': zeros + 1,
                     'batches': jnp.zeros((), jnp.int32)}
    if self._plays:
      params[DISCRIMINATOR] = self._discriminator_params(key)
      stats[DISCRIMINATOR] = (
          adversarial.lecam_init() if self._options.lecam else {})
    return params, stats

  def _discriminator_params(self, key):
    shape = self._config.data
    image = jnp.zeros((1, shape.frames, shape.resolution, shape.resolution, 3))
    # The autoencoder has the key itself, as in stage 1 and in the control.
    key = jax.random.fold_in(key, 1)
    return self._discriminator.init(key, image)['params']

  def _check_frozen(self, params):
    groups = self._config.optimizer.groups
    for path, _ in jax.tree_util.tree_leaves_with_path(
        {name: params[name] for name in FROZEN},
        is_leaf=lambda leaf: isinstance(leaf, meta.AxisMetadata)):
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      try:
        mine = next((group for group in groups
                     if re.fullmatch(group['match'], name)), {})
      except (KeyError, TypeError, re.error):
        return  # The optimizer says what is wrong with such a group.
      if not mine.get('frozen'):
        raise errors.InputError('config.optimizer.groups', groups,
                                f'does not freeze {name}', _GROUPS)

  def _generate(self, state, frozen, batch, key, carry):
    """Both losses meet at the image, where their gradients are weighted; one
    backward pass then takes the sum through the decoder."""
    del carry
    params = state.params[base.AUTOENCODER]
    stats = state.stats[base.AUTOENCODER]
    image, mask = batch['image'], batch['mask']
    fixed = FROZEN if self._options.trained == 'decoder' else ()
    rest = {name: params[name] for name in fixed}
    moving = [] if fixed else list(stats)

    def forward(trained):
      (fake, out), new_stats = self.model.apply(
          {'params': trained | rest, **stats}, image,
          keys=base.example_keys(key, batch['row']), train=True,
          mutable=moving)
      price = base.masked_mean(self._objective.code(out['code']), mask)
      return (fake, price), (out, stats if fixed else new_stats)

    def judge(fake):
      total, terms = self._objective.image(image, fake, frozen)
      return base.masked_mean(total, mask), terms

    (fake, price), backward, (out, new_stats) = jax.vjp(
        forward, {name: params[name] for name in params if name not in fixed},
        has_aux=True)
    (total, terms), gradient = jax.value_and_grad(judge, has_aux=True)(fake)
    total += price
    metrics = out['code'].stats | {
        name: base.masked_mean(value, mask)
        for name, value in (terms | out['code'].losses).items()}
    if self._plays:
      score = lambda fake: self._discriminator.apply(
          {'params': state.params[DISCRIMINATOR]}, fake)
      adversary, push = jax.value_and_grad(lambda fake: base.masked_mean(
          self._game.generator(score(fake)), mask))(fake)
      weight = self._weight(state.step)
      if self._options.adaptive:
        weight *= adversarial.adaptive_weight(
            *(self._last_layer(out['decoder'], g) for g in (gradient, push)),
            self._options.adaptive_limits)
      gradient += weight * push
      total += weight * adversary
      metrics |= {'adversarial': adversary, 'adversarial_weight': weight}
    grads, = backward((gradient, jnp.float32(1)))
    return base.Result(
        grads=grads | jax.tree.map(jnp.zeros_like, rest), stats=new_stats,
        metrics=metrics | {'loss': total},
        carry={'fake': fake, 'z': out['code'].z})

  def _last_layer(self, tokens_BxLxD, gradient_BxTxHxWxC):
    """Gradient (D, P) by the kernel that makes pixels of the last tokens."""
    size = self.model.size
    gradient_BxLxP = autoencoder.patchify(gradient_BxTxHxWxC, size.tubelet,
                                          size.patch)
    return jnp.einsum('bld,blp->dp', tokens_BxLxD, gradient_BxLxP,
                      preferred_element_type=jnp.float32)

  def _observe(self, state, frozen, batch, key, carry):
    """Moments of the code that the decoder reads, so sampled if it is."""
    del frozen, batch, key
    old = state.stats[LATENT]
    z_BxLxc = carry['z'].astype(jnp.float32)
    batches = jnp.minimum(old['batches'] + 1, LATENT_HORIZON)
    share, shift = 1 / batches, z_BxLxc.mean((0, 1)) - old['mean']
    variance = old['variance'] + share * (
        z_BxLxc.var((0, 1)) - old['variance'] + (1 - share) * shift**2)
    return base.Result(None, {'mean': old['mean'] + share * shift,
                              'variance': variance, 'batches': batches}, {})

  def _discriminate(self, state, frozen, batch, key, carry):
    del frozen, key
    options, mask, image = self._options, batch['mask'], batch['image']
    memory = state.stats[DISCRIMINATOR]

    def loss(params):
      score = lambda x: self._discriminator.apply({'params': params}, x)
      metrics = {}
      if options.r1:
        penalty_B, real_BxN = self._penalised(score, image, state.step)
        metrics['r1'] = base.masked_mean(penalty_B, mask)
      else:
        real_BxN = score(image)
      fake_BxN = score(carry['fake'])
      total = base.masked_mean(self._game.discriminator(real_BxN, fake_BxN),
                               mask)
      if options.r1:
        total += options.r1 * options.r1_every * metrics['r1']
      means = {side: base.masked_mean(logits.mean(1), mask)
               for side, logits in (('real', real_BxN), ('fake', fake_BxN))}
      new = memory
      if options.lecam:
        new = adversarial.lecam_update(memory, **means,
                                       decay=options.lecam_decay)
        metrics['lecam'] = base.masked_mean(
            adversarial.lecam(new, real_BxN, fake_BxN), mask)
        total += options.lecam * metrics['lecam']
      right = ((real_BxN > 0).mean(1) + (fake_BxN < 0).mean(1)) / 2
      return total, (new, metrics | means | {
          'loss': total, 'accuracy': base.masked_mean(right, mask)})

    (_, (new, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(
        state.params[DISCRIMINATOR])
    return base.Result(grads=grads, stats=new, metrics=metrics)

  def _penalised(self, score, image, step):
    """R1 (B,), 0 where it is not due, and the logits (B, N)."""
    penalised = lambda: adversarial.r1(score, image)
    every = self._options.r1_every
    if every == 1:  # A condition makes convolutions 30 times as slow on CPUs.
      return penalised()
    return jax.lax.cond(step % every == 0, penalised, lambda: (
        jnp.zeros(len(image)), score(image)))

  def cost(self, devices: int = 1) -> dict[str, Any]:
    """That of stage 1, less the backward pass of what is frozen; the
    discriminator is among its 'losses'."""
    cost = super().cost(devices)
    if self._options.trained == 'decoder':
      self._spare_encoder(cost)
    return cost

  def _networks(self, batch):
    """With 'discriminator'; R1 is not counted.

    Its 'train_step' is two passes with updates, of a real and a made image,
    and one that takes the generator's gradient through it. Its 'memory' is
    parameters, gradients, two moments, and the activations of two passes.
    """
    networks, shape = super()._networks(batch), self._config.data
    if not self._plays:
      return networks
    one = counting.count(self._discriminator, (
        shape.frames, shape.resolution, shape.resolution, 3))
    itemsize = jnp.dtype(self._discriminator.dtype).itemsize
    # 2 FLOP a MAC; for each product of a forward pass, 3 with an update and 2
    # without. (Too many by the first layer's gradient by the image: 1%.)
    return networks | {DISCRIMINATOR: {
        'parameters': one['parameters'], 'macs': one['macs'],
        'train_step': 2 * (3 + 3 + 2) * one['macs'],
        # A layer keeps its output and that of the nonlinearity after it.
        'memory': 4 * 4 * one['parameters'] + (
            2 * 2 * batch * one['outputs'] * itemsize)}}

  def _spare_encoder(self, cost):
    """Takes from `cost` what a frozen encoder and bottleneck do not compute:
    their backward pass, and the gradient of the code."""
    data_ = self._config.data
    flops, parts = cost['flops'], cost['flops']['by_part']
    up = 2 * flops_lib.up(models.spec(
        self._config.model, data_.frames, data_.resolution))
    kept = {'encoder': parts['forward']['encoder'],
            'bottleneck': parts['forward']['bottleneck'] + up}
    spared = sum(parts['train_step'][part] - n for part, n in kept.items())
    parts['train_step'] |= kept
    parts['train_step']['total'] -= spared
    flops['train_step'] -= spared


def check_source(config: Any) -> None:
  """Refuses to freeze another encoder than that of `config.init_from`.

  Raises:
    InputError: with the field of `config.model` in which they differ.
  """
  if config.task == 'adversarial' and config.adversarial.trained == 'decoder':
    own = config_lib.read(saved.workdir_of(config.init_from) / 'config.json')
    reuse.check(config, own, f'the run in {config.init_from}, whose codes '
                'stage 2 keeps as they are', decoder=False)


def _check_limits(limits):
  if len(limits) != 2 or not 0 <= limits[0] <= limits[1]:
    raise errors.InputError('config.adversarial.adaptive_limits', limits,
                            'is not a least and a largest weight', (0.0, 1e4))
