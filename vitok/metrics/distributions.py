"""Numbers of sets of reconstructions, from features of all of them.

N: examples in the order of the records, T: frames, D: features.
"""

import numpy as np

from vitok.metrics import frechet, inception_score, kernel
from vitok.metrics import moments as moments_lib


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


def _moments(features_NxD):
  stream = moments_lib.Stream()
  stream.add(features_NxD, np.ones(len(features_NxD), bool))
  return stream.moments()
