"""What an experiment claims, and the numbers by which it is judged.

An experiment file holds `CLAIMS`, a tuple of plain dicts. `parse` checks them,
`recorded` writes every default out for `sweep.json`; the report prints the hash
of both, `fingerprint`, and of the code that judges, `rules`, so that no verdict
is edited by hand. Fields of a claim (those without a default must be given):

  name        an identifier, unique in the file: 'code_size_suffices'.
  text        the sentence that is judged, printed as it stands.
  rule        one of RULES, each a statistic compared with `margin`:
                'slope_above'   slope of y over log2 x is above `margin`
                'no_slope'      |slope| is below `margin` (equivalence)
                'equal_slopes'  the slopes over log2 x[0] and log2 x[1] differ
                                by less than `margin` (equivalence)
                'straight'      |coefficient of (log2 x - mean)^2| is below
                                `margin` (equivalence)
                'predicts'      the largest error of laws fitted without one
                                value of `hold_out`, in units of y, is below
                                `margin`
                'suffices'      what the columns `adjust` explain beyond x,
                                rms over units in units of y, is below
                                `margin`
                'parallel'      the slope over log2 x[0] changes by less than
                                `margin` per doubling of x[1] (equivalence)
                'interior'      the best x of a parabola through the units is
                                more than `margin` doublings inside the sizes
                                that were run
                'optimum'       the best x[0] at each value of x[1], a budget,
                                grows as a power of it above `margin`; refused
                                where a budget has its best size at an edge
                'replaces'      at equal y, a doubling of x[1] stands for more
                                than `margin` doublings of x[0]
                'forecasts'     the unit of role 'forecast' lies in the
                                interval written before it ran, which is
                                within `margin` of it
  x           a column, or a list of two for 'equal_slopes', 'parallel',
              'replaces' and 'optimum'.
  margin      the number; y per doubling of x (dB per doubling).
  y           one of `vitok.scaling.responses`: 'psnr' (dB) by default.
  adjust      columns whose log2 enters the regression beside x: ().
  where       {column: value}: the units the claim is about: {} (all).
  arms        arms whose units count as those of the law in this claim, and
              in no other: ().
  hold_out    column for 'predicts': 'code_floats' or 'patch'.
  level       coverage of the interval: 0.9.
  distinct    values of x needed: 4 if x is code_floats, tokens or channels
              (never fewer) or has a best one, 5 for a forecast, otherwise 3.
  groups      independent images needed: 8. Intervals over fewer cover less
              than they say as soon as images are not normally distributed (an
              exponential spread: .86 of 90% at 8, .82 at 4, .78 at 3).
  flagged     largest share of units below their own PCA before the claim is
              not testable here: 0.5.
  seed_sd     y's sd between seeds that `smallest_effect` assumes before a run:
              the response's `tie`, .06 dB; power: 0.8.
  convergence {'ratio': 3, 'relative': 0.15, 'absolute': 0 for the rules ABOVE,
              else half of `margin`}: through units that were also trained
              `ratio` times as long, what the rule compares with `margin` may
              move by max(relative * |its value|, absolute).
  rates       {'values': 3, 'sizes': 'ends', 'tie': of y}: learning rates
              tried, with the best one interior or within `tie` of it, at sizes
              that cover `span` ('ends') or at every configuration ('all').
  seed_df     degrees of freedom of the pure error between seeds that the
              check 'seeds' needs (three configurations with two seeds): 3.
  span        part of the range of log2 x that units trained longer, and sizes
              whose rates were tried, must cover: 0.5.
  requires    which checks must be met, else the verdict is undecided:
              all of CHECKS but 'price'. 'width': no tower is narrower than a
              patch has numbers, or an arm that is not shows what that costs.
              'price': a nat of KL costs the same for every size of the code,
              or an arm has that (`loss.kl_reduction='sum'`).

Example:

  CLAIMS = (dict(
      name='code_size_suffices', rule='equal_slopes', margin=0.25,
      x=['tokens', 'channels'],
      text='At equal E = L c, tokens and channels are worth the same.'),)

Verdicts, in the order they are tried: *undecided* (units are missing), *not
testable here* (too few independent images, too many units below their PCA, too
few distinct x, terms that do not vary apart, no unit at all for a required
check), *undecided* (another required check is not met), and then by the
interval of the statistic: *holds* (inside the claimed region), *does not hold*
(outside), *undecided* (on both sides). 'predicts' fails only where the interval
of one held-out value alone lies outside (Bonferroni: among many, noise pushes
the largest error up).

A unit that failed, or whose evaluation is not finite, enters no fit; of role
'rate' it counts as the worst rate. Units that differ in their seed alone are
together above or below their PCA, by their mean.

What the report reads, all of it below the sweep's workdir:

`sweep.json`
  experiment    stem of the file: 'bottleneck_scaling'.
  preset        'cpu'.
  about         docstring of the experiment file.
  claims        `recorded(CLAIMS)` when the sweep was launched.
  rules         `rules()` at that time.
  units         [{'name', 'overrides': {dotted key: value}, 'factors'}].

  `factors` of a unit; every other entry is a column of the table as well:
    role           'law': enters the fits. 'longer': a law unit trained longer
                   (convergence). 'rate': another learning rate. 'forecast':
                   predicted from the others before it runs. 'tokenizer': what
                   units of generators are after, shown with them. 'arm': drawn
                   as a series of its own, never fitted (a deterministic
                   bottleneck, a constant price per nat).
    configuration  label shared by the units that differ only in seed, steps,
                   learning rate (and arm): 'p8c16'. A 'rate' or 'longer' unit
                   has the configuration of the law unit it belongs to.
    arm            name of the series, for role 'arm'.

`price.json`
  {'device', 'peak_flops', 'efficiency', 'units': [{'unit', 'parameters',
  'train_flops', 'bytes_per_device', 'hours'}]}; hours of the whole run.

`forecast.json`
  of a sweep with a unit of role 'forecast': see `vitok.scaling.forecast`.

`nulls.json`
  {'protocol': id of the evaluation protocol, 'train_images', 'rows':
  [{'model': 'pca' | 'mean' | 'downsample', 'tubelet', 'patch', 'channels',
  'tokens', 'code_floats', 'psnr', 'ssim', 'mse', 'key'}]}. 'pca': one row per
  (tubelet, patch, channels) of the units, floats per patch = channels. 'mean':
  one colour per patch, 3 floats a token. 'downsample': down and up again, its
  own code_floats; patch and channels 0. Rows also hold the units'
  `evaluation.numbers` by name ('lpips', 'rkid'), and 'ids' their protocols.
`nulls.npz`
  'index', 'group' and per row '<key>/psnr', '<key>/mse', '<key>/ssim' where it
  is defined: arrays over the same images, in the same order, as the units'
  evaluation.

`<unit>/`, a run's workdir
  config.json, model.json (accounting.describe), metrics.jsonl, DONE,
  evaluation/protocol.json ({'id', ...}), evaluation/<step>.npz with index,
  group, mse, psnr, ssim, kl_bits; uint8 originals and reconstructions
  NxTxHxWxC; where it was measured 'rkid', 'rkid_index', 'rkid_group' of the
  images with features. DONE: {'step', 'metrics': {'eval/psnr': ...,
  'eval/coded_bits': where measured}, 'seconds': {clock bucket: s}}. FAILED, of
  a unit that did: {'error': one line}.

Columns of the table (`results.csv`): see `vitok.scaling.table.COLUMNS`. `x`,
`adjust`, `where` and `hold_out` name any of them or any factor; the ones used
most are code_floats, tokens, channels, patch, parameters, encoder_parameters,
decoder_parameters, encoder_flops, decoder_flops, train_flops, steps.
"""

