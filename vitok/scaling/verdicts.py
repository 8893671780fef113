"""One of four verdicts per claim, by the numbers of the claim alone."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vitok import errors
from vitok.scaling import bootstrap, checks, estimates, fits
from vitok.scaling import forecast as forecasts
from vitok.scaling.claims import ABOVE, Claim
from vitok.scaling.responses import RESPONSES, value

HOLDS, FAILS = 'holds', 'does not hold'
UNDECIDED, UNTESTABLE = 'undecided', 'not testable here'
VERDICTS = (HOLDS, FAILS, UNDECIDED, UNTESTABLE)
_FORECAST = {
    HOLDS: 'it covers what was measured, and is as narrow as claimed',
    FAILS: 'it does not cover what was measured',
    UNDECIDED: 'it covers what was measured, but is wider than claimed'}
DEMONSTRATION = 'demonstration'  # In their place, where nothing is proved.


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What a claim came to.

  Attributes:
    word: one of VERDICTS, by the rules alone.
    reason: one sentence with the numbers that decided.
    estimate, low, high: of the rule's statistic and its interval, or None.
    smallest: smallest effect that this design detects, at the sd measured
      between seeds (the assumed one without a second seed), or None.
    used, flagged: units in the fit, and left out of it below their PCA.
    checks: all of them, met or not.
    fit: the law behind it, or None where none could be fitted.
    demonstration: whether the sweep can show, and not prove.
  """
  claim: Claim
  word: str
  reason: str
  estimate: float | None
  low: float | None
  high: float | None
  smallest: float | None
  used: int
  flagged: int
  checks: tuple[checks.Check, ...]
  fit: fits.Fit | None
  demonstration: bool

  @property
  def shown(self) -> str:
    """The word as every page, figure and file prints it."""
    return DEMONSTRATION if self.demonstration else self.word

  @property
  def caveat(self) -> str:
    """What stands behind a verdict that lacks a check; '' if none is unmet.

    Such a check is not among the claim's `requires`, or the verdict would be
    undecided; it is said wherever the verdict is.
    """
    unmet = [check.name for check in self.checks if not check.met]
    decided = self.word in (HOLDS, FAILS) and not self.demonstration
    return f', without {" and ".join(unmet)}' if decided and unmet else ''


def judge(claim: Claim, rows: Sequence[dict],
          respond: Callable[[float], fits.Data], *,
          forecast: Callable[[], Mapping] = dict,
          demonstration: bool = False) -> Verdict:
  """The verdict on a claim.

  Args:
    claim: with its margins.
    rows: of the whole sweep, unfinished units too.
    respond: level of intervals -> all finished units with responses `claim.y`
      and replicates for that level.
    forecast: gives what `vitok.scaling.forecast` wrote, {} if nothing.
    demonstration: caps the verdict, whatever the numbers say.
  """
  rows = checks.joined(claim, rows)
  wanted = {row['unit'] for row in checks.about(
      claim, rows, 'law', 'longer', 'rate')}

  def about(level):
    data = respond(level)
    data = dataclasses.replace(data, rows=checks.joined(claim, data.rows))
    return data.keep([row['unit'] in wanted for row in data.rows])

  data = about(claim.level)
  law = data.where(role='law')
  used = checks.fitted(claim, data)
  found = checks.run_all(claim, rows, data)
  flagged = len(law.rows) - len(used.rows)
  estimate = low = high = smallest = fitted = ends = obstacle = None
  try:
    fitted = fits.fit(used, claim.terms, distinct=claim.distinct,
                      curved=claim.rule == 'straight')
    if claim.rule == 'forecasts':
      estimate, low, high = _missed(claim, forecast(), rows)
    else:
      parts = estimates.statistics(claim, used)
      estimate, replicates = parts[0]
      if claim.rule == 'predicts':
        estimate = max(abs(error) for error, _ in parts)
        replicates = np.max([np.abs(error_R) for _, error_R in parts], 0)
        # Each of several errors has its own interval (Bonferroni).
        level = 1 - (1 - claim.level) / len(parts)
        ends = [bootstrap.interval(error_R, level) for _, error_R in
                estimates.statistics(claim, checks.unflagged(about(level)))]
      low, high = bootstrap.interval(replicates, claim.level)
    ends = ends or [(low, high)]
    smallest = estimates.smallest_effect(claim, used.rows, fitted.seed_sd)
  except errors.InputError as error:
    obstacle = str(error)
  word, reason = _decide(claim, rows, found, law, flagged, obstacle, low, high,
                         ends)
  return Verdict(claim, word, reason, estimate, low, high, smallest,
                 len(used.rows), flagged, found, fitted, demonstration)


