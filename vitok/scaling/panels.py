"""Figures beside the laws: training, checks, bits, pairs, pictures, cost.

Each function takes an `Analysis` and returns a `matplotlib.figure.Figure`, or
None where there is nothing to draw yet.
"""

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from vitok.scaling import checks, style, table
from vitok.scaling.analysis import LEVEL, Analysis
from vitok.scaling.figures import series_name, series_of
from vitok.scaling.style import COLOURS, GREY, INK, MARKERS

_MAP = matplotlib.colormaps['viridis']
_PICTURES = 3  # Images shown of each series.


def _norm(rows, x):
  sizes = [row[x] for row in rows]
  return LogNorm(min(sizes) / 1.2, max(sizes) * 1.2)


def _colourbar(figure, axes, norm, x, sizes):
  bar = figure.colorbar(ScalarMappable(norm, _MAP), ax=axes, pad=0.01)
  bar.set_label(style.name(x))
  bar.minorticks_off()
  ticks = sorted(set(sizes))
  bar.set_ticks(ticks[::1 + len(ticks) // 8])
  bar.ax.set_yticklabels([style.si(t) for t in ticks[::1 + len(ticks) // 8]])
  bar.outline.set_visible(False)


@style.styled
def training(analysis: Analysis, x: str) -> Figure | None:
  """PSNR of the evaluations on the way, over steps and over FLOPs."""
  rows = {row['unit']: row for row in analysis.rows if row['state'] == 'done'
          and row['role'] in ('law', 'longer')}
  runs = [run for run in analysis.sweep.done if run.name in rows
          and sum(line['step'] > 0 for line in run.curve) > 1]
  if not runs:
    return None
  norm = _norm(rows.values(), x)
  figure = Figure(figsize=(10, 3.8))
  axes = figure.subplots(1, 2, sharey=True)
  for run in runs:
    row = rows[run.name]
    steps = np.array([line['step'] for line in run.curve])
    psnr = np.array([line['eval/psnr'] for line in run.curve])[steps > 0]
    steps = steps[steps > 0]
    flops = row['train_flops'] * steps / row['steps']
    look = dict(color=_MAP(norm(row[x])), linewidth=1.2,
                linestyle='--' if row['role'] == 'longer' else '-')
    for ax, over in zip(axes, (steps, flops), strict=True):
      ax.plot(over, psnr, **look)
      ax.plot(over[-1:], psnr[-1:], 'o', markersize=3.5, **look)
  for ax, column in zip(axes, ('steps', 'train_flops'), strict=True):
    style.size_axis(ax, column, np.concatenate(
        [line.get_xdata() for line in ax.lines]))
  axes[0].set_ylabel('PSNR (dB)')
  axes[0].set_title('Equal steps')
  axes[1].set_title('Equal compute')
  axes[0].plot([], [], '-', color=GREY, label='law')
  if any(row['role'] == 'longer' for row in rows.values()):
    axes[0].plot([], [], '--', color=GREY, label='trained longer')
  axes[0].legend(loc='best')
  _colourbar(figure, axes, norm, x, [row[x] for row in rows.values()])
  return figure


@style.styled
def converged(analysis: Analysis, x: str) -> Figure | None:
  """The law's units at T and longer; and quality over the learning rate."""
  data = analysis.data['psnr']
  law, long = data.where(role='law'), data.where(role='longer')
  labels = list(dict.fromkeys(law.configurations))
  curves = {label: checks.rate_curve(data, label) for label in labels}
  curves = {label: curve for label, curve in curves.items() if len(curve) > 1}
  if not long.rows and not curves:
    return None
  figure = Figure(figsize=(10, 3.6))
  left, right = figure.subplots(1, 2)
  by, number = series_of(x, law.rows), 0
  for row, y in zip(long.rows, long.y_U, strict=True):
    short = law.where(configuration=row['configuration'])
    if not short.rows:
      continue
    before, size = short.y_U.mean(), row[x]
    series = row[by] if by else None
    colour = COLOURS[[*dict.fromkeys(r[by] if by else None for r in law.rows)
                      ].index(series) % len(COLOURS)]
    left.plot([size, size], [before, y], color=colour, linewidth=1.2)
    left.plot(size, before, 'o', color=colour, markerfacecolor='white')
    left.plot(size, y, 'o', color=colour)
    left.annotate(f'{y - before:+.2f}', (size, (y + before) / 2),
                  textcoords='offset points', xytext=(6, -3), fontsize=8)
    number += 1
  if number:
    ratio = long.rows[0]['steps'] / law.rows[0]['steps']
    left.plot([], [], 'o', color=GREY, markerfacecolor='white', label='T')
    left.plot([], [], 'o', color=GREY, label=f'{ratio:g} T')
    left.legend(loc='best')
    style.size_axis(left, x, [row[x] for row in long.rows])
    left.margins(x=0.12)
  else:
    _say(left, 'no unit was trained longer')
  left.set_ylabel('PSNR (dB)')
  left.set_title('Converged?')
  for index, (label, curve) in enumerate(curves.items()):
    rate, psnr = np.array(curve).T
    right.plot(rate, psnr - psnr.max(), label=label, color=COLOURS[
        index % len(COLOURS)], marker=MARKERS[index % len(MARKERS)])
  if curves:
    right.set_xscale('log', base=2)
    rates = sorted({rate for curve in curves.values() for rate, _ in curve})
    style.size_axis(right, 'learning_rate', rates)
    right.legend(loc='best')
  else:
    _say(right, 'no other learning rate was tried')
    right.set_xlabel(style.name('learning_rate'))
  right.set_ylabel('PSNR below the best (dB)')
  right.set_title('Learning rate: the best one inside?')
  return figure


def _say(axes, text):
  axes.text(0.5, 0.5, text, color=GREY, ha='center', transform=axes.transAxes)


@style.styled
def bits(analysis: Analysis, x: str) -> Figure | None:
  """Floats are not bits: PSNR over KL bits and over entropy-coded bits."""
  rows = [row for row in analysis.rows if row['state'] == 'done'
          and row['role'] in ('law', 'arm')]
  kinds = [('kl_bits', 'KL bits an image'),
           ('coded_bits', 'coded bits an image, at most 0.1 dB lost')]
  kinds = [kind for kind in kinds if any(row[kind[0]] for row in rows)]
  if not kinds:
    return None
  figure = Figure(figsize=(10, 3.6))
  axes = figure.subplots(1, len(kinds) + 1)
  by = series_of(x, rows)
  groups = list(dict.fromkeys(
      (row[by] if by else None, row.get('arm')) for row in rows))
  for number, (value, arm) in enumerate(groups):
    part = [row for row in rows if row.get('arm') == arm
            and (not by or row[by] == value)]
    label = series_name(by, value)
    look = dict(color=COLOURS[[*dict.fromkeys(g[0] for g in groups)].index(
        value) % len(COLOURS)], marker=MARKERS[number % len(MARKERS)],
                linestyle='')
    if arm:
      label, look['markerfacecolor'] = f'{label}, arm {arm}', 'white'
    for ax, (column, _) in zip(axes, kinds, strict=False):
      known = [row for row in part if row[column]]
      ax.plot([row[column] for row in known], [row['psnr'] for row in known],
              label=label, **look)
    known = [row for row in part if row[kinds[-1][0]]]
    axes[-1].plot([row['code_floats'] for row in known], [
        row[kinds[-1][0]] / row['code_floats'] for row in known], **look)
  for ax, (column, label) in zip(axes, kinds, strict=False):
    style.size_axis(ax, 'bits', [row[column] for row in rows if row[column]])
    ax.set_xlabel(label)
    ax.set_ylabel('PSNR (dB)')
  style.size_axis(axes[-1], 'code_floats', [row['code_floats'] for row in rows])
  axes[-1].set_ylabel(f'{kinds[-1][0].split("_")[0]} bits per float')
  axes[-1].set_ylim(bottom=0)
  axes[0].legend(loc='best')
  axes[0].set_title('Floats are not bits')
  return figure


@style.styled
def pairs(analysis: Analysis) -> Figure | None:
  """Differences on the same images, with intervals."""
  kinds = [('null', 'Configuration minus its own PCA'),
           ('size', 'Neighbours at equal E')]
  kinds = [(title, [pair for pair in analysis.pairs if pair.kind == kind])
           for kind, title in kinds]
  kinds = [(title, found) for title, found in kinds if found]
  if not kinds:
    return None
  most = max(len(found) for _, found in kinds)
  figure = Figure(figsize=(10, 1.3 + 0.26 * most))
  axes = np.atleast_1d(figure.subplots(1, len(kinds)))
  for ax, (title, found) in zip(axes, kinds, strict=True):
    ax.axvline(0, color=INK, linewidth=1)
    for line, pair in enumerate(reversed(found)):
      sign = (pair.low > 0) - (pair.high < 0)
      ax.errorbar(
          [pair.difference], [line], marker='o', capsize=3,
          xerr=np.maximum([[pair.difference - pair.low],
                           [pair.high - pair.difference]], 0),
          color=('#d55e00', GREY, '#0072b2')[sign + 1])
    ax.set_yticks(range(len(found)), [
        pair.a if pair.b == 'its PCA' else f'{pair.a} − {pair.b}'
        for pair in reversed(found)])
    ax.set_ylim(-0.7, len(found) - 0.3)
    ax.set_title(title)
    ax.set_xlabel(f'difference in PSNR (dB), {LEVEL:.0%} interval')
  return figure


@style.styled
def pictures(analysis: Analysis, x: str) -> Figure | None:
  """Originals and reconstructions side by side across sizes.

  Of a column of the experiment's own, whose values stand for something else
  than a size, across configurations.
  """
  named = x not in table.COLUMNS
  by, cells = None if named else series_of(x, analysis.rows), {}
  for row, run in zip(analysis.rows, analysis.sweep.runs, strict=True):
    if row['state'] != 'done' or row['role'] != 'law':
      continue
    key = (row[by] if by else None, row['configuration' if named else x])
    if key not in cells and (found := run.pictures()) is not None:
      cells[key] = found
  if not cells:
    return None
  series = list(dict.fromkeys(value for value, _ in cells))
  sizes = list(dict.fromkeys(size for _, size in cells))
  sizes = sizes if named else sorted(sizes)
  count = min(_PICTURES, min(len(cell[0]) for cell in cells.values()))
  chosen = np.linspace(0, min(len(c[0]) for c in cells.values()) - 1, count)
  figure = Figure(figsize=(1.25 * (len(sizes) + 1) + 0.3,
                           1.42 * len(series) * count + 0.3))
  axes = figure.subplots(len(series) * count, len(sizes) + 1, squeeze=False)
  for ax in axes.flat:
    ax.axis('off')
  for block, value in enumerate(series):
    for line, image in enumerate(chosen.astype(int)):
      row_axes = axes[block * count + line]
      for column, size in enumerate(sizes):
        if (value, size) not in cells:
          continue
        original, reconstruction = (part[image] for part in cells[value, size])
        _show(row_axes[0], original)
        _show(row_axes[column + 1], reconstruction)
        mse = np.mean((original / 255.0 - reconstruction / 255.0)**2)
        label = f'{-10 * np.log10(max(mse, 1e-10)):.1f} dB'
        if line == 0:
          label = f'{_size(x, size)}\n{label}'
        row_axes[column + 1].set_title(label, fontsize=7.5, loc='center',
                                       fontweight='normal', pad=2)
      if line == 0:
        row_axes[0].set_title(
            'original' if value is None else
            f'{series_name(by, value)}\noriginal',
            fontsize=7.5, loc='center', pad=2)
  return figure


def _size(x, size):
  if isinstance(size, str):
    return size
  name = {'code_floats': 'E'}.get(x, x.removesuffix('_parameters'))
  return f'{name} {style.si(size)}'


def _show(axes, image_TxHxWxC):
  frame = image_TxHxWxC[len(image_TxHxWxC) // 2]
  axes.imshow(np.broadcast_to(frame, (*frame.shape[:-1], 3)),
              interpolation='nearest')


@style.styled
def cost(analysis: Analysis) -> Figure | None:
  """What units were priced at and what they took; where the time went."""
  rows = [row for row in analysis.rows if row['seconds']]
  if not rows:
    return None
  figure = Figure(figsize=(10, 3.4))
  left, right = figure.subplots(1, 2)
  priced = [row for row in rows if row['priced_seconds']]
  if priced:
    for number, role in enumerate(dict.fromkeys(r['role'] for r in priced)):
      part = [row for row in priced if row['role'] == role]
      left.plot([row['priced_seconds'] for row in part],
                [row['seconds'] for row in part], MARKERS[number], alpha=0.8,
                color=COLOURS[number], label=role)
    ends = [f([row[key] for row in priced for key in
               ('priced_seconds', 'seconds')]) for f in (min, max)]
    left.plot(ends, ends, color=INK, linewidth=1, label='cost = price')
    left.set(xscale='log', yscale='log')
    for axis in (left.xaxis, left.yaxis):
      for each in (axis.set_major_formatter, axis.set_minor_formatter):
        each(ticker.LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 1)))
    left.legend(loc='best')
  else:
    _say(left, 'the sweep was not priced')
  left.set_xlabel('priced (s)')
  left.set_ylabel('took (s)')
  left.set_title('Price against cost')
  roles = list(dict.fromkeys(row['role'] for row in rows))[::-1]
  buckets = [key for key in rows[0] if key.startswith('seconds_')]
  start = np.zeros(len(roles))
  for number, bucket in enumerate(sorted(
      buckets, key=lambda key: key != 'seconds_step')):
    seconds = np.array([sum(row[bucket] or 0 for row in rows
                            if row['role'] == role) for role in roles])
    right.barh(roles, seconds, left=start, label=bucket[len('seconds_'):],
               color=COLOURS[number % len(COLOURS)], height=0.6)
    start += seconds
  right.set_xlabel('seconds')
  right.set_title(f'Where {start.sum():.0f} s went')
  right.legend(loc='upper left', bbox_to_anchor=(1, 1))
  right.grid(axis='y', visible=False)
  return figure
