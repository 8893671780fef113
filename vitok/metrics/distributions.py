"""Numbers of sets of reconstructions, from features of all of them.

N: examples in the order of the records, T: frames, D: features.
"""

import numpy as np

from vitok.metrics import frechet, inception_score, kernel
from vitok.metrics import moments as moments_lib

SCORE_PARTS = 10  # Of the samples' Inception score.


def measure(number: str, fake_NxTxD: np.ndarray,
            real_NxTxD: np.ndarray | None,
            groups_N: np.ndarray) -> dict[str, float]:
  """A number and what is known of its error.

  Args:
    number: as in `numbers.NUMBERS`.
    fake_NxTxD: features of reconstructions, or class logits.
    real_NxTxD: features of their originals; None where there is no reference.
    groups_N: labels of what is independent.

  Returns:
    {number: value} and where defined '<number>_se', of independent examples,
    and '<number>_se_group', of independent groups.

  Raises:
    ValueError: too few examples.
  """
  fake_NxD = fake_NxTxD[:, 0]
  if number == 'rfid_infinity':
    return {number: frechet.infinity(fake_NxD, real_NxTxD[:, 0]).value}
  if number in ('rfid', 'rfid_frame', 'rfvd', 'released_rfid'):
    return {number: float(np.mean([
        frechet.distance(_moments(fake_NxTxD[:, t]), _moments(real_NxTxD[:, t]))
        for t in range(fake_NxTxD.shape[1])]))}
  found = {}
  each = np.arange(len(groups_N))
  for suffix, groups in (('_se', each), ('_se_group', groups_N)):
    if suffix == '_se_group' and len(np.unique(groups)) == len(each):
      found[number + suffix] = found[f'{number}_se']
      continue
    found[number], found[number + suffix] = (
        kernel.kid(fake_NxD, real_NxTxD[:, 0], paired=True, groups_N=groups)
        if number == 'rkid' else
        inception_score.inception_score(fake_NxD, groups_N=groups))
  return {name: value for name, value in found.items() if value is not None}


def measure_samples(number: str, fake_NxTxD: np.ndarray,
                    real_MxTxD: np.ndarray | None) -> dict[str, float]:
  """A number of generated samples against a set of their own.

  Args:
    number: as in `numbers.NUMBERS`.
    fake_NxTxD: features of samples, or class logits.
    real_MxTxD: features of the reference; None for a number without one.

  Returns:
    {number: value} and where defined '<number>_se'.

  Raises:
    ValueError: too few samples.
  """
  fake_NxD = fake_NxTxD[:, 0]
  if number == 'gis':
    value, error = inception_score.inception_score(fake_NxD, SCORE_PARTS)
  elif number == 'gkid':
    value, error = kernel.kid_of_samples(fake_NxD, real_MxTxD[:, 0])
  elif number == 'gfid_infinity':
    value, error = frechet.infinity(
        fake_NxD, _moments(real_MxTxD[:, 0])).value, None
  else:
    value, error = frechet.distance(
        _moments(fake_NxD), _moments(real_MxTxD[:, 0])), None
  return {number: value} | ({} if error is None else {f'{number}_se': error})


def _moments(features_NxD):
  stream = moments_lib.Stream()
  stream.add(features_NxD, np.ones(len(features_NxD), bool))
  return stream.moments()
