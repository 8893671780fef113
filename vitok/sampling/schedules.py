"""Paths from data to noise: z = alpha(t) x + sigma(t) epsilon.

Time t goes from 0, the data, to 1, noise. By name:

  linear  DDPM (arXiv 2006.11239): 1000 steps, beta from 1e-4 to 0.02
  cosine  Nichol & Dhariwal (arXiv 2102.09672, eq. 17): 1000 steps
  flow    straight lines (arXiv 2210.02747, 2209.03003): alpha = 1 - t

Time t of a discrete schedule is DDPM's step 1000 t, counted from 1: z_0 is the
data. Between steps log alpha^2 is interpolated.

The shift multiplies the noise-to-signal ratio sigma / alpha at every time. Of
codes with more floats, more survives the same noise; `dimension_shift` is the
factor that makes up for it (arXiv 2403.03206, eq. 23, from the number of
pixels; RAE, arXiv 2510.11690, from the floats of the code). For `flow`, sigma
becomes s t / (1 + (s - 1) t), both papers' formula; for the other two it moves
the log signal-to-noise ratio by -2 log s (arXiv 2301.11093).
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from vitok import errors

STEPS = 1000  # Of the discrete schedules.
BASE_FLOATS = 4096  # A code that needs no shift: RAE's choice.


def _linear_betas():
  return np.linspace(1e-4, 0.02, STEPS)


def _cosine_betas():
  angle = (np.arange(STEPS + 1) / STEPS + 0.008) / 1.008 * math.pi / 2
  signal = np.cos(angle)**2
  return np.minimum(1 - signal[1:] / signal[:-1], 0.999)


_BETAS = {'linear': _linear_betas, 'cosine': _cosine_betas}
NAMES = (*_BETAS, 'flow')


@functools.cache
def _log_signal(name):
  """(1001,) log alpha^2 after 0, 1, ... steps."""
  return np.concatenate([[0.0], np.cumsum(np.log1p(-_BETAS[name]()))])


def dimension_shift(floats: int, base: int = BASE_FLOATS) -> float:
  """The shift of a code of so many floats E = L * c: sqrt(floats / base)."""
  return math.sqrt(floats / base)


@dataclasses.dataclass(frozen=True)
class Schedule:
  """A path by name and its shift.

  Raises:
    InputError: an unknown name, or a shift that is not positive.
  """
  name: str = 'linear'
  shift: float = 1.0

  def __post_init__(self):
    errors.one_of('config.diffusion.schedule', self.name, NAMES)
    if not 0 < self.shift < math.inf:
      raise errors.InputError('config.diffusion.shift', self.shift,
                              'is not positive and finite', 1.0)

  @property
  def discrete(self) -> bool:
    """Whether training sees the times 1/1000, 2/1000, ... 1 alone."""
    return self.name in _BETAS

  def __call__(self, time: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(alpha, sigma) in float32, shaped like `time`."""
    time = jnp.asarray(time, jnp.float32)
    if self.discrete:  # alpha^2 + sigma^2 = 1.
      table = jnp.asarray(_log_signal(self.name), jnp.float32)
      step = jnp.clip(jnp.floor(time * STEPS), 0, STEPS - 1)
      low, high = (table[step.astype(int) + i] for i in range(2))
      log_signal = low + (time * STEPS - step) * (high - low)
      alpha = jnp.exp(log_signal / 2)
      sigma = self.shift * jnp.sqrt(-jnp.expm1(log_signal))
      length = jnp.hypot(alpha, sigma)
    else:  # alpha + sigma = 1.
      alpha, sigma = 1 - time, self.shift * time
      length = alpha + sigma
    return alpha / length, sigma / length

  def draw(self, key: jax.Array) -> jax.Array:
    """A time to train at, uniform: a float32 scalar."""
    if self.discrete:
      return jax.random.randint(key, (), 1, STEPS + 1) / jnp.float32(STEPS)
    return jax.random.uniform(key)

  def times(self, steps: int) -> np.ndarray:
    """(steps + 1,) float32 from 1 to 0, evenly; trained ones, if discrete.

    Raises:
      InputError: no steps, or more than a discrete schedule has.
    """
    if steps < 1 or self.discrete and steps > STEPS:
      reason = 'is below 1' if steps < 1 else f'is more than {self.name!r} has'
      raise errors.InputError('config.diffusion.steps', steps, reason,
                              min(max(1, steps), STEPS))
    times = np.linspace(1, 0, steps + 1)
    if self.discrete:
      times = np.round(times * STEPS) / STEPS
    return times.astype(np.float32)
