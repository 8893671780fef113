"""Figures of the laws: responses over sizes, with nulls and intervals.

Each function takes an `Analysis` and returns a `matplotlib.figure.Figure`, or
None where there is nothing to draw yet.
"""

import itertools
import re
from collections.abc import Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vitok.scaling import bootstrap, published, style
from vitok.scaling.analysis import LEVEL, Analysis
from vitok.scaling.claims import ABOVE
from vitok.scaling.responses import RESPONSES
from vitok.scaling.style import COLOURS, GREY, INK, MARKERS, PALE

_CODE = 'code_floats'


_SERIES = {'patch': 'patch {}', 'cell': 'tubelet {}', 'budget': '{} FLOP',
           _CODE: 'E {}', 'kind': '{}'}


def series_of(x: str, rows: Sequence[dict]) -> str:
  """The column that tells the series of a figure over x apart, '' for one."""
  if any(row.get('kind') for row in rows):
    return 'kind'
  if x in (_CODE, 'tokens', 'channels'):
    tubelets = {row['tubelet'] for row in rows if row['tubelet']}
    return 'patch' if len(tubelets) < 2 else 'cell'
  for column in ('budget', _CODE):
    if len({row.get(column) for row in rows if row['role'] == 'law'}) > 1:
      return column
  return ''


def series_name(by: str, value) -> str:
  """What a legend calls a series."""
  if not by:
    return 'units of the law'
  return _SERIES[by].format(value if isinstance(value, str)
                            else style.si(value))


@style.styled
def law(analysis: Analysis, x: str, y: str = 'psnr') -> Figure | None:
  """A response over a size: units, law, residuals, nulls; the paper beside.

  Args:
    analysis: of the sweep.
    x: column: 'code_floats', 'encoder_parameters', ...
    y: a response; of a logarithm, the thing itself is drawn on a log axis.
  """
  fitted = analysis.law(x, y)
  data = analysis.data[y].keep(
      [row['role'] in ('law', 'arm') for row in analysis.data[y].rows]).where(
          **fitted.where)
  if not data.rows:
    return None
  paper = published.panel(x, y, video=any(
      (row['frames'] or 1) > 1 for row in data.rows))
  lawful = fitted.fit is not None
  figure = Figure(figsize=(10.5 if paper else 7.5, 5.8 if lawful else 4.8))
  grid = figure.add_gridspec(
      1 + lawful, 2 if paper else 1,
      height_ratios=(4, 1) if lawful else (1,),
      **(dict(width_ratios=(1.65, 1)) if paper else {}))
  main = lowest = figure.add_subplot(grid[0, 0])
  rows = data.where(role='law').rows or data.rows
  _law_line(main, fitted, y, rows)
  _units(main, data, x, y)
  _nulls(main, analysis, x, y)
  if lawful:
    lowest = figure.add_subplot(grid[1, 0], sharex=main)
    main.tick_params(labelbottom=False)
    _residuals(lowest, data, fitted, x, y)
  _no_effect(main, analysis, fitted, y, rows)
  style.size_axis(lowest, x, [row[x] for row in data.rows])
  if x == _CODE:
    _pixels_per_float(main, data.rows)
  main.set_ylabel(RESPONSES[y].name)
  main.set_title(f'This sweep: {_shown(analysis)}' + ''.join(
      f', {column} {value}' for column, value in fitted.where.items()))
  if RESPONSES[y].log2:
    _decades(main)
  handles, labels = main.get_legend_handles_labels()
  if paper:
    _paper(figure.add_subplot(grid[:, 1]), paper)
  figure.legend(handles, labels, loc='outside lower left',
                ncols=3 if paper else 2)
  return figure


def _pixels_per_float(axes, rows):
  """The other way to say E, where all units code as many numbers."""
  numbers = {round(row[_CODE] * row['pixels_per_float']) for row in rows}
  if len(numbers) == 1:
    other = lambda size, total=numbers.pop(): total / np.maximum(size, 1e-9)
    top = axes.secondary_xaxis('top', functions=(other, other))
    ticks = sorted({row['pixels_per_float'] for row in rows})
    top.set_xticks(ticks, [style.si(tick) for tick in ticks])
    top.minorticks_off()
    top.set_xlabel(style.name('pixels_per_float'))
    top.spines['top'].set_visible(False)


def _shown(analysis):
  run = analysis.sweep.done[0]
  source = run.config.get('evaluation.source') or ', '.join(
      run.config['data.sources'])
  source = re.sub(r':/\S*/', ':', source)  # Where it lies on this machine.
  return (f'{source} {run.config["data.resolution"]} px, '
          f'{len(run.images["index"])} images')


