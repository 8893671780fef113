"""Tables of the report's page, as HTML, and the numbers behind them."""

import html

import numpy as np

from vitok.scaling import analysis, bootstrap, forecast, style
from vitok.scaling.responses import RESPONSES


def law_numbers(law: analysis.Law) -> dict:
  """A law for programs; what is not known is None."""
  if law.fit is None:
    return dict(x=law.x, y=law.y, refused=law.refused)
  slope, slope_R = law.fit.slope(law.x)
  bend, bend_R = law.curved.curvature()
  loo = np.array(list(law.fit.leave_one_out.values()))
  loo = loo[np.isfinite(loo)]
  return dict(
      x=law.x, y=law.y, units=law.fit.units,
      intercept=float(law.fit.coefficients[0]
                      - slope * law.fit.centre[0]),
      slope=slope, slope_interval=bootstrap.interval(slope_R, analysis.LEVEL),
      curvature=bend,
      curvature_interval=bootstrap.interval(bend_R, analysis.LEVEL),
      r2=law.fit.r2, r2_curved=law.curved.r2,
      residual_sd=law.fit.residual_sd, seed_sd=law.fit.seed_sd,
      lack_of_fit=law.fit.lack_of_fit,
      lack_of_fit_curved=law.curved.lack_of_fit,
      leave_one_out_rms=float(np.sqrt(np.mean(loo**2))) if len(loo) else None,
      leave_one_out_max=float(np.abs(loo).max()) if len(loo) else None,
      held_out={column: {str(value): list(numbers) for value, numbers in
                         errors.items()}
                for column, errors in law.held_out.items()})


def laws(found: analysis.Analysis) -> str:
  rows, held = [], []
  for law in map(law_numbers, found.laws):
    if 'refused' in law:
      rows.append([f'{law["y"]} over {law["x"]}', law['refused']])
      continue
    test = law['lack_of_fit']
    rows.append([
        f'{law["y"]} over {law["x"]}', interval(law['slope'],
                                             law['slope_interval']),
        law['r2'], interval(law['curvature'], law['curvature_interval']),
        law['r2_curved'], law['residual_sd'], law['seed_sd'],
        f'F{tuple(test["df"])} = {test["f"]:.3g}, p = {test["p"]:.2g}'
        if test else None, law['leave_one_out_rms'],
        law['leave_one_out_max']])
    held += [[f'{law["y"]} over {law["x"]}', f'{column} = {value}',
              interval(numbers[0], numbers[1:])]
             for column, values in law['held_out'].items()
             for value, numbers in values.items()]
  return ('<h2>Laws</h2><p class="small">Per doubling, with 90% intervals: '
          'seeds within configurations and images by group are drawn anew, '
          'units are not; other samples enter gKID by its standard error, and '
          'other images Frechet distances not at all. Lack of fit is tested '
          'against the error between seeds.</p>' + table(
              ('law', 'slope', 'R²', 'curvature', 'R² with it', 'residual sd',
               'seed sd', 'lack of fit', 'leave-one-out rms', 'max'), rows)
          + '<h2>Held out</h2><p class="small">Predicted minus observed, by '
          'laws fitted without that value.</p>'
          + table(('law', 'left out', 'error'), held))


def pairs(found: analysis.Analysis) -> str:
  return '<h2>Paired differences</h2>' + table(
      ('configuration', 'minus', 'PSNR (dB)', 'sd of the difference',
       'sd of PSNR'),
      [[pair.a, pair.b, interval(pair.difference, (pair.low, pair.high)),
        pair.sd, pair.sd_unpaired] for pair in found.pairs])


def cost(found: analysis.Analysis) -> str:
  rows = [row for row in found.rows if row['seconds']]
  if not rows:
    return ''
  spent = sum(row['seconds'] for row in rows)
  steps = sum(row.get('seconds_step') or 0 for row in rows)
  text = (f'{len(rows)} units took {spent:.0f} s, {1 - steps / spent:.0%} of '
          'it overhead (everything but training steps). ')
  priced = [row for row in rows if row['priced_seconds']]
  if priced:
    price = found.sweep.price
    ratio = (sum(row['seconds'] for row in priced)
             / sum(row['priced_seconds'] for row in priced))
    devices = price.get('devices', 1)
    text += (f'They were priced for {devices} x {price.get("device")} at an '
             f'efficiency of {price.get("efficiency")}; cost over price is '
             f'{ratio:.2f}. ')
    if price.get('peak_flops') and steps:
      speed = sum(row['train_flops'] for row in rows) / steps
      text += ('Training steps reached '
               f'{speed / devices / price["peak_flops"]:.0%} of the peak.')
  return f'<h2>Price against cost</h2><p>{html.escape(text)}</p>'