import dataclasses
import hashlib
import json
import math
import pathlib
import re
from collections.abc import Iterable, Mapping

from vitok import errors
from vitok.scaling.responses import RESPONSES

# The number of columns that each rule is over.
RULES = {'slope_above': 1, 'no_slope': 1, 'equal_slopes': 2, 'straight': 1,
         'predicts': 1, 'suffices': 1, 'parallel': 2, 'interior': 1,
         'optimum': 2, 'replaces': 2, 'forecasts': 1}
# Their statistic is to be large, or as large as can be; that of others small.
ABOVE = ('slope_above', 'interior', 'optimum', 'replaces')
CHECKS = ('complete', 'convergence', 'rates', 'seeds', 'null', 'width', 'price')
_JUDGES = ('claims', 'responses', 'table', 'bootstrap', 'fits', 'regression',
           'iso', 'forecast', 'estimates', 'checks', 'verdicts')
_LEAST = {'interior': 4, 'optimum': 4, 'forecasts': 5}  # Values of x.
CODE_COLUMNS = ('code_floats', 'tokens', 'channels')


@dataclasses.dataclass(frozen=True)
class Claim:
  """One sentence and the numbers that judge it; see the module's docstring."""
  name: str
  text: str
  rule: str
  x: tuple[str, ...]
  margin: float
  y: str = 'psnr'
  adjust: tuple[str, ...] = ()
  where: Mapping = dataclasses.field(default_factory=dict)
  arms: tuple[str, ...] = ()
  hold_out: str = ''
  level: float = 0.9
  distinct: int = 3
  groups: int = 8
  flagged: float = 0.5
  seed_sd: float | None = None
  seed_df: int = 3
  power: float = 0.8
  convergence: Mapping = dataclasses.field(
      default_factory=lambda: dict(ratio=3, relative=0.15, absolute=None))
  rates: Mapping = dataclasses.field(
      default_factory=lambda: dict(values=3, sizes='ends', tie=None))
  span: float = 0.5
  requires: tuple[str, ...] = CHECKS[:-1]

  @property
  def terms(self) -> tuple[str, ...]:
    """Columns whose log2 the regression has."""
    return self.x + self.adjust


