"""What must be true of a sweep before its law may decide anything.

Each check looks at the units that a claim is about and says, with the numbers,
whether they meet a condition. A check that was not made is not met.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vitok import errors
from vitok.scaling import estimates, fits, table
from vitok.scaling.claims import Claim
from vitok.scaling.responses import RESPONSES


@dataclasses.dataclass(frozen=True)
class Check:
  """One condition: its name in `Claim.requires`, if met, and the numbers."""
  name: str
  met: bool
  detail: str


# Of which role the units are that a check needs beside the law's.
_NEEDS = {'convergence': 'longer', 'rates': 'rate'}


def about(claim: Claim, rows: Sequence[dict], *roles: str) -> list[dict]:
  """Rows of these roles that the claim is about.

  Of a unit that never started the factors are known and the columns of the
  table are not: it is taken to be meant, so that it counts as missing.
  """
  def meant(row, key, value):
    unknown = row['model'] is None and key in table.COLUMNS
    return row.get(key) == value or (unknown and row.get(key) is None)
  return [row for row in rows if row['role'] in roles and all(
      meant(row, key, value) for key, value in claim.where.items())]


def joined(claim: Claim, rows: Sequence[dict]) -> tuple[dict, ...]:
  """Rows in which the arms that the claim takes in are units of the law."""
  return tuple(row | {'role': 'law'} if row['role'] == 'arm' and
               row.get('arm') in claim.arms else row for row in rows)


def diverged(row: dict) -> bool:
  """Whether it is another learning rate that failed once it was training."""
  return (row['role'] == 'rate' and row['state'] == 'failed'
          and row['learning_rate'] is not None)


def unflagged(data: fits.Data) -> fits.Data:
  """Units of the law whose configuration is not below its own PCA."""
  return data.keep([row['role'] == 'law' and not row['below_pca']
                    for row in data.rows])


def fitted(claim: Claim, data: fits.Data) -> fits.Data:
  """Units that a claim's statistic is of.

  Without those below their own PCA, but where budgets and ladders are judged:
  sizes far from the best one, and first rungs, are under-trained by design.
  """
  if claim.rule in ('optimum', 'forecasts'):
    return data.where(role='law')
  return unflagged(data)


def x_of(claim: Claim, row: dict) -> float:
  """The size that a claim is over; E, where it compares L with c."""
  columns = claim.x if claim.rule == 'equal_slopes' else claim.x[:1]
  return float(np.prod([row[column] for column in columns]))


def run_all(claim: Claim, rows: Sequence[dict],
            data: fits.Data) -> tuple[Check, ...]:
  """The checks, in the order of `claims.CHECKS`.

  Args:
    claim: says which units, and holds the numbers.
    rows: of the whole sweep.
    data: finished units of every role that the claim is about.
  """
  used = fitted(claim, data)
  return (complete(claim, rows), convergence(claim, data),
          rates(claim, rows, data), seeds(claim, used), null(claim, rows),
          width(claim, rows), price(claim, rows))


def has_units(claim: Claim, rows: Sequence[dict], check: Check) -> bool:
  """Whether the sweep has units for a check, finished or not."""
  return bool(about(claim, rows, _NEEDS.get(check.name, 'law')))


def complete(claim: Claim, rows: Sequence[dict]) -> Check:
  """Every unit that the fit or a check needs has finished, or diverged."""
  units = about(claim, rows, *_needed(claim))
  done = sum(row['state'] == 'done' for row in units)
  failed, missing = lacking(claim, rows)
  detail = f'{done} of {len(units)} units are done'
  lost = [row for row in units if diverged(row)]
  for word, found in (('failed', failed), ('missing', missing),
                      ('failed, and so the worst rate', lost)):
    if found:
      detail += f'; {word}: ' + ', '.join(
          row['unit'] + f' ({row["error"]})' * bool(row['error'])
          for row in found[:3])
      detail += f' and {len(found) - 3} more' * (len(found) > 3)
  return Check('complete', bool(units) and not failed + missing, detail)


def _needed(claim):
  """Roles without which a claim is open."""
  return ('law', 'longer', 'rate') + ('forecast',) * (
      claim.rule == 'forecasts')


def lacking(claim: Claim, rows: Sequence[dict]) -> tuple[list, list]:
  """Rows that the fit or a check needs: those that failed, and the others."""
  left = [row for row in about(claim, rows, *_needed(claim))
          if row['state'] != 'done' and not diverged(row)]
  return ([row for row in left if row['state'] == 'failed'],
          [row for row in left if row['state'] != 'failed'])


def convergence(claim: Claim, data: fits.Data) -> Check:
  """The rule's statistic at T and, through the same units, at `ratio` T."""
  if claim.rule in ('optimum', 'forecasts'):
    return Check('convergence', True, 'how long a unit trains is part of what '
                 'is judged')
  numbers, law = claim.convergence, unflagged(data)
  law_of = [law.where(configuration=row['configuration']) for row in data.rows]
  chosen = [row['role'] == 'longer' and len(short.rows) > 0
            and row['steps'] >= numbers['ratio'] * short.rows[0]['steps']
            for row, short in zip(data.rows, law_of, strict=True)]
  long = data.keep(chosen)
  y_U = np.array([short.y_U.mean() for short, use in zip(
      law_of, chosen, strict=True) if use])
  trained = f'units trained {numbers["ratio"]}x as long: {len(y_U)}'
  if not _covers(claim, law, [np.log2(x_of(claim, row)) for row in long.rows]):
    return Check('convergence', False,
                 f'{trained}; too few to see whether the law still moves')
  try:
    before, after = (
        np.array([value for value, _ in estimates.statistics(claim, points)])
        for points in (fits.Data(long.rows, y_U, y_U[None]), long))
  except errors.InputError as error:
    return Check('convergence', False, f'{trained}; through these, {error}')
  moved = np.abs(after - before).max()
  if claim.rule == 'predicts':
    before, after = np.abs(before), np.abs(after)
  before, after = before.max(), after.max()
  allowed = max(numbers['relative'] * abs(before), numbers['absolute'])
  name = {'equal_slopes': 'difference of slopes', 'straight': 'curvature',
          'predicts': 'largest error', 'suffices': 'what others add',
          'parallel': 'change of the slope', 'interior': 'distance to an end',
          'optimum': 'exponent', 'replaces': 'doublings stood for'}.get(
              claim.rule, 'slope')
  return Check(
      'convergence', bool(moved <= allowed),
      f'{name} {before:.3f} at T, {after:.3f} at {numbers["ratio"]}T, through '
      f'the same {len(y_U)} units: moved by {moved:.3f}, {allowed:.3f} allowed')


