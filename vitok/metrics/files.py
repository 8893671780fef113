"""Files of an evaluation: arrays per example, a grid of images, a protocol.

Every file appears whole or not at all, also on `gs://`.
"""

import io
import os
from collections.abc import Mapping

import numpy as np
from etils import epath
from PIL import Image

from vitok import files
from vitok.metrics import table

# Columns that readers may rely on; NaN where a metric is not defined (SSIM of
# images below 11 pixels, KL of a deterministic bottleneck).
COLUMNS = ('index', 'group', 'mse', 'psnr', 'ssim', 'kl_bits')
_GAP = 2  # White pixels around each image of a grid.
_SHOWN_FRAMES = 4  # Of a video, evenly spaced.
_SMALLEST = 128  # Smaller images are enlarged by a whole factor, unfiltered.


def write_arrays(path: os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes an .npz; the same arrays give the same bytes."""
  buffer = io.BytesIO()
  np.savez(buffer, **{name: np.asarray(arrays[name]) for name in arrays})
  files.write_bytes(path, buffer.getvalue())


def write_evaluation(folder: os.PathLike, step: int, rows: table.Table,
                     others: Mapping[str, np.ndarray] | None = None
                     ) -> None:
  """Writes `<step>.npz` and, if images were kept, the grid `<step>.png`.

  The .npz holds the (N,) columns of `COLUMNS` and whatever else was measured,
  the uint8 `originals` and `reconstructions` (n, T, H, W, C) of the first
  examples, and `others`: of other examples, such as those with features.
  """
  folder = epath.Path(folder)
  columns, pictures = rows.columns(), rows.pictures()
  absent = np.full(len(columns['index']), np.nan, np.float32)
  columns = {name: absent for name in COLUMNS} | columns
  write_arrays(folder / f'{step}.npz', columns | pictures | (others or {}))
  if pictures:
    write_png(folder / f'{step}.png', grid(*(pictures[name]
                                             for name in table.IMAGES)))


def write_png(path: os.PathLike, image_HxWx3: np.ndarray) -> None:
  buffer = io.BytesIO()
  Image.fromarray(image_HxWx3).save(buffer, format='PNG')
  files.write_bytes(path, buffer.getvalue())


def grid(originals: np.ndarray, reconstructions: np.ndarray,
         columns: int = 8) -> np.ndarray:
  """Lays out originals, each above its reconstruction.

  Args:
    originals, reconstructions: uint8 (N, T, H, W, C), C 1 or 3. Of videos,
      up to four evenly spaced frames stand below each other.
    columns: examples side by side.

  Returns:
    uint8 (height, width, 3), white between the images.
  """
  if originals.shape != reconstructions.shape or not len(originals):
    raise ValueError(f'a grid of {originals.shape} over '
                     f'{reconstructions.shape}')
  return _lay_out(np.stack([originals, reconstructions], 2), columns)


def samples(images: np.ndarray, columns: int = 8) -> np.ndarray:
  """As `grid`, of images that have no originals: uint8 (N, T, H, W, C)."""
  return _lay_out(images[:, :, None], columns)


def _lay_out(images, columns):
  """A picture of (N, T, stacked, H, W, C)."""
  n, frames, _, height, width, _ = images.shape
  shown = np.unique(np.linspace(0, frames - 1, _SHOWN_FRAMES).round())
  columns = min(columns, n)
  zoom = max(1, _SMALLEST // max(height, width))
  tiles = images[:, shown.astype(int)]
  # White examples at the end.
  tiles = np.broadcast_to(tiles, (*tiles.shape[:-1], 3))
  tiles = tiles.repeat(zoom, 3).repeat(zoom, 4)
  tiles = np.pad(tiles, [(0, -n % columns), (0, 0), (0, 0), (_GAP, _GAP),
                         (_GAP, _GAP), (0, 0)], constant_values=255)
  lines = tiles.reshape(-1, columns, *tiles.shape[1:])
  lines = lines.transpose(0, 2, 3, 4, 1, 5, 6)
  return np.ascontiguousarray(
      lines.reshape(-1, columns * tiles.shape[4], 3))