_FIELDS = {field.name: field for field in dataclasses.fields(Claim)}
_TEXTS = ('name', 'text', 'rule', 'y', 'hold_out')
_NAMES = ('x', 'adjust', 'arms', 'requires')
_NUMBERS = {  # Of a claim, or of a field of it: type, smallest, largest.
    'margin': (float, -math.inf, math.inf), 'level': (float, 0.5, 0.999),
    'distinct': (int, 2, math.inf), 'groups': (int, 1, math.inf),
    'flagged': (float, 0, 1), 'seed_sd': (float, 0, math.inf),
    'seed_df': (int, 0, math.inf), 'power': (float, 0.5, 0.999),
    'span': (float, 0, 1), 'convergence.ratio': (float, 1, math.inf),
    'convergence.relative': (float, 0, math.inf),
    'convergence.absolute': (float, 0, math.inf),
    # An interior one needs two more.
    'rates.values': (int, 3, math.inf), 'rates.tie': (float, 0, math.inf),
}


def parse(claims: Iterable[Mapping | Claim],
          columns: Iterable[str] | None = None) -> tuple[Claim, ...]:
  """Checked claims, in the order given.

  Args:
    claims: dicts; what is a `Claim` already is checked again.
    columns: names that `x`, `adjust`, `where` and `hold_out` may use:
      `table.COLUMNS` and the factors of the units. Any, if None.

  Raises:
    InputError: an unknown or missing field, one of the wrong type or out of
      range, an unknown rule, response, check or column, a duplicate name, or
      a margin that is not positive where an equivalence is claimed.
  """
  if isinstance(claims, str | Mapping) or not isinstance(claims, Iterable):
    raise errors.InputError('CLAIMS', claims, 'is not a tuple of dicts')
  parsed = tuple(_one(f'CLAIMS[{i}]', claim) for i, claim in enumerate(claims))
  if columns is not None:
    known = sorted(columns)
    for i, claim in enumerate(parsed):
      for field in ('x', 'adjust', 'where', 'hold_out'):
        named = getattr(claim, field)
        for name in (named,) * bool(named) if field == 'hold_out' else named:
          if name not in known:
            raise errors.InputError(
                f'CLAIMS[{i}].{field}', name,
                'is no column of the table and no factor of a unit',
                errors.nearest(name, known))
  for i, claim in enumerate(parsed):
    if claim.name in [other.name for other in parsed[:i]]:
      raise errors.InputError(f'CLAIMS[{i}].name', claim.name, 'is not unique')
  return parsed


def recorded(claims: Iterable[Mapping | Claim]) -> list[dict]:
  """The claims as JSON has them, every default written out.

  A default that changes later changes no verdict of a sweep launched before.
  """
  return json.loads(json.dumps([
      dataclasses.asdict(claim) for claim in parse(claims)]))


def rules() -> str:
  """SHA-256 over the source of the modules that judge."""
  found = hashlib.sha256()
  for name in _JUDGES:
    found.update(pathlib.Path(__file__).with_name(f'{name}.py').read_bytes())
  return found.hexdigest()


