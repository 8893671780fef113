"""ViTok's own points (arXiv 2501.09755v1), to be looked at beside a sweep.

Read off the paper's vector figures (marker centre against grid lines, error
under 0.5%) unless a table is named. Its PSNR pools squared errors over a batch
before the logarithm, which lowers it; its FID is of torchvision's Inception.
Other data, other losses, other averaging: never fitted together with a sweep
of ours, and drawn in a panel of their own.
"""

import dataclasses
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True)
class Table:
  """Points of one figure: where they are from, columns, rows."""
  source: str
  columns: tuple[str, ...]
  rows: tuple[tuple, ...]

  def column(self, name: str) -> tuple:
    """All values of a column."""
    return tuple(row[self.columns.index(name)] for row in self.rows)


@dataclasses.dataclass(frozen=True)
class Panel:
  """What is drawn beside a figure of ours.

  Attributes:
    source: the figure and its setting.
    x: column of ours that the axis is.
    y: what the vertical axis is called.
    log: whether it is logarithmic.
    points: {label of a series: [(x, y)]}.
  """
  source: str
  x: str
  y: str
  log: bool
  points: dict[str, list[tuple[float, float]]]


_QUALITY = ('rfid', 'ris', 'ssim', 'psnr')
# Finding 1.
CODE = Table(
    'ViTok, figures 2 and 17 (ImageNet validation, 256 px, stage 1, S-B)',
    ('patch', 'channels', 'code_floats', *_QUALITY), (
        (32, 4, 256, 44.8, 27.4, .516, 20.09),
        (32, 8, 512, 24.9, 54.2, .572, 21.32),
        (32, 16, 1024, 11.47, 98.9, .633, 22.62),
        (16, 4, 1024, 9.33, 103.2, .647, 22.82),
        (32, 32, 2048, 5.76, 138.4, .692, 23.93),
        (16, 8, 2048, 4.13, 154.1, .715, 24.29),
        (32, 64, 4096, 2.41, 177.1, .761, 25.43),
        (16, 16, 4096, 1.584, 193.5, .790, 26.12),
        (8, 4, 4096, 1.824, 188.3, .798, 26.17),
        (16, 32, 8192, .877, 212.3, .856, 28.12),
        (8, 8, 8192, .874, 213.7, .862, 28.34),
        (16, 64, 16384, .528, 225.1, .910, 30.55),
        (8, 16, 16384, .455, 225.4, .915, 30.95),
        (8, 32, 32768, .0788, 234.9, .963, 35.11),
        (8, 64, 65536, .0087, 236.6, .985, 39.94)))
# Its axis is a quarter of the code's floats: here are (512 / p)^2 16.
CODE_512 = Table(
    'ViTok, figure 4 (512 px, c 16; its axis times four)',
    ('patch', 'code_floats', *_QUALITY), (
        (32, 4096, 2.26, 205.3, .683, 23.60),
        (16, 16384, .390, 244.3, .819, 27.41),
        (8, 65536, .0304, 252.5, .938, 33.28)))
# Finding 2: DiT-L, 500 thousand steps, tokenizers of stage 1.
GENERATION = Table(
    'ViTok, figure 5 (ImageNet 256 px, DiT-L, guidance 1.5)',
    ('patch', 'channels', 'code_floats', 'gfid', 'gis', 'gfid_3', 'gis_3'), (
        (32, 4, 256, 41.7, 32.6, 23.2, 90), (32, 8, 512, 22.1, 64.9, 14.5, 194),
        (32, 16, 1024, 13.8, 92.3, 14.2, 257),
        (32, 32, 2048, 12.5, 95.6, 14.2, 253),
        (32, 64, 4096, 14.5, 81.8, 13.5, 218),
        (16, 4, 1024, 10.84, 106, 15.6, 275),
        (16, 8, 2048, 6.77, 157.5, 18.5, 354),
        (16, 16, 4096, 6.13, 160.2, 19.6, 343),
        (16, 32, 8192, 8.20, 119, 16.6, 278),
        (16, 64, 16384, 15.0, 79.1, 13.3, 193),
        (8, 4, 4096, 5.63, 178.6, 20.8, 376),
        (8, 8, 8192, 5.94, 169, 19.5, 351),
        (8, 16, 16384, 8.31, 126, 15.7, 277),
        (8, 32, 32768, 15.3, 76.6, 12.4, 185)))
# Findings 3 and 4; parameters of the towers are the paper's table 1.
TOWER_PARAMETERS = {'S': 43.3e6, 'B': 85.8e6, 'L': 383.7e6}
TOWERS = Table(
    'ViTok, figures 6 to 9 (ImageNet 256 px, p 16, c 16)',
    ('encoder', 'decoder', *_QUALITY, 'gfid', 'gis', 'gfid_3', 'gis_3'), (
        ('S', 'S', 1.762, 189.7, .7830, 25.88, 6.13, 157.0, 18.9, 344),
        ('B', 'S', 1.817, 187.9, .7838, 25.93, 6.55, 148.1, 18.0, 325),
        ('S', 'B', 1.584, 193.5, .7902, 26.12, 6.13, 160.2, 19.6, 343),
        ('B', 'B', 1.552, 192.7, .7960, 26.26, 6.86, 144.7, 18.6, 322),
        ('S', 'L', 1.360, 199.8, .7988, 26.47, 5.74, 166.3, 20.7, 353),
        ('B', 'L', 1.565, 192.7, .7959, 26.34, 6.62, 146.6, 19.1, 325),
        ('L', 'L', 1.545, 192.6, .7945, 26.32, 6.44, 152.1, 19.0, 332)))
