"""Figures beyond the laws: budgets, forecasts, and fidelity against realism.

Each function takes an `Analysis` and returns a `matplotlib.figure.Figure`, or
None where there is nothing to draw yet.
"""

import numpy as np
from matplotlib.figure import Figure

from vitok import errors
from vitok.scaling import (
    bootstrap,
    checks,
    forecast,
    iso,
    published,
    style,
)
from vitok.scaling.analysis import Analysis
from vitok.scaling.responses import RESPONSES
from vitok.scaling.style import COLOURS, GREY, INK, MARKERS


@style.styled
def budgets(analysis: Analysis) -> Figure | None:
  """Parabolas at equal compute, the best size's power law, and iso-E curves."""
  claims = [v.claim for v in analysis.verdicts if v.claim.rule == 'optimum'
            and v.claim.y in analysis.data]
  if not claims:
    return None
  parts = []
  for claim in claims:
    data = analysis.data[claim.y]
    wanted = {row['unit'] for row in checks.about(claim, data.rows, 'law')}
    part = data.keep([row['unit'] in wanted for row in data.rows])
    if part.rows:
      parts.append((claim, part))
  if not parts:
    return None
  figure = Figure(figsize=(3.6 * len(parts) + 6.4, 3.9))
  axes = figure.subplots(1, len(parts) + 2)
  for number, (claim, data) in enumerate(parts):
    _parabolas(axes[number], claim, data, analysis.data[claim.y].rows)
    _optimum(axes[-2], claim, data, number)
    _iso_code(axes[-1], claim, data, number)
  size, budget = parts[0][0].x
  axes[-2].set_title('Best size for a budget')
  axes[-2].set_ylabel(f'best {style.name(size)}')
  axes[-2].set_yscale('log', base=2)
  axes[-2].yaxis.set_major_formatter(lambda value, _: style.si(value))
  axes[-1].set_title('What compute buys at equal E')
  axes[-1].set_ylabel(RESPONSES[parts[0][0].y].name)
  values = [row[budget] for _, data in parts for row in data.rows]
  for axis in axes[-2:]:
    style.size_axis(axis, 'train_flops', values)
    axis.legend(loc='best', fontsize=7)
  return figure


def _floats(data):
  return ' and '.join(f'E {floats}' for floats in sorted(
      {row['code_floats'] for row in data.rows}))


def _parabolas(axes, claim, data, rows):
  """Units of each budget over the size, the parabola and its best point."""
  size, budget = claim.x
  everything = sorted({row[budget] for row in rows})
  for value in sorted({row[budget] for row in data.rows}):
    part = data.where(**{budget: value})
    number = everything.index(value)
    look = dict(color=COLOURS[number % len(COLOURS)])
    for flagged in (False, True):
      chosen = part.keep([bool(row['below_pca']) == flagged
                          for row in part.rows])
      if chosen.rows:
        axes.plot([row[size] for row in chosen.rows], chosen.y_U,
                  MARKERS[number % len(MARKERS)], markersize=4,
                  markerfacecolor='white' if flagged else look['color'],
                  label=None if flagged else f'{style.si(value)} FLOP', **look)
    try:
      curve = iso.curve(part, size, claim.y, budget=value, least=3)
    except errors.InputError:
      continue
    x = np.geomspace(*(2.0**end for end in curve.range), 60)
    axes.plot(x, curve.line(x), linewidth=1.1, **look)
    if curve.range[0] < curve.best < curve.range[1]:
      axes.plot([2**curve.best], [curve.value], '*', markersize=10,
                markeredgecolor='white', **look)
  style.size_axis(axes, size, [row[size] for row in data.rows])
  axes.set_ylabel(RESPONSES[claim.y].name)
  axes.set_title(f'Equal compute, {_floats(data)}')
  axes.legend(loc='best', fontsize=7)


def _optimum(axes, claim, data, number):
  """Best sizes with their intervals, and the power law through them."""
  size, budget = claim.x
  look = dict(color=COLOURS[number % len(COLOURS)])
  for value in sorted({row[budget] for row in data.rows}):
    try:
      curve = iso.curve(data.where(**{budget: value}), size, claim.y, least=3)
    except errors.InputError:
      continue
    low, high = bootstrap.interval(curve.best_R, claim.level)
    middle = float(np.clip(curve.best, *curve.range))
    inside = curve.range[0] < curve.best < curve.range[1]
    axes.errorbar([value], [2**middle], yerr=np.maximum(
        [[2**middle - 2**low], [2**high - 2**middle]], 0), capsize=3,
        marker=MARKERS[number % len(MARKERS)],
        markerfacecolor=look['color'] if inside else 'white', **look)
  try:
    power = iso.power_law(data, size, budget, claim.y, least=claim.distinct,
                          level=claim.level)
  except errors.InputError:
    axes.plot([], [], label=f'{_floats(data)}: no law, see the verdict', **look)
    return
  x = np.array([min(c.budget for c in power.curves),
                max(c.budget for c in power.curves)])
  slope, slope_R = power.exponent
  low, high = bootstrap.interval(slope_R, claim.level)
  axes.plot(x, 2**(power.factor + slope * np.log2(x)), linewidth=1.2, label=(
      f'{_floats(data)}: exponent {slope:.2f} [{low:.2f}, {high:.2f}]'), **look)


