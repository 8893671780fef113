"""Three objectives of some thirty lines that share nothing with each other.

They stand for what later systems need from the trainer: two players of which
one reads the other's output, statistics without gradients, and a gradient
that is not the derivative of a loss.
"""

import jax
import jax.numpy as jnp

from vitok.tasks import base


def colour(batch):
  """Mean colour of each example, (B, 3): the data of all three toys."""
  return batch['image'].mean((1, 2, 3))


class Toy:
  weights = evaluation_weights = {}

  def __init__(self, config):
    self.config = config

  def evaluators(self):
    return ()

  def cost(self, devices=1):
    return {'flops': {'train_step': 0.0}}


class Gan(Toy):
  """Generator: a shifted Gaussian. Discriminator: a quadratic critic."""

  def __init__(self, config):
    super().__init__(config)
    self.players = (
        base.Player('generator', self.generate, additive=True),
        base.Player('discriminator', self.discriminate, additive=True,
                    ema_decay=0.5, when=lambda step: step % 2 == 0))

  def init(self, key):
    critic = {'w': jnp.zeros(3), 'b': jnp.zeros(())}
    return ({'generator': {'mean': jnp.ones(3)}, 'discriminator': critic},
            {'generator': {}, 'discriminator': {}})

  @staticmethod
  def score(critic, x):
    return x @ critic['w'] + critic['b']

  def generate(self, state, frozen, batch, key, carry):
    noise = jax.vmap(lambda k: jax.random.normal(k, (3,)))(
        base.example_keys(key, batch['row']))

    def loss(params):
      fake = params['mean'] + 0.1 * noise
      return -self.score(state.params['discriminator'], fake).mean(), fake
    (value, fake), grads = jax.value_and_grad(loss, has_aux=True)(
        state.params['generator'])
    return base.Result(grads, {}, {'loss': value}, {'fake': fake})

  def discriminate(self, state, frozen, batch, key, carry):
    real, fake = colour(batch), jax.lax.stop_gradient(carry['fake'])

    def loss(critic):
      penalty = 0.5 * jnp.sum(critic['w'] ** 2)  # Keeps the game convergent.
      return (self.score(critic, fake).mean()
              - self.score(critic, real).mean() + penalty)
    value, grads = jax.value_and_grad(loss)(state.params['discriminator'])
    return base.Result(grads, {}, {'loss': value})


class KMeans(Toy):
  """Online k-means: statistics alone, no gradient and no optimizer."""

  def __init__(self, config):
    super().__init__(config)
    self.players = (base.Player('codebook', self.assign),)

  def init(self, key):
    sums = jnp.linspace(0.7, 1, 4)[:, None] * jnp.ones(3)  # Far off.
    return {}, {'codebook': {'sums': sums, 'counts': jnp.ones(4)}}

  def assign(self, state, frozen, batch, key, carry):
    x_Bx3, stats = colour(batch), state.stats['codebook']
    centres_Kx3 = stats['sums'] / stats['counts'][:, None]
    distance_BxK = ((x_Bx3[:, None] - centres_Kx3) ** 2).sum(-1)
    one_hot_BxK = jax.nn.one_hot(distance_BxK.argmin(1), 4)
    new = {'sums': one_hot_BxK.T @ x_Bx3, 'counts': one_hot_BxK.sum(0)}
    stats = jax.tree.map(lambda old, now: 0.9 * old + 0.1 * now, stats, new)
    return base.Result(None, stats, {'loss': distance_BxK.min(1).mean()})


class Reinforce(Toy):
  """A policy over five greys, rewarded for the one nearest to the image."""
  greys = jnp.linspace(-1, 1, 5)

  def __init__(self, config):
    super().__init__(config)
    self.players = (base.Player('policy', self.play),)

  def init(self, key):
    return ({'policy': {'logits': jnp.zeros(5)}},
            {'policy': {'baseline': jnp.zeros(())}})

  def play(self, state, frozen, batch, key, carry):
    keys = base.example_keys(key, batch['row'])
    logits = state.params['policy']['logits']
    action_B = jax.vmap(lambda k: jax.random.categorical(k, logits))(keys)
    reward_B = -((self.greys[action_B] - colour(batch).mean(1)) ** 2)
    advantage_B = reward_B - state.stats['policy']['baseline']

    def surrogate(params):
      return -(jax.nn.log_softmax(params['logits'])[action_B]
               * advantage_B).mean()
    grads = jax.grad(surrogate)(state.params['policy'])
    baseline = 0.9 * state.stats['policy']['baseline'] + 0.1 * reward_B.mean()
    return base.Result(grads, {'baseline': baseline},
                       {'loss': -reward_B.mean()})


TOYS = {'gan': Gan, 'kmeans': KMeans, 'reinforce': Reinforce}