def regressions(found: analysis.Analysis) -> str:
  """What each column explains once the others are known."""
  rows, said = [], []
  for one in found.regressions:
    slopes = one.slopes()
    rows += [[one.y if term == one.fit.terms[0] else '', term,
              interval(slopes[term][0], slopes[term][1:]), one.partial[term],
              one.alone if term == one.fit.terms[0] else None,
              one.fit.r2 if term == one.fit.terms[0] else None,
              interval(one.unexplained[0], one.unexplained[1:])
              if one.unexplained and term == one.fit.terms[0] else None]
             for term in one.fit.terms]
    said += [f'{column} does not vary apart from {twin}'
             for column, twin in one.left_out.items()]
  if not rows:
    return ''
  text = ('Least squares on log2 of all columns at once, units of the law. '
          'Partial R²: the share of what the other columns leave that this one '
          'explains. Beyond the first column the others move the fitted units '
          'by the last number, rms, in units of the response.')
  text += ''.join(f' {line}.' for line in dict.fromkeys(said))
  return (f'<h2>Multiple regression</h2><p class="small">{html.escape(text)}'
          '</p>' + table(('response', 'column', 'per doubling', 'partial R²',
                          'R² of the first alone', 'R² of all',
                          'beyond the first'), rows))


def forecasts(found: analysis.Analysis) -> str:
  """What was written before the larger run, and how it was met."""
  stored = found.forecast
  if not stored:
    return ''
  scores = forecast.scores(stored, found.rows)
  rows = [[_named(name), f'{score.predicted:.4g} [{score.low:.4g}, '
           f'{score.high:.4g}]', score.observed, score.error, score.covered]
          for name, score in scores.items()]
  known = [score for score in scores.values() if score.observed is not None]
  text = (f'{stored["unit"]}, {stored["times"]:.3g} times the compute of the '
          f'largest of {len(stored["ladder"])} smaller runs, was forecast at '
          f'{stored["written"]}, before it started. SHA-256 '
          f'{stored["sha256"]}. ')
  text += (f'{sum(score.covered for score in known)} of {len(known)} numbers '
           f'lie in their {stored["level"]:.0%} intervals; they are of one run '
           'and not independent.' if known else 'It has not finished.')
  back = [[_named(name), f'{score.predicted:.4g} [{score.low:.4g}, '
           f'{score.high:.4g}]', score.observed, score.error, score.covered]
          for name, score in forecast.backtest(found.rows).items()]
  head = ('number', 'forecast', 'came to', 'error', 'covered')
  return (f'<h2>Forecast</h2><p class="small">{html.escape(text)}</p>'
          + table(head, rows)
          + '<p class="small">The same rule, asked for the top rung from those '
          'below it:</p>' + table(head, back))


def _named(name):
  response = RESPONSES.get(name)
  if response is None:
    return name
  return response.unit if response.log2 else response.name


def interval(value: float, ends) -> str:
  """A number with its interval."""
  return f'{value:+.3g} [{ends[0]:.3g}, {ends[1]:.3g}]'


def table(head, rows) -> str:
  """A table; None is a dash."""
  def cell(value):
    if value is None:
      return '–'
    if isinstance(value, bool):
      return 'yes' if value else 'no'
    if isinstance(value, float):
      return style.si(value) if abs(value) >= 1e4 else f'{value:.4g}'
    if isinstance(value, int) and abs(value) >= 1e5:
      return style.si(value)
    return html.escape(str(value))
  lines = ''.join('<tr>' + ''.join(f'<td>{cell(value)}</td>' for value in row)
                  + '</tr>' for row in rows)
  titles = ''.join(f'<th>{html.escape(name)}</th>' for name in head)
  return f'<table><tr>{titles}</tr>{lines}</table>'