def _value(y, values):
  """What is drawn: an error itself rather than its logarithm."""
  return 2.0**np.asarray(values) if RESPONSES[y].log2 else np.asarray(values)


def _units(axes, data, x, y):
  """Means of configurations with two intervals; every unit as a dot.

  The thin bar is for the value; the thick one leaves out what drawing other
  images would do to all units alike, as in comparisons between them.
  """
  by = series_of(x, data.rows)
  kinds = list(dict.fromkeys(_kind(row, by) for row in data.rows))
  colour = dict(zip(dict.fromkeys(kind[2] for kind in kinds),
                    itertools.cycle(COLOURS), strict=False))
  for number, kind in enumerate(kinds):
    role, arm, value = kind
    label = series_name(by, value)
    look = dict(color=colour[value], marker=MARKERS[number % len(MARKERS)])
    if role == 'arm':
      label, look['markerfacecolor'] = f'{label}, arm {arm}', 'white'
    of_kind = data.keep([_kind(row, by) == kind for row in data.rows])
    for configuration in dict.fromkeys(of_kind.configurations):
      chosen = [row['configuration'] == configuration and
                _kind(row, by) == kind for row in data.rows]
      group, size = data.keep(chosen), data.keep(chosen).rows[0][x]
      if any(row['below_pca'] for row in group.rows) and role == 'law':
        look_ = look | dict(markerfacecolor='white', alpha=0.55)
      else:
        look_ = look
      middle, wide = _interval(y, group.y_U, group.y_RxU)
      axes.errorbar([size], [middle], yerr=wide, zorder=3, linewidth=0.9,
                    capsize=0, linestyle='', **look_)
      shared = data.y_RxU.mean(1) - data.y_U.mean()
      _, narrow = _interval(y, group.y_U, group.y_RxU - shared[:, None])
      axes.errorbar([size], [middle], yerr=narrow, zorder=3, linewidth=2.4,
                    linestyle='', label=label, **look_)
      label = None
      if len(group.rows) > 1:
        axes.plot([size] * len(group.rows), _value(y, group.y_U), '.',
                  color=INK, markersize=2.5, zorder=4)
  if any(row['below_pca'] for row in data.rows if row['role'] == 'law'):
    axes.plot([], [], 'o', color=GREY, markerfacecolor='white', alpha=0.7,
              label='pale: below its own PCA, not fitted')


def _kind(row, by):
  """(role, arm, value of the column that tells series apart)."""
  return row['role'], row.get('arm'), row[by] if by else None


def _interval(y, y_U, y_RxU):
  """(middle, distances to the ends) of a mean over units, as it is drawn."""
  ends = bootstrap.interval(y_RxU.mean(1), LEVEL)
  middle, low, high = _value(y, [y_U.mean(), *ends])
  return middle, np.maximum([[middle - low], [high - middle]], 0)