def unmeasured(claim: Claim, rows: Sequence[dict], why: Sequence[str], *,
               demonstration: bool = False) -> Verdict:
  """The verdict on a claim whose response some finished unit lacks.

  Args:
    claim: of the response.
    rows: of the whole sweep.
    why: what the evaluations say of it: the command that fetches a network.
    demonstration: as in `judge`.
  """
  meant = checks.about(claim, checks.joined(claim, rows), 'law')
  done = [row for row in meant if row['state'] == 'done']
  known = sum(value(row, claim.y) is not None for row in done)
  reason = f'{RESPONSES[claim.y].name} was measured for {known} of {len(done)} '
  reason += 'units.' if not why else f'units: {"; ".join(why)}.'
  if not meant:
    reason = 'This preset has no units for it.'
  return Verdict(claim, UNTESTABLE, reason, None, None, None, None, 0, 0, (),
                 None, demonstration)


def _decide(claim, rows, found, law, flagged, obstacle, low, high, ends):
  """(verdict, reason), in the order that `vitok.scaling.claims` gives."""
  unmet = [check for check in found
           if not check.met and check.name in claim.requires]
  if any(check.name == 'complete' for check in unmet):
    failed, missing = checks.lacking(claim, rows)
    what = ('Units failed' if failed and not missing
            else 'The sweep is not finished')
    return UNDECIDED, f'{what}: {unmet[0].detail}.'
  groups = law.rows[0]['groups'] if law.rows else 0
  if groups < claim.groups:
    return UNTESTABLE, (f'Limited by data: {groups} independent images, '
                        f'{claim.groups} needed.')
  if flagged > claim.flagged * len(law.rows):
    return UNTESTABLE, (
        f'Limited by optimisation: {flagged} of {len(law.rows)} units are '
        'below a PCA of their own size.')
  if obstacle:
    left = f' once {flagged} units below their PCA are left out' * bool(flagged)
    return UNTESTABLE, f'Refused{left}: {obstacle}.'
  if left := [check for check in unmet if not checks.has_units(
      claim, rows, check)]:
    return UNTESTABLE, 'This preset has no units for ' + ' and '.join(
        check.name for check in left) + '.'
  if unmet:
    return UNDECIDED, 'Not met: ' + '; '.join(
        f'{check.name} ({check.detail})' for check in unmet) + '.'
  inside, outside = _sides(claim, low, high, ends)
  word = HOLDS if inside else FAILS if outside else UNDECIDED
  where = ('inside' if inside else 'outside' if outside else 'on both sides of')
  reason = (f'The {claim.level:.0%} interval {low:.3g} to {high:.3g} is '
            f'{where} {region(claim)}.')
  if claim.rule == 'forecasts':
    reason = (f'Measured minus forecast lies between {low:.3g} and {high:.3g}, '
              f'by the interval written before the run: {_FORECAST[word]}.')
  if claim.rule == 'predicts' and not outside and low > claim.margin:
    reason = (f'The largest of {len(ends)} errors, {low:.3g} to {high:.3g}, '
              f'is above {claim.margin:g}, but no single one is: noise alone '
              'can do that.')
  return word, reason


def _missed(claim, stored, rows):
  """Measured minus forecast, and the interval of that which was written."""
  score = forecasts.scores(stored, rows).get(claim.y)
  if score is None or score.observed is None:
    raise errors.InputError(claim.y, None, 'was not forecast before the run')
  return (score.error, score.observed - score.high,
          score.observed - score.low)


def region(claim: Claim) -> str:
  """Where the statistic must lie for the claim to hold, in words."""
  if claim.rule in ABOVE:
    return f'the region above {claim.margin:g}'
  if claim.rule in ('predicts', 'suffices'):
    return f'the region below {claim.margin:g}'
  return f'the region from {-claim.margin:g} to {claim.margin:g}'


def _sides(claim, low, high, ends):
  """Whether the interval lies inside the claimed region, or outside it.

  `ends` are the intervals of which one outside refutes the claim.
  """
  if claim.rule in ABOVE:
    return low > claim.margin, high < claim.margin
  if claim.rule == 'forecasts':  # Covered, and by an interval that tells.
    covered = low <= 0 <= high
    return (covered and -claim.margin < low and high < claim.margin,
            not covered)
  return (-claim.margin < low and high < claim.margin,
          any(a > claim.margin or b < -claim.margin for a, b in ends))