def rates(claim: Claim, rows: Sequence[dict], data: fits.Data) -> Check:
  """At each size probed, no edge of the rates tried is the best one.

  An edge that beats the best interior rate by no more than `tie` is as good:
  on a plateau, the best of three single runs is a matter of chance. A rate at
  which training failed is the worst of all.
  """
  needed, tie = claim.rates['values'], claim.rates['tie']
  law, sign = data.where(role='law'), RESPONSES[claim.y].better
  failed = [row for row in about(claim, rows, 'rate') if diverged(row)]
  tuned, edges = [], []
  for label in dict.fromkeys(law.configurations):
    curve = {rate: sign * y for rate, y in rate_curve(data, label)}
    steps = {row['steps'] for row in law.where(configuration=label).rows}
    curve |= {row['learning_rate']: -math.inf for row in failed
              if row['configuration'] == label and row['steps'] in steps}
    if len(curve) < needed:
      continue
    first, *interior, last = (curve[rate] for rate in sorted(curve))
    best = max(interior)
    (tuned if max(first, last) - best <= tie else edges).append(label)
  if claim.rates['sizes'] == 'all':
    met = set(tuned) == set(law.configurations)
  else:
    met = _covers(claim, law, [
        np.log2(x_of(claim, law.where(configuration=label).rows[0]))
        for label in tuned])
  detail = (f'configurations with {needed} rates or more and the best one '
            f'inside, to {tie:g}: {len(tuned)}')
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


def width(claim: Claim, rows: Sequence[dict]) -> Check:
  """No tower is narrower than a patch has numbers."""
  detail = _narrow(_of_law(about(claim, rows, 'law')), rows)
  return Check('width', not detail, detail or
               'no tower is narrower than a patch has numbers')


def price(claim: Claim, rows: Sequence[dict]) -> Check:
  """A nat of the code costs the same for every size, or an arm has that."""
  detail = _unpriced(_of_law(about(claim, rows, 'law')), rows)
  return Check('price', not detail, detail or
               'the price of a nat is not confounded with the size of the code')


def _of_law(rows):
  return [row for row in rows if row['role'] == 'law' and row['model']]


def _covers(claim, law, logs):
  """Whether `logs` span the share `span` of the law's range of log2 x."""
  if len(set(logs)) < 2 or not law.rows:
    return False
  of_law = [np.log2(x_of(claim, row)) for row in law.rows]
  return bool(np.ptp(logs) >= claim.span * np.ptp(of_law) - 1e-9)


def not_made(rows: Sequence[dict]) -> list[str]:
  """What the method asks for and no unit of this sweep was there to show.

  Whatever the claims require; a line each, from the units alone.
  """
  law = _of_law(rows)
  done = [row for row in rows if row['state'] == 'done']
  roles = {row['role'] for row in done}
  lines = []
  if 'longer' not in roles:
    lines.append('convergence: no unit was trained longer')
  if 'rate' not in roles:
    lines.append('learning rate for each size: no other rate was tried')
  if len({row['configuration'] for row in done if row['role'] == 'law'}) == (
      sum(row['role'] == 'law' for row in done)):
    lines.append('error between seeds: no configuration has a second seed')
  if not any(row['pca_psnr'] is not None for row in done):
    lines.append('null models: no unit has a patch PCA of its own')
  lines += [f'{name}: {missing}' for name, missing in (
      ('towers as wide as a patch has numbers', _narrow(law, rows)),
      ('a constant price for each nat', _unpriced(law, rows))) if missing]
  if not any(row['coded_bits'] for row in done):
    lines.append('entropy-coded bits: measured for no unit')
  if 'forecast' not in roles:
    lines.append('a forecast: no larger run was predicted before it was made')
  return lines


def _narrow(law, rows):
  """Which units have a second bottleneck in their embedding, or ''.

  An arm of the same configuration whose towers are wide enough shows what that
  costs.
  """
  wide = {row['configuration'] for row in rows if row['role'] == 'arm'
          and row['state'] == 'done' and row['width'] >= row['patch_floats']}
  narrow = [row['unit'] for row in law if row['width'] < row['patch_floats']
            and row['configuration'] not in wide]
  if not narrow:
    return ''
  return (f'{len(narrow)} of {len(law)} units of the law are narrower, so that '
          f'patch size is confounded with that: {", ".join(narrow)}')


def _unpriced(law, rows):
  """Why the size of the code is confounded with the price of a nat, or ''."""
  meant = [row for row in law if row['bottleneck'] == 'gaussian'
           and row['kl_weight'] and row['kl_reduction'] == 'mean']
  if len({row['code_floats'] for row in meant}) < 2 or any(
      row['kl_reduction'] == 'sum' and row['state'] == 'done' for row in rows):
    return ''
  return ('the KL is a mean over the code, so that a nat is the cheaper the '
          'larger the code, and no unit has the sum instead')
