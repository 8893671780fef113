"""How figures look: one style, kept off matplotlib's global state."""

import contextlib
import functools
import io
from collections.abc import Callable

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, GREY, PALE = '#1f2430', '#7a8190', '#d9dde5'
# Distinct in print and for colour-blind readers (after Okabe and Ito).
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9',
           '#5b4a9c', '#8c510a')
MARKERS = ('o', 's', 'D', '^', 'v', 'P', 'X', '*')
_RC = {
    'font.family': 'DejaVu Sans', 'font.size': 9, 'axes.titlesize': 10,
    'axes.titleweight': 'bold', 'axes.titlelocation': 'left',
    'axes.labelsize': 9.5, 'axes.labelcolor': INK, 'text.color': INK,
    'axes.edgecolor': GREY, 'axes.linewidth': 0.8,
    'axes.spines.top': False, 'axes.spines.right': False,
    'axes.grid': True, 'axes.axisbelow': True, 'grid.color': '#eceff4',
    'grid.linewidth': 0.8, 'xtick.color': INK, 'ytick.color': INK,
    'xtick.labelsize': 8.5, 'ytick.labelsize': 8.5, 'xtick.major.size': 3,
    'ytick.major.size': 3, 'legend.frameon': False, 'legend.fontsize': 8,
    'legend.handlelength': 1.8, 'lines.linewidth': 1.6,
    'lines.markersize': 5.5, 'errorbar.capsize': 2, 'savefig.dpi': 160,
    'figure.constrained_layout.use': True, 'axes.unicode_minus': True,
}
NAMES = {  # Axis labels with units.
    'code_floats': 'code size E = L·c (floats)', 'tokens': 'tokens L',
    'channels': 'channels c', 'psnr': 'PSNR (dB)', 'ssim': 'SSIM',
    'log2_mse': 'MSE of pixels in [0, 1]', 'parameters': 'parameters',
    'pixels_per_float': 'pixel values per float',
    'encoder_parameters': 'encoder parameters',
    'decoder_parameters': 'decoder parameters', 'steps': 'training steps',
    'together': 'frames coded together',
    'calm': 'adversary: 1 twice, 2 once its weight, 4 none',
    'patience': 'steps without adversary: 1 none, 2 and 4 of one length',
    'indifference': 'weight of LPIPS: 1 all, 2 half, 4 none',
    'latent': 'code: 1 patches, 2 latent tokens',
    'cut': 'code: 1 whole, 2 cut in training',
    'code_bits': 'code size (bits; of floats, as they are coded)',
    'train_flops': 'training FLOPs', 'learning_rate': 'peak learning rate',
}


def name(column: str) -> str:
  """What an axis of this column is called."""
  return NAMES.get(column, column.replace('_', ' '))


def styled(draw: Callable) -> Callable:
  """A function that draws, in this style whatever the caller has set."""
  @functools.wraps(draw)
  def inner(*args, **kwargs):
    with matplotlib.rc_context(_RC):
      return draw(*args, **kwargs)
  return inner


def png(figure: Figure) -> bytes:
  """The figure as a PNG file."""
  with matplotlib.rc_context(_RC), contextlib.closing(io.BytesIO()) as buffer:
    figure.savefig(buffer, format='png', facecolor='white',
                   metadata={'Software': None})
    return buffer.getvalue()


def size_axis(axes: Axes, column: str, values) -> None:
  """A logarithmic x axis: powers of two of floats, else the values there are.

  Args:
    axes: whose x axis it is.
    column: what is on it; its label follows.
    values: all that is drawn.
  """
  values = sorted(set(map(float, values)))
  span = np.log2(values[-1] / values[0])
  whole = column in ('code_floats', 'tokens', 'channels', 'bits', 'code_bits')
  if whole:
    first, last = np.log2(values[0]) + 0.01, np.log2(values[-1]) - 0.01
    step = 1 + int(span) // 7
    ticks = 2.0**np.arange(np.floor(first), np.ceil(last) + 1, step)
  else:
    ticks = values[:1]
    for value in values[1:]:
      if np.log2(value / ticks[-1]) > 0.09 * span:
        ticks.append(value)
  axes.set_xscale('log', base=2)
  axes.xaxis.set_major_locator(ticker.FixedLocator(ticks))
  axes.xaxis.set_major_formatter(ticker.FuncFormatter(
      lambda value, _: f'{value:g}' if value < (99999 if whole else 1e4)
      else si(value)))
  axes.xaxis.set_minor_locator(ticker.NullLocator())
  axes.set_xlabel(name(column))


def si(value: float) -> str:
  """1536 -> '1536', 65536 -> '66k', 3.1e9 -> '3.1G'."""
  if abs(value) < 1e4:
    return f'{value:.4g}'
  power = min(int(np.log10(abs(value)) // 3), 6)
  scaled = value / 1000**power
  return (f'{scaled:.0f}' if scaled >= 100 else f'{scaled:.2g}'
          if scaled < 10 else f'{scaled:.0f}') + ' kMGTPE'[power]