def _law_line(axes, fitted, y, rows):
  """The law over the sizes fitted, dotted beyond, and the slope's band."""
  if fitted.fit is None:
    axes.text(0.02, 0.02, f'no law: {fitted.refused}', color=GREY,
              transform=axes.transAxes, fontsize=7.5)
    return
  fit = fitted.fit
  slope, slope_R = fit.slope(fitted.x)
  low, high = bootstrap.interval(slope_R, LEVEL)
  unit = ' dB' if y == 'psnr' else ' (log2)' if RESPONSES[y].log2 else ''
  x_U = np.array([row[fitted.x] for row in rows], float)
  wide = np.geomspace(x_U.min() / 1.15, x_U.max() * 1.15, 80)
  x = np.geomspace(*fit.range, 80)
  line, line_R = fit.line(x)
  line_R = line_R - line_R.mean(1, keepdims=True) + line.mean()
  band = np.quantile(line_R, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
  label = (f'law: {slope:+.3g}{unit} per doubling [{low:.3g}, {high:.3g}], '
           f'R² {fit.r2:.3f}' + ''.join(
               f' with {term}' for term in fit.terms[1:]))
  for shift in _shifts(fit, rows):
    axes.fill_between(x, *_value(y, band + shift), color=INK, alpha=0.15,
                      linewidth=0)
    axes.plot(wide, _value(y, fit.line(wide)[0] + shift), ':', color=INK,
              linewidth=1)
    axes.plot(x, _value(y, line + shift), color=INK, zorder=2, label=label)
    label = None


def _shifts(fit, rows):
  """What each value of the terms that are adjusted for adds to the line."""
  held = {tuple(row[term] for term in fit.terms[1:]): row for row in rows}
  return [fit.predict([row])[0] - fit.line(np.array([row[fit.terms[0]]]))[0][0]
          for row in held.values()]


def _no_effect(axes, analysis, fitted, y, rows):
  """The wedges of slopes that a claim of no effect allows."""
  for verdict in analysis.verdicts:
    claim = verdict.claim
    if (claim.rule, claim.x, claim.y) != ('no_slope', (fitted.x,), y) or (
        fitted.fit is None):
      continue
    x = np.geomspace(*fitted.fit.range, 40)
    rise = claim.margin * np.abs(np.log2(x) - fitted.fit.centre[0])
    middle = fitted.fit.coefficients[0]
    label = f'claimed: within ±{claim.margin:g} per doubling'
    for shift in _shifts(fitted.fit, rows):
      axes.fill_between(
          x, *_value(y, [middle + shift - rise, middle + shift + rise]),
          color='#009e73', alpha=0.13, linewidth=0, label=label)
      label = None


def _residuals(axes, data, fitted, x, y):
  """Units minus the law, so that lack of fit shows at the law's own scale."""
  axes.axhline(0, color=INK, linewidth=1)
  axes.set_ylabel('residual\n(dB)' if y == 'psnr' else 'residual\n(log2)'
                  if RESPONSES[y].log2 else 'residual')
  law_ = data.where(role='law')
  by = series_of(x, data.rows)
  values = [row[by] if by else None for row in law_.rows]
  for number, value in enumerate(dict.fromkeys(values)):
    part = law_.keep([v == value and not row['below_pca'] for v, row in zip(
        values, law_.rows, strict=True)])
    if part.rows:
      sizes = np.array([row[x] for row in part.rows], float)
      axes.plot(sizes, part.y_U - fitted.fit.predict(part.rows),
                MARKERS[number % len(MARKERS)], alpha=0.8, markersize=4,
                color=COLOURS[number % len(COLOURS)])
  if fitted.curved is not None:
    x_ = np.geomspace(*fitted.fit.range, 60)
    axes.plot(x_, fitted.curved.line(x_)[0] - fitted.fit.line(x_)[0], '--',
              color=GREY, linewidth=1.1)
    value, value_R = fitted.curved.curvature()
    low, high = bootstrap.interval(value_R, LEVEL)
    axes.set_title(f'dashed: curvature {value:+.3g} [{low:.2g}, {high:.2g}] '
                   'per squared doubling', fontsize=8, fontweight='normal')


def _nulls(axes, analysis, x, y):
  """Patch PCA, mean colour and down-sampling at equal floats.

  Over a tower's size they are level lines: they have no tower.
  """
  column = lambda row: row.get(RESPONSES[y].column)
  rows = [row for row in analysis.sweep.nulls if column(row) is not None]
  floats = [row[_CODE] for row in analysis.data[y].rows]
  by = series_of(x, analysis.data[y].rows)
  if by not in ('patch', 'cell'):
    _null_levels(axes, rows, column, analysis.data[y].rows)
    return
  cells = {row[by]: (row['tubelet'], row['patch'])
           for row in analysis.data[y].rows if row['role'] == 'law'}
  for number, (value, cell) in enumerate(cells.items()):
    pca = sorted((row[_CODE], column(row)) for row in rows
                 if row['model'] == 'pca'
                 and (row['tubelet'], row['patch']) == cell)
    if pca:
      axes.plot(*np.array(pca).T, linestyle='--', linewidth=1.2,
                color=COLOURS[number % len(COLOURS)], alpha=0.7, zorder=1,
                label=f'{series_name(by, value)} PCA')
  for kind, mark, label in (('mean', 'x', 'mean colour per patch'),
                            ('downsample', '+', 'down- and up-sampled')):
    points = sorted((row[_CODE], column(row)) for row in rows
                    if row['model'] == kind and min(floats) / 2 <= row[_CODE]
                    <= max(floats) * 2)
    if points:  # Of cells of one size, no line: they are no function of it.
      alone = len({floats for floats, _ in points}) == len(points)
      axes.plot(*np.array(points).T, marker=mark, color=GREY, linewidth=1,
                linestyle=':' if alone else '', label=label, zorder=1)


def _null_levels(axes, rows, column, units):
  """A line for each null model of the units' own codes, named with its size.

  Of the downsampled images, the largest that has no more floats than a code.
  One so far off that units would lie on a line beside it is told in the legend.
  """
  units = [row for row in units if row['pca_psnr'] is not None]
  codes = {(row['patch'], row['channels']) for row in units}
  chosen = [('patch PCA', '--', row) for row in rows if row['model'] == 'pca'
            and (row['patch'], row['channels']) in codes]
  chosen += [('mean colour', ':', row) for row in rows if row['model'] == 'mean'
             and row['patch'] in {patch for patch, _ in codes}]
  small = [row for row in rows if row['model'] == 'downsample']
  for floats in sorted({row[_CODE] for row in units}):
    fitting = [row for row in small if row[_CODE] <= floats]
    chosen += [('down- and up-sampled', '-.', max(
        fitting, key=lambda row: row[_CODE]))] if fitting else []
  low, high = axes.get_ylim()
  for name, line, row in chosen:
    value, label = column(row), f'{name}, {row[_CODE]} floats'
    look = dict(color=GREY, linestyle=line, linewidth=1.2, zorder=1)
    if max(low - value, value - high) > 2 * (high - low):
      axes.plot([], [], label=f'{label}: {value:.3g}, off the axis', **look)
    else:
      axes.axhline(value, label=label, **look)


def _paper(axes: Axes, paper: published.Panel):
  for number, (label, points) in enumerate(paper.points.items()):
    axes.plot(*np.array(sorted(points)).T, color=GREY, linewidth=1,
              marker=MARKERS[number % len(MARKERS)],
              linestyle='-' if number < 3 else ':', markerfacecolor=(
                  'white', PALE, GREY)[number % 3], label=label)
  style.size_axis(axes, paper.x, [
      point[0] for points in paper.points.values() for point in points])
  if paper.x == 'pixels_per_float':
    axes.invert_xaxis()  # As E beside it, which grows to the right.
  axes.set_ylabel(paper.y)
  if paper.log:
    axes.set_yscale('log')
  axes.set_title('Published, not fitted with the rest')
  axes.legend(title=paper.source, title_fontsize=6.5, loc='best',
              alignment='left', fontsize=7)


def _decades(axes):
  axes.set_yscale('log')
  axes.yaxis.set_minor_locator(ticker.LogLocator(subs=(2, 3, 5)))
  axes.yaxis.set_minor_formatter(ticker.FuncFormatter(
      lambda value, _: f'{value:.0e}'.replace('e-0', 'e-')))
  axes.yaxis.set_major_formatter(ticker.FuncFormatter(
      lambda value, _: f'{value:.0e}'.replace('e-0', 'e-')))


@style.styled
def claims(analysis: Analysis) -> Figure | None:
  """Each claim's statistic with its interval, and the region it claims."""
  judged = [v for v in analysis.verdicts if v.estimate is not None]
  if not judged:
    return None
  figure = Figure(figsize=(8.4, 0.35 + 0.95 * len(judged)))
  for i, verdict in enumerate(judged):
    axes = figure.add_subplot(len(judged), 1, i + 1)
    claim, margin = verdict.claim, verdict.claim.margin
    above = claim.rule in ABOVE
    left = margin if above else 0 if claim.rule in (
        'predicts', 'suffices') else -margin
    right = np.inf if above else margin
    span = [verdict.low, verdict.high, left]
    span += [right] if np.isfinite(right) else []
    pad = 0.15 * (max(span) - min(span))
    axes.set_xlim(min(span) - pad, max(span) + pad)
    axes.axvspan(left, min(right, max(span) + pad), color='#009e73',
                 alpha=0.13, linewidth=0)
    for edge in (left, right):
      if np.isfinite(edge):
        axes.axvline(edge, color='#009e73', linewidth=1)
    axes.errorbar(
        [verdict.estimate], [0], xerr=np.maximum(
            [[verdict.estimate - verdict.low],
             [verdict.high - verdict.estimate]], 0),
        marker='o', color=INK, capsize=4)
    axes.set_yticks([])
    axes.set_ylim(-1, 1)
    axes.spines['left'].set_visible(False)
    axes.set_title(f'{claim.name}: {verdict.shown}{verdict.caveat}',
                   fontsize=8.5)
    axes.set_xlabel(_statistic(claim), fontsize=7.5, labelpad=1)
    axes.tick_params(labelsize=7.5)
  return figure


def _statistic(claim):
  unit = RESPONSES[claim.y].unit
  x, hold_out = style.name(claim.x[0]), style.name(claim.hold_out or '')
  last = style.name(claim.x[-1])
  return {
      'suffices': f'{unit} rms that {", ".join(claim.adjust)} add to {x}',
      'parallel': f'{unit} per doubling of {x}, per doubling of {last}',
      'interior': f'doublings of {x} from its best value to the nearer end',
      'optimum': f'exponent of the best {x} as a power of {last}',
      'replaces': f'doublings of {x} that one of {last} stands for',
      'forecasts': f'{unit}, measured minus forecast',
      'slope_above': f'{unit} per doubling of {x}',
      'no_slope': f'{unit} per doubling of {x}',
      'equal_slopes': (f'{unit} per doubling: {x} minus '
                       f'{style.name(claim.x[-1])}'),
      'straight': f'{unit} per squared doubling of {x}',
      'predicts': f'{unit}, largest error where it is left out: {hold_out}',
  }[claim.rule]