# Finding 5.
LOSSES = Table(
    'ViTok, figure 10 (ImageNet 256 px, S-B/16)', ('loss', *_QUALITY), (
        ('L2', 9.82, 127.4, .8238, 26.11), ('L1', 13.1, 110.4, .8165, 26.99),
        ('L2 + 0.5 LPIPS', 2.16, 183.2, .7951, 26.45),
        ('L1 + LPIPS', 2.80, 174.3, .8064, 26.62),
        ('L2 + LPIPS', 1.584, 193.5, .7902, 26.12),
        ('stage 2', .564, 212.6, .7668, 25.13)))
# After 100 thousand steps of stage 2; rFID on the way at 10 and 50 thousand.
STAGE2 = Table(
    'ViTok, figure 18 (stage 2 of S-B/16)',
    ('run', 'rfid_10k', 'rfid_50k', *_QUALITY), (
        ('no GAN', 1.493, 1.493, 1.487, 195.9, .7921, 26.15),
        ('D-lr 1e-5, w .05', 1.492, .787, .612, 211.6, .7659, 25.07),
        ('D-lr 2e-5, w .05', 1.485, .651, .557, 212.4, .7664, 25.14),
        ('D-lr 4e-5, w .05', 1.451, .621, .977, 204.3, .7736, 25.68),
        ('D-lr 1e-5, w .1', 1.486, .739, .604, 212.0, .7642, 25.00),
        ('all trained', None, .977, .770, 208.7, .7700, 25.13)))
# Finding 6: 16 frames of 256 px at 8 a second, S-B, c = 16.
_VIDEO = ('patch', 'tubelet', 'code_floats', 'rfid', 'rfvd', 'ssim', 'psnr')
VIDEO = Table(
    'ViTok, video sweep (Kinetics-700, 16 x 256 px, S-B, c 16)', _VIDEO, (
        (32, 8, 2048, 8.77, 390, .656, 18.9),
        (32, 4, 4096, 5.44, 147, .713, 20.7),
        (32, 2, 8192, 3.65, 50.9, .773, 22.9),
        (32, 1, 16384, 2.75, 23.6, .850, 26.9),
        (16, 8, 8192, 4.23, 65.9, .778, 23.0),
        (16, 4, 16384, 2.46, 19.8, .853, 26.6),
        (16, 2, 32768, 1.52, 6.53, .916, 30.2),
        (8, 8, 32768, 1.59, 7.33, .904, 29.5),
        (8, 4, 65536, .865, 1.03, .950, 33.7),
        (8, 2, 131072, .466, .275, .968, 36.7)))
VIDEO_UCF = Table(
    'ViTok, video sweep (UCF-101, 16 x 256 px, S-B, c 16)', _VIDEO, (
        (32, 8, 2048, 14.9, 684, .680, 19.8),
        (32, 4, 4096, 9.82, 262, .732, 21.2),
        (32, 2, 8192, 6.42, 85.6, .785, 23.0),
        (32, 1, 16384, 4.66, 34.3, .853, 26.6),
        (16, 8, 8192, 7.91, 134, .793, 23.2),
        (16, 4, 16384, 4.77, 32.6, .858, 26.5),
        (16, 2, 32768, 2.96, 14.1, .916, 29.9),
        (8, 8, 32768, 3.37, 16.0, .902, 29.3),
        (8, 4, 65536, 1.86, 2.82, .947, 33.2),
        (8, 2, 131072, .964, .695, .958, 36.3)))
# Finding 7.
LENGTH = Table(
    'ViTok, figure 13 (UCF-101, 256 px, S-B/4x16)',
    ('together', 'rfid', 'rfvd', 'ssim', 'psnr'), (
        (16, 5.18, 39.4, .845, 25.6), (32, 4.87, 58.2, .856, 26.3),
        (64, 3.55, 36.0, .884, 27.9)))
# Its appendix: codes of their own tokens (1-D), and codes that are cut.
LATENT = Table(
    'ViTok, appendix A.3 (S-B/16, c 16; a run of its own)',
    ('code_floats', 'rfid_simple', 'rfid_latent', 'psnr_simple',
     'psnr_latent'), (
         (1024, 13.8, 17.5, 22.9, 23.2), (2048, 5.89, 6.6, 24.5, 24.8),
         (4096, 2.15, 2.45, 26.2, 26.8), (8192, 1.16, 1.6, 28.1, 28.3),
         (16384, .58, .78, 30.6, 30.9)))
MASKED = Table(
    'ViTok, appendix A.3 (codes cut to a random length)',
    ('code_floats', 'rfid_simple', 'rfid_cut'), (
        (1024, 8.92, 11.6), (2048, 3.96, 4.36), (4096, 1.52, 1.88)))

