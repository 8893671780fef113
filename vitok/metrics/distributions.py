"""Numbers of sets of examples, from features of all of them.

N: examples in the order of the records.
"""

import numpy as np

from vitok.metrics import features, frechet, inception_score, kernel, table
from vitok.metrics.features import Features

SCORE_PARTS = 10  # Of the samples' Inception score.


def measure(number: str, fake: Features, real: Features | None,
            groups_N: np.ndarray) -> tuple[dict[str, float],
                                           np.ndarray | None]:
  """A number and what is known of its error.

  Args:
    number: as in `numbers.NUMBERS`.
    fake: features of reconstructions, or class logits.
    real: features of their originals; None where there is no reference.
    groups_N: labels of what is independent.

  Returns:
    {number: value} and where defined '<number>_se', of independent examples,
    and '<number>_se_group', of independent groups; and of a kernel distance
    the values of each example (N,), of which it is the mean.

  Raises:
    ValueError: too few examples.
  """
  if number == 'rfid_infinity':
    return {number: frechet.infinity(fake, real).value}, None
  if number in ('rfid', 'rfid_frame', 'rfvd', 'released_rfid'):
    return {number: _distance(fake, real)}, None
  values_N, found = None, {}
  if number == 'rkid':
    values_N = kernel.kid_of_pairs(fake, real)
    estimate = lambda groups: (float(values_N.mean()),
                               table.standard_error(values_N, groups))
  else:
    estimate = lambda groups: inception_score.inception_score(
        fake, groups_N=groups)
  for suffix, groups in (('_se', np.arange(len(groups_N))),
                         ('_se_group', groups_N)):
    found[number], found[number + suffix] = estimate(groups)
  return {name: value for name, value in found.items()
          if value is not None}, values_N


def measure_samples(number: str, fake: Features,
                    real: Features | None) -> dict[str, float]:
  """A number of generated samples against a set of their own.

  Args:
    number: as in `numbers.NUMBERS`.
    fake: features of samples, or class logits.
    real: features of the reference; None for a number without one.

  Returns:
    {number: value} and where defined '<number>_se'.

  Raises:
    ValueError: too few samples.
  """
  if number == 'gis':
    value, error = inception_score.inception_score(fake, SCORE_PARTS)
  elif number == 'gkid':
    value, error = kernel.kid_of_samples(fake, real)
  elif number == 'gfid_infinity':
    reference, = features.moments(real)
    value, error = frechet.infinity(fake, reference).value, None
  else:
    value, error = _distance(fake, real), None
  return {number: value} | ({} if error is None else {f'{number}_se': error})


def _distance(fake, real):
  """Mean over frame indices."""
  return float(np.mean([frechet.distance(a, b) for a, b in zip(
      features.moments(fake), features.moments(real), strict=True)]))