def fingerprint(claims: Iterable[Claim]) -> str:
  """SHA-256 of every number and word that decides a verdict."""
  text = json.dumps([dataclasses.asdict(c) for c in claims], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _over(rule, x):
  """Those of x whose values a law is over, and not a condition of it."""
  return x if rule == 'equal_slopes' else x[:1]


def _one(key, given):
  if isinstance(given, Claim):
    given = dataclasses.asdict(given)
  if not isinstance(given, Mapping):
    raise errors.InputError(key, given, 'is not a dict')
  for field in given:
    errors.one_of(f'{key}.{field}', field, tuple(_FIELDS))
  needed = ('name', 'text', 'rule', 'x', 'margin')
  missing = [field for field in needed if field not in given]
  if missing:
    raise errors.InputError(f'{key}.{missing[0]}', None, 'is missing')
  values = dict(given)
  if isinstance(given['x'], str):
    values['x'] = (given['x'],)
  _check_types(key, values)
  for field in _NAMES:
    values[field] = tuple(values.get(field, _FIELDS[field].default))
  for field in ('convergence', 'rates'):
    default = _FIELDS[field].default_factory()
    for name in values.get(field, {}):
      errors.one_of(f'{key}.{field}.{name}', name, tuple(default))
    values[field] = default | dict(values.get(field, {}))
  if values['convergence']['absolute'] is None:
    values['convergence']['absolute'] = (
        0.0 if given['rule'] in ABOVE else given['margin'] / 2)
  response = RESPONSES.get(values.get('y', 'psnr'))
  if values['rates']['tie'] is None:
    values['rates']['tie'] = response and response.tie
  if values.get('seed_sd') is None:
    values['seed_sd'] = response and response.tie
  # Two points fix a line and three barely test one.
  least = max(_LEAST.get(given['rule'], 3),
              4 if set(_over(given['rule'], values['x'])) & set(CODE_COLUMNS)
              else 0)
  if least > 3:
    values['distinct'] = max(least, values.get('distinct', least))
  claim = Claim(**values)
  errors.one_of(f'{key}.rule', claim.rule, tuple(RULES))
  errors.one_of(f'{key}.y', claim.y, tuple(RESPONSES))
  errors.one_of(f'{key}.rates.sizes', claim.rates['sizes'], ('ends', 'all'))
  for check in claim.requires:
    errors.one_of(f'{key}.requires', check, CHECKS)
  if len(claim.x) != RULES[claim.rule]:
    raise errors.InputError(f'{key}.x', given['x'],
                            f'is not the number of columns of {claim.rule}')
  if claim.rule not in ABOVE and not claim.margin > 0:
    raise errors.InputError(f'{key}.margin', claim.margin, 'is not positive')
  if claim.rule == 'suffices' and not claim.adjust:
    raise errors.InputError(f'{key}.adjust', claim.adjust,
                            "names what x is said to suffice without")
  if claim.rule in ('interior', 'optimum', 'forecasts') and claim.adjust:
    raise errors.InputError(f'{key}.adjust', claim.adjust,
                            f"has no place in the rule {claim.rule!r}", ())
  if (claim.rule == 'predicts') != bool(claim.hold_out):
    raise errors.InputError(f'{key}.hold_out', claim.hold_out,
                            "goes with the rule 'predicts' and with no other",
                            'code_floats')
  return claim


def _check_types(key, values):
  """Refuses a field of the wrong type, or a number out of its range."""
  for field in _TEXTS:
    if not isinstance(values.get(field, ''), str) or (
        field == 'name' and not values[field].isidentifier()):
      raise errors.InputError(
          f'{key}.{field}', values[field],
          'is no identifier' if field == 'name' else 'is no text',
          re.sub(r'\W', '_', str(values[field])) if field == 'name' else None)
  for field in _NAMES:
    named = values.get(field, ())
    if not isinstance(named, list | tuple) or not all(
        isinstance(name, str) for name in named):
      raise errors.InputError(f'{key}.{field}', named,
                              'is not a list of names', [str(named)])
  numbers = dict(values)
  for field in ('where', 'convergence', 'rates'):
    group = values.get(field, {})
    if not isinstance(group, Mapping):
      raise errors.InputError(f'{key}.{field}', group, 'is not a dict')
    for name, value in group.items():
      if not isinstance(value, str | float | int | None):
        raise errors.InputError(f'{key}.{field}.{name}', value,
                                'is neither a number nor text')
    # None stands for the default of some, which depends on other fields.
    numbers |= {f'{field}.{name}': value for name, value in group.items()
                if value is not None or name not in ('absolute', 'tie')}
  for field, (kind, low, high) in _NUMBERS.items():
    if field in numbers:
      _check_number(f'{key}.{field}', numbers[field], kind, low, high)


def _check_number(key, value, kind, low, high):
  right = (int,) if kind is int else (int, float)
  typed = isinstance(value, right) and not isinstance(value, bool)
  if typed and low <= value <= high and math.isfinite(value):
    return
  try:
    near = kind(min(max(float(value), low), high))
  except (TypeError, ValueError, OverflowError):
    near = kind(low) if math.isfinite(low) else None
  near = near if near is not None and math.isfinite(near) else None
  noun = 'a whole number' if kind is int else 'a number'
  raise errors.InputError(
      key, value, f'is not {noun}' if not typed else 'is out of range', near)
