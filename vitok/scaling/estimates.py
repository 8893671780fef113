"""The number that each rule of a claim compares with its margin."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from vitok import errors
from vitok.scaling import fits, iso, regression
from vitok.scaling.claims import Claim
from vitok.scaling.responses import RESPONSES

# Rules whose statistic is a sum of coefficients of one regression.
LINEAR = ('slope_above', 'no_slope', 'equal_slopes', 'straight', 'parallel')


def statistics(claim: Claim, data: fits.Data) -> list[tuple]:
  """What the claim's rule is about, through any points.

  Returns:
    [(value, its replicates)]: errors of the held-out values for 'predicts',
    otherwise one: the slope, the difference of slopes, the curvature, ...

  Raises:
    InputError: these points cannot carry it, or the rule has none.
  """
  if claim.rule == 'predicts':
    known = [pair for pair in fits.held_out(
        data, claim.terms, claim.hold_out).values() if np.isfinite(pair[0])]
    if len(known) < 2:
      raise errors.InputError(
          claim.hold_out, None,
          'has fewer than two values that a law can be fitted without')
    return known
  if claim.rule == 'suffices':
    return [regression.added(data, claim.x, claim.adjust)]
  if claim.rule == 'interior':
    return [iso.inside(data, claim.x[0], claim.y, least=claim.distinct)]
  if claim.rule == 'optimum':
    return [iso.power_law(data, *claim.x, claim.y, least=claim.distinct,
                          level=claim.level).exponent]
  if claim.rule == 'replaces':
    return [_replaced(claim, data)]
  if claim.rule not in LINEAR:
    raise errors.InputError('rule', claim.rule, 'has no statistic of units')
  columns = _columns(claim, data.rows)
  fits.check_rank(columns, claim.terms)
  weights_U = _contrast(claim) @ np.linalg.pinv(columns)
  return [(float(weights_U @ data.y_U), data.y_RxU @ weights_U)]


def smallest_effect(claim: Claim, rows: Sequence[dict],
                    seed_sd: float | None = None) -> float | None:
  """What a design can detect, at the claim's level and power.

  (t_level + t_power) standard errors for an effect; for equivalence, the
  smallest margin that a true zero would be shown to lie within: there two
  one-sided tests may fail, so half of what power leaves goes to each. Images
  are paired, so seeds carry the noise.

  Args:
    claim: `level`, `power`, the rule and its terms.
    rows: law units with the columns of the claim's terms and
      'configuration'; a design that has not run will do.
    seed_sd: measured; the claim's assumption by default.

  Returns:
    In y per doubling (squared for 'straight' and 'parallel'); None for rules
    that are no regression and where the design cannot carry one.
  """
  if claim.rule not in LINEAR:
    return None
  columns = _columns(claim, rows)
  labels = [row['configuration'] for row in rows]
  freedom = (len(rows) - len(set(labels))
             or max(len(rows) - columns.shape[1], 1))
  if np.linalg.matrix_rank(columns) < columns.shape[1]:
    return None
  contrast = _contrast(claim)
  variance = contrast @ np.linalg.pinv(columns.T @ columns) @ contrast
  power = (claim.power if claim.rule == 'slope_above'
           else (1 + claim.power) / 2)
  quantiles = stats.t.ppf([(1 + claim.level) / 2, power], freedom).sum()
  sd = claim.seed_sd if seed_sd is None else seed_sd
  return float(quantiles * sd * np.sqrt(variance))


def _replaced(claim, data):
  """Doublings of x[0] that one of x[1] is worth, and its replicates."""
  _, columns = fits.design(data.rows, claim.terms)
  fits.check_rank(columns, claim.terms)
  solve_PxU = np.linalg.pinv(columns)
  slopes_P, slopes_RxP = solve_PxU @ data.y_U, data.y_RxU @ solve_PxU.T
  if not np.all(RESPONSES[claim.y].better * slopes_RxP[:, 1] > 0):
    raise errors.InputError(claim.x[0], None, 'does not improve '
                            f'{claim.y} beyond doubt, so that nothing can '
                            'stand for a doubling of it')
  return (float(slopes_P[2] / slopes_P[1]),
          slopes_RxP[:, 2] / slopes_RxP[:, 1])


def _columns(claim, rows):
  """The regression's columns; the last may be a square or a product."""
  _, columns = fits.design(rows, claim.terms, claim.rule == 'straight')
  if claim.rule == 'parallel':
    product = columns[:, 1] * columns[:, 2]
    columns = np.concatenate([columns, product[:, None]], 1)
  return columns


def _contrast(claim):
  """Weights of a regression's coefficients in the rule's statistic."""
  last = claim.rule in ('straight', 'parallel')
  weights = np.zeros(1 + len(claim.terms) + last)
  weights[-1 if last else 1] = 1
  if claim.rule == 'equal_slopes':
    weights[2] = -1
  return weights
