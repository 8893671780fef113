"""From an undecoded record to pixels: pure functions of element and generator.

A crop is a function `(height, width, rng, options) -> (top, left, height,
width)`; it is drawn from the size alone, before any pixel is decoded, so that
a JPEG can be decoded at the scale that the crop needs. Elements are uint8
arrays (T, H, W, 3); an image has one frame.

Rules: grey images become three equal channels; transparent pixels are laid on
white; 16-bit values are divided by 257; palettes, CMYK, YCbCr and Lab are
converted by Pillow; of an animation the first frame is taken; the EXIF
orientation is ignored, as most loaders do.
"""

import io
import math

import numpy as np
from PIL import Image

FILTERS = {f.name.lower(): f for f in Image.Resampling}


def random_resized(height, width, rng, scale, ratio):
  """A box of random area and aspect, as in Inception's training.

  Args:
    height, width: of the image, in pixels.
    rng: generator.
    scale: lowest and highest share of the image's area.
    ratio: lowest and highest width / height, drawn log-uniformly.

  Returns:
    (top, left, height, width); the largest centred box of an allowed aspect
    if ten draws do not fit.
  """
  low, high = math.log(ratio[0]), math.log(ratio[1])
  for _ in range(10):
    u, v, y, x = rng.random(4)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * u)
    aspect = math.exp(low + (high - low) * v)
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      return int(y * (height - h + 1)), int(x * (width - w + 1)), h, w
  aspect = min(max(width / height, ratio[0]), ratio[1])
  w = max(1, min(width, round(height * aspect)))
  h = max(1, min(height, round(width / aspect)))
  return (height - h) // 2, (width - w) // 2, h, w


def center(height, width, rng=None, scale=None, ratio=None):
  """The largest centred square."""
  side = min(height, width)
  return (height - side) // 2, (width - side) // 2, side, side


def whole(height, width, rng=None, scale=None, ratio=None):
  """The whole image; resizing it to a square changes its aspect."""
  return 0, 0, height, width


CROPS = {'random_resized': random_resized, 'center': center, 'resize': whole}


def resize(image_TxHxWx3, box, size: int, name: str) -> np.ndarray:
  """Crops and resizes each frame.

  Args:
    image_TxHxWx3: uint8.
    box: (top, left, height, width) in pixels.
    size: side of the result.
    name: of Pillow's filter; all but `nearest` are antialiased.

  Returns:
    uint8 (T, size, size, 3); unchanged pixels where the box has that size.
  """
  top, left, height, width = box
  image = image_TxHxWx3[:, top:top + height, left:left + width]
  if (height, width) == (size, size):
    return image
  return np.stack([np.asarray(Image.fromarray(frame).resize(
      (size, size), FILTERS[name])) for frame in image])


def decode(data: bytes, crop, size: int, name: str, *, draft: bool):
  """Decodes an image file, crops it and resizes it.

  Args:
    data: the file's bytes, in any format that Pillow reads.
    crop: function (height, width) -> box.
    size, name: as in `resize`.
    draft: whether a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, the
      smallest that still holds the crop at `size`. Several times faster; for
      training only, since pixels differ a little from a full decode.

  Returns:
    uint8 (1, size, size, 3).

  Raises:
    Exception: whatever Pillow raises for a file that it cannot read.
  """
  with Image.open(io.BytesIO(data)) as image:
    width, height = image.size
    top, left, h, w = crop(height, width)
    if draft and image.format == 'JPEG' and min(h, w) >= 2 * size:
      image.draft(None, (math.ceil(width * size / w),
                         math.ceil(height * size / h)))
    image = to_rgb(image)
    if (h, w) == (size, size):
      image = image.crop((left, top, left + w, top + h))
    else:
      x, y = image.width / width, image.height / height
      image = image.resize((size, size), FILTERS[name], box=(
          left * x, top * y, (left + w) * x, (top + h) * y))
    return np.asarray(image)[None]


def to_rgb(image: Image.Image) -> Image.Image:
  """Any image as RGB, by the rules at the top of this file."""
  if image.mode == 'RGB':
    return image
  if image.mode.startswith('I'):  # 16 bits, some of them held in 32.
    values = np.clip(np.asarray(image), 0, 65535)
    return Image.fromarray(np.uint8(np.rint(values / 257))).convert('RGB')
  if image.mode == 'F':
    raise ValueError('float pixels have no stated range')
  if 'A' in image.mode or 'a' in image.mode or 'transparency' in image.info:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    return Image.alpha_composite(white, image).convert('RGB')
  return image.convert('RGB')


def to_float(image_u8, xp=np):
  """uint8 0..255 -> float32 -1..1, equal on every device.

  Twice the value minus 255 is exact, so the result is rounded once whatever a
  compiler fuses. `xp` is numpy or jax.numpy.
  """
  doubled = 2 * image_u8.astype(xp.float32) - 255
  return doubled * xp.float32(1 / 255)
