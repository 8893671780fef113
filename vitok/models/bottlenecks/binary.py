"""Bits: lookup-free (LFQ) and binary spherical quantization (BSQ).

Lookup-free quantization (arXiv 2310.05737) takes the sign of each channel; BSQ
(arXiv 2406.07548) first puts the token on the unit sphere and its code on the
same sphere, so that a bit is worth 1/sqrt(c) and their distance is bounded. The
sign of 0 is -1. The integer of a part counts its first channel as the most
significant bit.

Both keep their codes in use by an entropy. The softmax over the 2^d codes of a
part at inverse temperature tau, of 2 tau <u, code>, is a product over the bits:
p(bit = 1) = sigmoid(4 tau a u), a the size of a code's entry. Hence

  H_sample    entropy of a token's distribution, exact bit by bit whatever d;
  H_codebook  entropy of the distribution's mean over all tokens of the batch,
              part by part: of 2^d codes, whose mean is taken as a product of
              two halves of the bits and never held for a single token;
  'entropy' = (gamma_0 H_sample - gamma_1 H_codebook) / tau, in nats.

Parts of one channel make H_codebook bitwise as well, the cheapest form. QLIP's
(arXiv 2502.05178) released model has it, with tau = 1, on 28 channels. Its
class adds 1e-8 to each of the 2^d probabilities before their entropy, which
makes H_sample up to 1e-4 nats larger than it is; nothing is added here.

A further stage codes what is left over by signs of half the size.

Dimensions: as in `discrete`.
"""


import jax
import jax.numpy as jnp

from vitok import errors
from vitok.models.bottlenecks import discrete

_LEAST = 1e-30  # Probability of a code that still has a logarithm.


class LFQ(discrete.Discrete):
  """Signs of the channels; see the top of the file.

  Options: `product` parts; `temperature`, the inverse tau; `gammas`.
  Losses: 'entropy' and 'commitment'. Stats: 'sample_entropy' and
  'codebook_entropy', nats a token over all parts.
  """
  reads = (*discrete.Discrete.reads, 'temperature', 'gammas')

  @classmethod
  def check(cls, channels, options):
    gammas = options['gammas']
    if len(gammas) != 2 or min(gammas) < 0:
      raise errors.InputError('config.model.quantizer.gammas', gammas, 'is not '
                              'a weight of each of two entropies', (1.0, 1.0))
    super().check(channels, options)

  @classmethod
  def radix(cls, channels, options):
    return 2**channels

  @classmethod
  def arithmetic(cls, channels, options):
    return super().arithmetic(channels, options) | {
        'joint': sum(cls.radices(channels, options))}

  @property
  def entry(self) -> float:
    """Size of a code's entries at the first stage."""
    return 1.0

  def nearest(self, x_BxLxPxd, stage):
    bits = (x_BxLxPxd > 0).astype(jnp.int32)
    places = jnp.arange(bits.shape[-1] - 1, -1, -1, dtype=jnp.int32)
    return (bits << places).sum(-1)

  def lookup(self, ids_BxLxP, stage):
    width = self.channels // self.options['product']
    places = jnp.arange(width - 1, -1, -1, dtype=jnp.int32)
    bits = (ids_BxLxP[..., None] >> places) & 1
    return (2 * bits - 1) * jnp.float32(self.entry * 0.5**stage)

  def penalties(self, x_BxLxPxd, q_BxLxPxd, stage):
    tau, (sample, codebook) = self.options['temperature'], self.options[
        'gammas']
    logit_BxLxPxd = 4 * tau * self.entry * 0.5**stage * x_BxLxPxd
    sample_B = discrete.of_example(_entropy(logit_BxLxPxd))
    whole = codebook_entropy(jax.nn.sigmoid(logit_BxLxPxd))
    return ({'entropy': (sample * sample_B - codebook * whole) / tau},
            {'sample_entropy': sample_B.mean(), 'codebook_entropy': whole})


class BSQ(LFQ):
  """LFQ on the unit sphere of a token's c channels; gradients are those of
  the signs, times 1/sqrt(c)."""

  @classmethod
  def check(cls, channels, options):
    if channels < 2:
      raise errors.InputError('config.model.bottleneck', 'bsq', 'has no '
                              'gradient on a sphere of 1 channel', 'lfq')
    super().check(channels, options)

  @property
  def entry(self):
    return self.channels**-0.5

  @property
  def slope(self):
    return self.entry

  def prepare(self, u_BxLxc):
    return self.parts(discrete.unit(u_BxLxc))


def _entropy(logit):
  """Of a bit with p(1) = sigmoid(logit), nats; exact also where it is small."""
  size = jnp.abs(logit)
  return jax.nn.softplus(-size) + size * jax.nn.sigmoid(-size)


def codebook_entropy(p_BxLxPxd: jax.Array) -> jax.Array:
  """Entropy of the mean over tokens of a product of bits, summed over parts.

  Args:
    p_BxLxPxd: of a bit to be 1.

  Returns:
    Nats, a scalar, of the whole batch.
  """
  p_NxPxd = p_BxLxPxd.reshape(-1, *p_BxLxPxd.shape[2:])
  half = p_NxPxd.shape[-1] // 2
  first, second = (_joint(p) for p in (p_NxPxd[..., :half],
                                       p_NxPxd[..., half:]))
  mean = jnp.einsum('npa,npb->pab', first, second,
                    precision=jax.lax.Precision.HIGHEST) / len(p_NxPxd)
  # The slope of entr(0) is infinite, and codes that no token comes near have
  # a mean of 0.
  return -(mean * jnp.log(jnp.maximum(mean, _LEAST))).sum()


def _joint(p_NxPxd):
  """(N, P, 2^d) probabilities of all values of d bits."""
  joint = jnp.ones((*p_NxPxd.shape[:-1], 1))
  for bit in range(p_NxPxd.shape[-1]):
    p = p_NxPxd[..., bit:bit + 1]
    joint = jnp.concatenate([joint * (1 - p), joint * p], -1)
  return joint
