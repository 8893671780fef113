"""Losses of a generator and a discriminator, and what keeps them in balance.

Per example where they are losses, so that the caller masks and averages; what
is remembered between steps is passed in and out.

Dimensions: B examples, N logits of an example (frames or patches).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vitok import errors

PyTree = Any


class Loss(NamedTuple):
  """Both sides of a game.

  Attributes:
    discriminator: (real_BxN, fake_BxN) logits -> (B,).
    generator: fake_BxN logits -> (B,).
  """
  discriminator: Callable[[jax.Array, jax.Array], jax.Array]
  generator: Callable[[jax.Array], jax.Array]


def _hinge_discriminator(real_BxN, fake_BxN):
  return 0.5 * (jax.nn.relu(1 - real_BxN).mean(1)
                + jax.nn.relu(1 + fake_BxN).mean(1))


def _hinge_generator(fake_BxN):
  return -fake_BxN.mean(1)


def _non_saturating_discriminator(real_BxN, fake_BxN):
  return (jax.nn.softplus(-real_BxN).mean(1)
          + jax.nn.softplus(fake_BxN).mean(1))


def _non_saturating_generator(fake_BxN):
  return jax.nn.softplus(-fake_BxN).mean(1)


LOSSES = {
    'hinge': Loss(_hinge_discriminator, _hinge_generator),
    'non_saturating': Loss(_non_saturating_discriminator,
                           _non_saturating_generator),
}


def loss(name: str) -> Loss:
  """The game called `name`.

  Args:
    name: 'hinge' (arXiv 1705.02894, with half of both terms as ViTok has it)
      or 'non_saturating' (arXiv 1406.2661, section 3).

  Raises:
    InputError: there is no game of that name.
  """
  errors.one_of('config.adversarial.loss', name, tuple(LOSSES))
  return LOSSES[name]


def r1(score: Callable[[jax.Array], jax.Array], image: jax.Array
       ) -> tuple[jax.Array, jax.Array]:
  """Gradient penalty on real images (arXiv 1801.04406, equation 9).

  Half the squared norm of the gradient of a logit by the image; of the mean of
  several if they see different pixels, as those of frames do.

  Args:
    score: image -> logits (B, N), each of its own example alone.
    image: (B, ...) real images.

  Returns:
    (B,) penalties, to be multiplied by gamma, and the logits (B, N).
  """
  def total(image):
    logits_BxN = score(image)
    return logits_BxN.sum(), logits_BxN

  gradient, logits_BxN = jax.grad(total, has_aux=True)(image)
  square_B = jnp.square(gradient.astype(jnp.float32)).sum(
      range(1, gradient.ndim))
  return 0.5 * square_B / logits_BxN.shape[1], logits_BxN


def lecam_init() -> dict[str, jax.Array]:
  """What LeCam remembers before the first step.

  'real' and 'fake' are sums of past mean logits with weights that decay,
  'weight' is the sum of those weights: zero now, one in the end.
  """
  return {name: jnp.zeros((), jnp.float32)
          for name in ('real', 'fake', 'weight')}


def lecam_update(memory: dict[str, jax.Array], real: jax.Array,
                 fake: jax.Array, decay: float = 0.99
                 ) -> dict[str, jax.Array]:
  """The memory after a step whose mean logits were the scalars given."""
  now = {'real': real, 'fake': fake, 'weight': 1.0}
  return {name: decay * memory[name] + (1 - decay) * jax.lax.stop_gradient(
      jnp.asarray(now[name], jnp.float32)) for name in memory}


def lecam(memory: dict[str, jax.Array], real_BxN: jax.Array,
          fake_BxN: jax.Array) -> jax.Array:
  """LeCam's regularisation of the discriminator (arXiv 2104.03310).

  Logits of real images are drawn to the average of past fake ones and the
  other way round, as far as they are on the right side of it (as in the
  authors' code; equation 4 of the paper has no such condition).

  Args:
    memory: after `lecam_update` with this step's logits, as in the authors'
      code; its averages are free of the bias towards the initial zero.
    real_BxN, fake_BxN: logits.

  Returns:
    (B,); zero while nothing is remembered.
  """
  weight = memory['weight']
  seen = weight > 0
  past = {name: memory[name] / jnp.where(seen, weight, 1)
          for name in ('real', 'fake')}
  pull_B = (jnp.square(jax.nn.relu(real_BxN - past['fake'])).mean(1)
            + jnp.square(jax.nn.relu(past['real'] - fake_BxN)).mean(1))
  return jnp.where(seen, pull_B, 0.0)


def adaptive_weight(reconstruction: PyTree, adversarial: PyTree,
                    limits: tuple[float, float] = (0.0, 1e4)) -> jax.Array:
  """Weight that makes two losses pull alike (arXiv 2012.09841, equation 7).

  Args:
    reconstruction, adversarial: gradients of the two losses by the parameters
      of the decoder's last layer.
    limits: least and largest weight.

  Returns:
    float32 scalar without gradient: norm(reconstruction) / norm(adversarial)
    within the limits. Norms are in float32, whatever the gradients are in. It
    is the upper limit where the adversarial gradient vanishes, and NaN, which
    stops the update, where a gradient is not finite.
  """
  up, down = (_norm(tree) for tree in (reconstruction, adversarial))
  finite = jnp.isfinite(up) & jnp.isfinite(down)
  # The published 1e-4 under the fraction would set the weight by itself: our
  # losses are means over pixels, so their gradients are that small.
  ratio = up / jnp.maximum(down, jnp.finfo(jnp.float32).tiny)
  weight = jnp.where(finite, jnp.clip(ratio, *limits), jnp.nan)
  return jax.lax.stop_gradient(weight)


def _norm(tree):
  """Euclidean norm; scaled, as squares of small float32 numbers vanish."""
  leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(tree)]
  scale = functools.reduce(jnp.maximum, (jnp.abs(x).max() for x in leaves))
  safe = jnp.where(scale > 0, scale, 1)
  return scale * jnp.sqrt(sum(jnp.square(x / safe).sum() for x in leaves))