# What of the paper's is drawn beside a response of ours; where it has no such
# measure, its own for the same thing, named on the axis.
_MEASURES = {
    'psnr': 'psnr', 'ssim': 'ssim', 'log2_rfid': 'rfid', 'rkid': 'rfid',
    'log2_rfid_frame': 'rfid', 'lpips': 'rfid', 'lpips_alex': 'rfid',
    'log2_ris': 'ris', 'log2_rfvd': 'rfvd',
    'log2_gfid': 'gfid', 'gkid': 'gfid', 'gkid_best': 'gfid', 'log2_gis': 'gis',
}
_OF_SAMPLES = ('gfid', 'gis')
_NAMES = {'psnr': 'PSNR (dB), pooled', 'ssim': 'SSIM', 'rfid': 'rFID',
          'ris': 'rIS', 'rfvd': 'rFVD', 'gfid': 'gFID', 'gis': 'gIS'}
# Drawn on logarithmic axes.
_LOG = ('rfid', 'ris', 'rfvd', 'gfid', 'gis')


# Columns of `experiments/loss_tradeoff.py` that count the paper's own steps:
# halvings of the weight of LPIPS and of the adversary's, the most first.
_STEPS = {
    'indifference': (LOSSES, 'loss', {
        'L2 + LPIPS': 1, 'L2 + 0.5 LPIPS': 2, 'L2': 4}),
    'calm': (STAGE2, 'run', {
        'D-lr 1e-5, w .1': 1, 'D-lr 1e-5, w .05': 2, 'no GAN': 4}),
}
_VARIANTS = {'latent': LATENT, 'cut': MASKED}


def panel(x: str, y: str, *, video: bool = False) -> Panel | None:
  """The paper's points for a figure of y over x.

  Args:
    x: 'code_floats', 'encoder_parameters', 'decoder_parameters', 'together'
      (frames), 'indifference' or 'calm' (see `_STEPS`), 'latent' or 'cut' (1:
      patches, 2: latent tokens, or codes that may be cut).
    y: a response of ours.
    video: whether ours is of clips, beside which the paper's images stand by
      pixel values per float.

  Returns:
    None where the paper has no such figure.
  """
  measure = _MEASURES.get(y)
  if measure is None:
    return None
  if x == 'code_floats' and video and measure not in _OF_SAMPLES:
    return _panel(
        (CODE, VIDEO, VIDEO_UCF), measure, 'pixels_per_float',
        lambda table, row: (row['patch'], 3 * 256**2 / row['code_floats'] * (
            1 if table is CODE else 16)))
  if x == 'code_floats':
    tables = (GENERATION,) if measure in _OF_SAMPLES else (CODE, CODE_512)
    return _panel(tables, measure, x, lambda table, row: (
        row['patch'], row['code_floats']))
  if x == 'together':
    return _panel((LENGTH,), measure, x, lambda table, row: (
        None, row['together']))
  if x in _STEPS:
    table, name, steps = _STEPS[x]
    return _panel((table,), measure, x, lambda table, row: (
        'S-B/16', steps.get(row[name])))
  if x in _VARIANTS:
    return _variant(x, measure)
  sides = ('encoder_parameters', 'decoder_parameters')
  if x not in sides:
    return None
  varied, held = (side.removesuffix('_parameters') for side in
                  (x, sides[1 - sides.index(x)]))
  return _panel((TOWERS,), measure, x, lambda table, row: (
      f'{held} {row[held]}', TOWER_PARAMETERS[row[varied]]))


def _variant(x: str, measure: str) -> Panel | None:
  table = _VARIANTS[x]
  if f'{measure}_simple' not in table.columns:
    return None
  pairs = zip(table.column('code_floats'), table.column(f'{measure}_simple'),
              table.column(f'{measure}_{x}'), strict=True)
  return Panel(table.source, x, _NAMES[measure], measure in _LOG,
               {f'E {floats}': [(1, simple), (2, other)]
                for floats, simple, other in pairs})


def _panel(tables: Iterable[Table], measure: str, x: str, place):
  """Points of tables by series; `place` gives a row's series and its x, None
  if the row is none of them."""
  points, sources = {}, []
  for table in tables:
    if measure not in table.columns:
      continue
    sources.append(table.source)
    for row in (dict(zip(table.columns, values, strict=True))
                for values in table.rows):
      series, size = place(table, row)
      if size is None:
        continue
      label = _label(series, table, tables)
      points.setdefault(label, []).append((size, row[measure]))
  if not points:
    return None
  return Panel('\n'.join(sources), x, _NAMES[measure],
               measure in _LOG, points)


def _label(series, table: Table, tables: Sequence[Table]) -> str:
  name = f'p {series}' if isinstance(series, int) else series or 'S-B/4x16'
  if len(tables) == 1:
    return name
  return f'{name}, {_SHORT[table.source]}'


_SHORT = {CODE.source: '256 px', CODE_512.source: '512 px',
          VIDEO.source: 'Kinetics', VIDEO_UCF.source: 'UCF'}
