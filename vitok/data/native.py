"""Images at their own size and aspect ratio, as patches (ViTok-v2's NaFlex).

An image is shrunk, if it has to be, to the largest whole number of patches that
keeps its aspect ratio and is no more than a square of `config.data.resolution`
has. The patches lie one below the other in a column of that number, the rest
of which is padding: one frame of L * p x p pixels, so that a batch holds images
of all shapes. 'places' says row and column of each patch, 'valid' which are
none of the padding. (`models.Patches` on the devices.)

Dimensions: L patches, p their side, H and W pixels.
"""

import dataclasses
import itertools
import math

import numpy as np

CROP = 'native'  # Of `transforms.CROPS`: of the image, nothing is cut off.


@dataclasses.dataclass(frozen=True)
class Native:
  """How large an image becomes.

  Attributes:
    tokens: patches L that an image has at most.
    patch: side p in pixels.
  """
  tokens: int
  patch: int

  def size(self, height: int, width: int) -> tuple[int, int]:
    """Height and width, multiples of p, that an image becomes.

    Of the whole numbers of patches around the exact ones, those that change
    the aspect ratio least; of equal ones the most. Nothing is enlarged by more
    than what makes a patch whole.
    """
    scale = min(1, self.patch * math.sqrt(self.tokens / (height * width)))
    sides = []
    for pixels in (height, width):
      exact = pixels * scale / self.patch
      sides.append({min(self.tokens, max(1, k))
                    for k in (math.floor(exact), math.ceil(exact))})
    grids = [(rows, columns) for rows, columns in itertools.product(*sides)
             if rows * columns <= self.tokens] or [
                 (1, self.tokens) if height < width else (self.tokens, 1)]
    rows, columns = min(grids, key=lambda grid: (
        abs(math.log(grid[0] * width / (grid[1] * height))),
        -grid[0] * grid[1]))
    return rows * self.patch, columns * self.patch

  def example(self, image_1xHxWx3: np.ndarray) -> dict[str, np.ndarray]:
    """{'image' (1, L * p, p, 3), 'places' (L, 2) int32, 'valid' (L,)}.

    Args:
      image_1xHxWx3: of a `size`.
    """
    p = self.patch
    _, height, width, colours = image_1xHxWx3.shape
    rows, columns = height // p, width // p
    count = rows * columns
    cut = image_1xHxWx3.reshape(rows, p, columns, p, colours).swapaxes(1, 2)
    strip = np.zeros((self.tokens, p, p, colours), image_1xHxWx3.dtype)
    strip[:count] = cut.reshape(count, p, p, colours)
    places = np.zeros((self.tokens, 2), np.int32)
    places[:count] = np.indices((rows, columns)).reshape(2, -1).T
    return {'image': strip.reshape(1, -1, p, colours), 'places': places,
            'valid': np.arange(self.tokens) < count}


def picture(strip_1xLxpx3: np.ndarray, places_Lx2: np.ndarray,
            valid_L: np.ndarray) -> np.ndarray:
  """(1, H, W, 3), the image that an example's patches make at its own size."""
  p, colours = strip_1xLxpx3.shape[-2:]
  rows, columns = places_Lx2[valid_L].max(0) + 1
  patches = strip_1xLxpx3.reshape(-1, p, p, colours)[valid_L]
  image = patches.reshape(rows, columns, p, p, colours).swapaxes(1, 2)
  return image.reshape(1, rows * p, columns * p, colours)