def _iso_code(axes, claim, data, number):
  """Units over compute at one E, and the best of each budget."""
  _, budget = claim.x
  look = dict(color=COLOURS[number % len(COLOURS)])
  axes.plot([row[budget] for row in data.rows], data.y_U,
            MARKERS[number % len(MARKERS)], markersize=3, alpha=0.4, **look)
  values = sorted({row[budget] for row in data.rows})
  better = RESPONSES[claim.y].better
  best = [better * max(better * data.where(**{budget: value}).y_U)
          for value in values]
  axes.plot(values, best, linewidth=1.3, label=f'{_floats(data)}, best unit',
            **look)
  nulls = {row['pca_psnr'] for row in data.rows} - {None}
  if claim.y == 'psnr' and len(nulls) == 1:
    axes.axhline(nulls.pop(), linestyle='--', linewidth=1, alpha=0.7,
                 label=f'{_floats(data)}, patch PCA', **look)


@style.styled
def forecasts(analysis: Analysis) -> Figure | None:
  """The ladder, what was forecast before the run, and what the run came to."""
  stored = analysis.forecast
  if not stored:
    return None
  scores = forecast.scores(stored, analysis.rows)
  names = [name for name in scores if name != 'log2_mse']
  figure = Figure(figsize=(3.3 * len(names) + 0.6, 3.7))
  axes = figure.subplots(1, len(names), squeeze=False)[0]
  for ax, name in zip(axes, names, strict=True):
    score, hours = scores[name], name == 'hours'
    x = [row[forecast.X] for row in stored['ladder']]
    y = [row['seconds'] / 3600 if hours else row[name]
         for row in stored['ladder']]
    ax.plot(x, y, 'o', color=COLOURS[0], markersize=4, label='ladder')
    at = stored['train_flops']
    ax.errorbar([at], [score.predicted], yerr=np.maximum(
        [[score.predicted - score.low], [score.high - score.predicted]], 0),
                marker='_', markersize=11, capsize=4, color=INK, linewidth=1.6,
                label=f'forecast, {stored["level"]:.0%}')
    if score.observed is not None:
      ax.plot([at], [score.observed], '*', markersize=12, color=COLOURS[
          2 if score.covered else 1], markeredgecolor='white', zorder=4,
              label='came to' + (', covered' if score.covered
                                 else ', not covered'))
    else:
      ax.plot([], [], label='not finished', color=GREY)
    style.size_axis(ax, forecast.X, [*x, at])
    if hours:
      ax.set_yscale('log')
    ax.set_ylabel('hours' if hours else RESPONSES[name].name)
    ax.legend(loc='best', fontsize=7)
  axes[0].set_title(f'Forecast of {stored["times"]:.3g} times the compute, '
                    f'written {stored["written"][:16]} UTC')
  return figure


@style.styled
def tradeoff(analysis: Analysis) -> Figure | None:
  """Fidelity against realism, a point per configuration; the paper's beside.

  Drawn where units differ in their stage of training.
  """
  rows = [row for row in analysis.rows if row['state'] == 'done'
          and row['role'] in ('law', 'arm')]
  measures = [y for y in ('lpips', 'rkid', 'log2_rfid') if y in analysis.data]
  if len({row.get('stage') for row in rows}) < 2 or not measures:
    return None
  figure = Figure(figsize=(4.2 * (len(measures) + 1), 4.2))
  axes = figure.subplots(1, len(measures) + 1)
  labels = list(dict.fromkeys(row['configuration'] for row in rows))
  for ax, y in zip(axes, measures, strict=False):
    for number, label in enumerate(labels):
      part = [row for row in rows if row['configuration'] == label]
      x_U = np.array([row[RESPONSES[y].column] for row in part])
      psnr_U = np.array([row['psnr'] for row in part])
      stage = part[0].get('stage')
      look = dict(color=COLOURS[number % len(COLOURS)], marker=MARKERS[
          number % len(MARKERS)])
      ax.plot(x_U, psnr_U, linestyle='', markersize=3, alpha=0.5, **look)
      ax.plot([x_U.mean()], [psnr_U.mean()], linestyle='', markersize=8,
              markerfacecolor=look['color'] if stage == 2 else 'white',
              label=label, **look)
    ax.set_xlabel(f'{RESPONSES[y].name} (realism: to the left)')
    ax.set_ylabel('PSNR (dB)')
    if RESPONSES[y].log2:
      ax.set_xscale('log')
  axes[0].set_title('Fidelity against realism; filled: stage 2')
  axes[0].legend(loc='best', fontsize=7)
  paper = axes[-1]
  for number, row in enumerate(published.LOSSES.rows):
    name, rfid, *_, psnr = row
    paper.plot([rfid], [psnr], MARKERS[number % len(MARKERS)], color=GREY,
               markersize=7, markerfacecolor=GREY if name == 'stage 2'
               else 'white', label=name)
  paper.set(xscale='log', xlabel='rFID', ylabel='PSNR (dB), pooled',
            title='Published')
  paper.legend(title=published.LOSSES.source, title_fontsize=6.5, loc='best',
               alignment='left', fontsize=7)
  return figure
