"""When a run has diverged, and where it goes on (`config.divergence`).

A run has diverged when an update is not finite, or when a metric of the
training log that `metric` names was above `above` at `patience` readings in a
row: a GAN may blow up without a NaN. Metrics are read where the loop reads them
anyway, at logging, evaluation and saving steps. While the metric is above its
limit nothing is saved, so that the newest checkpoint is of before.

  stop    the run ends with an error; its newest checkpoint is untouched.
  rewind  it goes on from its newest checkpoint: step, parameters, optimizer,
          moving averages, statistics, data and log are those of that step. The
          same batches follow in the same order, since the data of a step are a
          promise of the config, but with other noise, so that what sampling
          caused is not met again. A run without noise meets it again.
  skip    as 'rewind', and the batches since that checkpoint are passed over.

After `limit` rewinds, a run stops all the same. A training record that cannot
be read is treated alike (in a job of several processes it stops the run: the
others have not met it); one of the evaluation stops the run. What a rewind does
depends on the checkpoint and the number of rewinds before it alone, so a run
that is killed afterwards repeats it.
"""

import math
from collections.abc import Mapping
from typing import Any

from vitok import errors

ACTIONS = ('stop', 'rewind', 'skip')


class DivergedError(RuntimeError):
  """Training diverged; the last checkpoint is untouched."""


class NonFiniteError(DivergedError, FloatingPointError):
  """A loss or gradient is not finite; the last checkpoint is untouched."""


class Guard:
  """Watches one metric.

  Attributes:
    above: readings in a row, up to now, at which the metric was too large.
  """

  def __init__(self, config: Any):
    """Takes `config.divergence`."""
    self._config = config
    self.above = 0

  def read(self, step: int, metrics: Mapping[str, float]):
    """Takes note of the metrics of a step.

    Raises:
      DivergedError: the metric has been too large for too long.
    """
    metric, limit = self._config.metric, self._config.above
    if not metric:
      return
    self.above = self.above + 1 if metrics[metric] > limit else 0
    if self.above >= self._config.patience:
      raise DivergedError(
          f'{metric} is above {limit:g} for {self.above} readings in a row, '
          f'{metrics[metric]:.4g} at step {step}')


def not_finite(metrics: Mapping[str, Any]) -> str:
  """Which of an update's metrics are not finite, in words."""
  odd = [f'{name} {value}' for name, value in metrics.items()
         if isinstance(value, float) and not math.isfinite(value)]
  if not odd:
    return 'those of the newest update are finite again'
  return ', '.join(odd[:6]) + (
      f' and {len(odd) - 6} more' if len(odd) > 6 else '')


def check(config: Any):
  """Refuses a `config.divergence` that contradicts itself.

  Raises:
    InputError: an unknown action, a limit without a metric, or a metric
      without a positive limit.
  """
  errors.one_of('config.divergence.action', config.action, ACTIONS)
  if not config.metric and config.above:
    raise errors.InputError('config.divergence.above', config.above,
                            'limits no metric: config.divergence.metric is '
                            'empty', 0.0)
  if config.metric and not config.above > 0:
    raise errors.InputError('config.divergence.above', config.above,
                            f'is no limit of {config.metric}: not positive',
                            1.0)
