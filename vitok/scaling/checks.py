"""What must be true of a sweep before its law may decide anything.

Each check looks at the units that a claim is about and says, with the numbers,
whether they meet a condition. A check that was not made is not met.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vitok import errors
from vitok.scaling import fits
from vitok.scaling.claims import Claim


@dataclasses.dataclass(frozen=True)
class Check:
  """One condition: its name in `Claim.requires`, if met, and the numbers."""
  name: str
  met: bool
  detail: str


def about(claim: Claim, rows: Sequence[dict], *roles: str) -> list[dict]:
  """Rows of these roles that the claim is about.

  A unit that never started has no value in most columns: it is taken to be
  meant, so that it counts as missing.
  """
  return [row for row in rows if row['role'] in roles and all(
      row.get(key) in (None, value) for key, value in claim.where.items())]


def unflagged(data: fits.Data) -> fits.Data:
  """Units of the law whose configuration is not below its own PCA."""
  return data.keep([row['role'] == 'law' and not row['below_pca']
                    for row in data.rows])


def x_of(claim: Claim, row: dict) -> float:
  """The size that a claim is over; E, where it compares L with c."""
  return float(np.prod([row[column] for column in claim.x]))


def run_all(claim: Claim, rows: Sequence[dict],
            data: fits.Data) -> tuple[Check, ...]:
  """The checks, in the order of `claims.CHECKS`.

  Args:
    claim: says which units, and holds the numbers.
    rows: of the whole sweep.
    data: finished units of every role that the claim is about.
  """
  used = unflagged(data)
  return (complete(claim, rows), convergence(claim, data), rates(claim, data),
          seeds(claim, used), null(claim, rows))


def complete(claim: Claim, rows: Sequence[dict]) -> Check:
  """Every unit that the fit or a check needs has finished."""
  units = about(claim, rows, 'law', 'longer', 'rate')
  left = [row['unit'] + f' ({row["error"]})' * bool(row['error'])
          for row in units if row['state'] != 'done']
  detail = f'{len(units) - len(left)} of {len(units)} units are done'
  if left:
    more = f' and {len(left) - 3} more' if len(left) > 3 else ''
    detail += f'; missing {", ".join(left[:3])}{more}'
  return Check('complete', bool(units) and not left, detail)


def convergence(claim: Claim, data: fits.Data) -> Check:
  """The rule's statistic at T and, through the same units, at `ratio` T."""
  numbers, law = claim.convergence, unflagged(data)
  law_of = [law.where(configuration=row['configuration']) for row in data.rows]
  chosen = [row['role'] == 'longer' and len(short.rows) > 0
            and row['steps'] >= numbers['ratio'] * short.rows[0]['steps']
            for row, short in zip(data.rows, law_of, strict=True)]
  long = data.keep(chosen)
  y_U = np.array([short.y_U.mean() for short, use in zip(
      law_of, chosen, strict=True) if use])
  trained = f'{len(y_U)} units were trained {numbers["ratio"]}x as long'
  if not _covers(claim, law, [np.log2(x_of(claim, row)) for row in long.rows]):
    return Check('convergence', False,
                 f'{trained}; too few to see whether the law still moves')
  try:
    before, after = (
        np.array([value for value, _ in fits.statistics(claim, points)])
        for points in (fits.Data(long.rows, y_U, y_U[None]), long))
  except errors.InputError as error:
    return Check('convergence', False, f'{trained}; through these, {error}')
  moved = np.abs(after - before).max()
  if claim.rule == 'predicts':
    before, after = np.abs(before), np.abs(after)
  before, after = before.max(), after.max()
  allowed = max(numbers['relative'] * abs(before), numbers['absolute'])
  name = {'equal_slopes': 'difference of slopes', 'straight': 'curvature',
          'predicts': 'largest error'}.get(claim.rule, 'slope')
  return Check(
      'convergence', bool(moved <= allowed),
      f'{name} {before:.3f} at T, {after:.3f} at {numbers["ratio"]}T, through '
      f'the same {len(y_U)} units: moved by {moved:.3f}, {allowed:.3f} allowed')


def rates(claim: Claim, data: fits.Data) -> Check:
  """At each size probed, the best learning rate is an interior one."""
  needed, law = claim.rates['values'], data.where(role='law')
  tuned, edges = [], []
  for label in dict.fromkeys(law.configurations):
    curve = rate_curve(data, label)
    if len(curve) < needed:
      continue
    best = max(range(len(curve)), key=lambda i: curve[i][1])
    (tuned if 0 < best < len(curve) - 1 else edges).append(label)
  if claim.rates['sizes'] == 'all':
    met = set(tuned) == set(law.configurations)
  else:
    met = _covers(claim, law, [
        np.log2(x_of(claim, law.where(configuration=label).rows[0]))
        for label in tuned])
  detail = (f'{len(tuned)} configurations with {needed} rates or more have '
            'their best one inside')
  if edges:
    detail += f'; at the edge for {", ".join(edges)}'
  return Check('rates', met and not edges, detail)


def rate_curve(data: fits.Data, configuration: str) -> list[tuple]:
  """[(learning rate, mean response)] by rate, all at the law's own steps."""
  units = data.where(configuration=configuration)
  law = units.where(role='law')
  if not law.rows:
    return []
  units = units.keep([row['role'] in ('law', 'rate')
                      and row['steps'] == law.rows[0]['steps']
                      for row in units.rows])
  by_rate = {}
  for row, y in zip(units.rows, units.y_U, strict=True):
    by_rate.setdefault(row['learning_rate'], []).append(y)
  return [(rate, float(np.mean(by_rate[rate]))) for rate in sorted(by_rate)]


def seeds(claim: Claim, used: fits.Data) -> Check:
  """Enough second seeds to know the error that the law is tested against."""
  freedom = len(used.rows) - len(set(used.configurations))
  return Check('seeds', freedom >= claim.seed_df,
               f'{freedom} degrees of freedom between seeds, '
               f'{claim.seed_df} needed')


def null(claim: Claim, rows: Sequence[dict]) -> Check:
  """Every unit of the law has a PCA of its own to be compared with."""
  units = [row for row in about(claim, rows, 'law') if row['state'] == 'done']
  known = [row for row in units if row['pca_psnr'] is not None]
  below = [row['unit'] for row in known if row['below_pca']]
  detail = f'{len(below)} of {len(units)} units are below their own PCA'
  if len(known) < len(units):
    detail = f'{len(units) - len(known)} of {len(units)} units have no PCA'
  return Check('null', bool(units) and len(known) == len(units), detail)


def _covers(claim, law, logs):
  """Whether `logs` span the share `span` of the law's range of log2 x."""
  if len(set(logs)) < 2 or not law.rows:
    return False
  of_law = [np.log2(x_of(claim, row)) for row in law.rows]
  return bool(np.ptp(logs) >= claim.span * np.ptp(of_law) - 1e-9)
