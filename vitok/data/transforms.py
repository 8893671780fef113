"""From an undecoded record to pixels: pure functions of element and generator.

An element is a uint8 array (T, H, W, 3); an image has one frame. A crop is a
function (height, width, rng) -> (top, left, height, width): it needs the size
alone, so it is drawn before any pixel is decoded, and a JPEG is decoded no
larger than its crop needs.

Images become RGB by these rules: grey gives three equal channels; transparent
pixels are laid on white; 16-bit values are divided by 257; palettes, CMYK,
YCbCr and Lab are converted by Pillow; of an animation the first frame is
taken; an EXIF orientation is ignored; float pixels are refused.
"""

import functools
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from vitok.data import native

FILTERS = {f.name.lower(): f for f in Image.Resampling}
CROPS = ('random_resized', 'center', 'resize', native.CROP)

Box = tuple[int, int, int, int]  # (top, left, height, width), in pixels.
# Side of a square, or function (height, width) -> (height, width).
Size = int | Callable[[int, int], tuple[int, int]]


def crop(name: str, scale: tuple[float, float] = (1., 1.),
         ratio: tuple[float, float] = (1., 1.)):
  """The crop function of a name in `CROPS`; see the functions below."""
  return {'random_resized': functools.partial(random_resized, scale=scale,
                                              ratio=ratio),
          'center': center, 'resize': whole, native.CROP: whole}[name]


def random_resized(height: int, width: int, rng: np.random.Generator, *,
                   scale: tuple[float, float],
                   ratio: tuple[float, float]) -> Box:
  """A box of random area, aspect and place, as Inception was trained with.

  Args:
    height: of the image, in pixels.
    width: of the image, in pixels.
    rng: generator.
    scale: lowest and highest share of the image's area.
    ratio: lowest and highest width / height, drawn log-uniformly.

  Returns:
    The box; after ten draws that do not fit, the largest centred one of an
    allowed aspect.
  """
  low, high = math.log(ratio[0]), math.log(ratio[1])
  for _ in range(10):
    area, aspect, y, x = rng.random(4).tolist()
    area = (scale[0] + (scale[1] - scale[0]) * area) * height * width
    aspect = math.exp(low + (high - low) * aspect)
    h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
    if 0 < h <= height and 0 < w <= width:
      return int(y * (height - h + 1)), int(x * (width - w + 1)), h, w
  aspect = min(max(width / height, ratio[0]), ratio[1])
  h = max(1, min(height, round(width / aspect)))
  w = max(1, min(width, round(height * aspect)))
  return (height - h) // 2, (width - w) // 2, h, w


def center(height: int, width: int, rng: Any = None) -> Box:
  """The largest centred square: resize the short side, crop the long one."""
  del rng
  side = min(height, width)
  return (height - side) // 2, (width - side) // 2, side, side


def whole(height: int, width: int, rng: Any = None) -> Box:
  """The whole image; resizing it to a square would change its aspect."""
  del rng
  return 0, 0, height, width


def random_flip(image_TxHxWxC: np.ndarray,
                rng: np.random.Generator) -> np.ndarray:
  """The image or, half of the time, its mirror image."""
  return image_TxHxWxC[:, :, ::-1] if rng.random() < .5 else image_TxHxWxC


def resize(image_TxHxWxC: np.ndarray, box: Box, size: Size,
           name_of_filter: str) -> np.ndarray:
  """Crops each frame and resizes it.

  Args:
    image_TxHxWxC: uint8, C = 3.
    box: what to keep.
    size: of the result, by that of the box.
    name_of_filter: Pillow's; all but `nearest` are antialiased.

  Returns:
    uint8 (T, h, w, C); the same pixels where the box has that size.
  """
  top, left, height, width = box
  image = image_TxHxWxC[:, top:top + height, left:left + width]
  h, w = _target(size, height, width)
  if (height, width) == (h, w):
    return image
  frames = b''.join(
      Image.frombytes('RGB', (width, height), frame.tobytes()).resize(
          (w, h), FILTERS[name_of_filter]).tobytes() for frame in image)
  return np.frombuffer(frames, np.uint8).reshape(-1, h, w, 3)


def _target(size, height, width):
  return (size, size) if isinstance(size, int) else size(height, width)


def decode(data: bytes, crop_of: Any, rng: np.random.Generator | None,
           size: Size, name_of_filter: str, *, fast: bool) -> np.ndarray:
  """Decodes an image file, crops it and resizes it.

  Args:
    data: the bytes of a file in any format that Pillow reads.
    crop_of: crop function.
    rng: its generator.
    size: as in `resize`.
    name_of_filter: as in `resize`.
    fast: whether a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, the
      least that still holds the crop at twice `size`. Several times faster,
      and for training only: pixels differ a little from a full decode's.

  Returns:
    uint8 (1, H, W, 3).

  Raises:
    Exception: of the kinds that Pillow raises for what it cannot read.
  """
  with Image.open(io.BytesIO(data)) as image:
    width, height = image.size
    top, left, h, w = crop_of(height, width, rng)
    high, wide = _target(size, h, w)
    if fast and image.format == 'JPEG':
      image.draft(None, (math.ceil(2 * width * wide / w),
                         math.ceil(2 * height * high / h)))
    image = to_rgb(image)
  box = None
  if image.size == (width, height):  # As `resize`: sees nothing outside.
    image = image.crop((left, top, left + w, top + h))
  else:
    shrunk = round(width / image.width)  # By 2, 4 or 8; sizes are rounded up.
    box = tuple(x / shrunk for x in (left, top, left + w, top + h))
  if box or image.size != (wide, high):
    image = image.resize((wide, high), FILTERS[name_of_filter], box)
  return np.asarray(image)[None]


def to_rgb(image: Image.Image) -> Image.Image:
  """Any image as RGB, decoded, by the rules at the top of this file."""
  if image.mode == 'F':
    raise ValueError('float pixels have no stated range')
  if image.mode.startswith('I'):  # 16 bits, at times in 32.
    values = np.clip(np.asarray(image), 0, 65535)
    image = Image.fromarray(np.uint8(np.rint(values / 257)))
  if image.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa') or (
      'transparency' in image.info):
    image = image.convert('RGBA')
    image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
  return image.convert('RGB')


def to_float(image_u8: Any, xp: Any = np) -> Any:
  """uint8 0..255 to float32 -1..1, bit for bit the same on every device.

  Doubling and subtracting are exact in float32, so there is one rounding,
  whatever a compiler fuses. `xp` is numpy or jax.numpy.
  """
  return (2 * image_u8.astype(xp.float32) - 255) * xp.float32(1 / 255)
