"""Inception score of class logits (Salimans et al. 2016).

exp of the mean over images of KL(p(class | image) || mean p(class)): between 1
and the number of classes. For N images it is too low by an amount that goes as
1/N, so that scores of different N are not comparable.

N: images, K: classes.
"""

import numpy as np
from scipy import special

from vitok.metrics import table

RULE = 'exp of the mean KL from the mean prediction, float64'


def inception_score(logits_NxK: np.ndarray, splits: int = 1, *,
                    groups_N: np.ndarray | None = None,
                    ) -> tuple[float, float | None]:
  """Inception score and its standard error.

  Args:
    logits_NxK: before the softmax.
    splits: consecutive parts whose scores are averaged. ViTok's released code
      has one; ten are usual for 50,000 generated images.
    groups_N: labels of what is independent; each image by default.

  Returns:
    The score, and its standard error to first order: the score times that of
    the mean KL; `None` where a part is one image or one group.

  Raises:
    ValueError: fewer than two images in a part.
  """
  logits_NxK = np.asarray(logits_NxK, np.float64)
  count = len(logits_NxK)
  if logits_NxK.ndim != 2 or count < 2 * splits:
    raise ValueError(f'an inception score of logits {logits_NxK.shape} in '
                     f'{splits} parts')
  groups = np.arange(count) if groups_N is None else np.asarray(groups_N)
  edges = [part * count // splits for part in range(splits + 1)]
  scores, spreads = [], []
  for start, end in zip(edges, edges[1:], strict=False):
    log_p_nxK = special.log_softmax(logits_NxK[start:end], axis=1)
    log_mean_K = special.logsumexp(log_p_nxK, axis=0) - np.log(end - start)
    kl_n = np.sum(np.exp(log_p_nxK) * (log_p_nxK - log_mean_K), axis=1)
    scores.append(np.exp(kl_n.mean()))
    spreads.append(table.standard_error(kl_n, groups[start:end]))
  error = None if None in spreads else float(
      np.linalg.norm(np.multiply(scores, spreads)) / splits)
  return float(np.mean(scores)), error
