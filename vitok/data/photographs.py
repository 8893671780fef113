"""The embedded photographs: real colour images inside installed packages.

Nothing is downloaded: scikit-image and scikit-learn ship these files in their
wheels. Left out of what they ship: retina, histology and the telescope image
(the retina alone would be 42% of all pixels) and everything grey or drawn.
Whole photographs are held out, and the two views of the stereo pair, one
scene, are on one side. Licences: scikit-image's are public domain or CC0,
scikit-learn's two are CC BY 2.0.

Training draws photographs, not pixels: a record is a photograph, and each
visit takes a window of it at a random scale and place. The test split is a
fixed list of square tiles of the held-out photographs, at the same scales,
without flat ones.
Scales are octaves: each photograph is halved (averages of 2 x 2 pixels) while
its short side holds a tile, which also bounds the cost of one window.
"""

import functools
import hashlib
import importlib.util
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from vitok import errors
from vitok.data.records import NO_LABEL

_SKIMAGE, _SKLEARN = ('skimage', 'data'), ('sklearn', 'datasets/images')

# file: (split, scene, where it lies, SHA-256)
FILES = {
    'astronaut.png': (
        'train', 0, _SKIMAGE,
        '88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5'),
    'chelsea.png': (
        'train', 1, _SKIMAGE,
        '596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb'),
    'coffee.png': (
        'train', 2, _SKIMAGE,
        'cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7'),
    'rocket.jpg': (
        'train', 3, _SKIMAGE,
        'c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c'),
    'motorcycle_left.png': (
        'train', 4, _SKIMAGE,
        'db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179'),
    'motorcycle_right.png': (
        'train', 4, _SKIMAGE,
        '5fc913ae870e42a4b662314bc904d1786bcad8e2f0b9b67dba5a229406357797'),
    'china.jpg': (
        'test', 5, _SKLEARN,
        '8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29'),
    'flower.jpg': (
        'test', 6, _SKLEARN,
        'a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638'),
}
TILES_PER_SCALE = 64  # At most, per test photograph, spread over it.
# Levels of 255. Flatter tiles (sky, blurred ground) are left out: half of all,
# they are reconstructed by any code and would set the mean PSNR by themselves.
MIN_CONTRAST = 10


def paths() -> dict[str, pathlib.Path]:
  """Where each photograph lies on this machine, by file name."""
  found = {}
  for name, (_, _, (package, folder), _) in FILES.items():
    spec = importlib.util.find_spec(package)
    if spec is None:
      raise errors.InputError('photographs', package,
                              'the package that holds them is not installed',
                              {'skimage': 'pip install scikit-image',
                               'sklearn': 'pip install scikit-learn'}[package])
    found[name] = pathlib.Path(spec.submodule_search_locations[0], folder, name)
  return found


@functools.lru_cache
def load(split: str) -> dict[str, np.ndarray]:
  """Decoded photographs of a split: {file name: uint8 (H, W, 3)}.

  Raises:
    errors.InputError: a file is missing or is not the one listed here.
  """
  images = {}
  for name, path in paths().items():
    if FILES[name][0] != split:
      continue
    data = path.read_bytes() if path.is_file() else b''
    if hashlib.sha256(data).hexdigest() != FILES[name][3]:
      raise errors.InputError(
          'photographs', str(path), 'is not the file that vitok lists '
          f'(SHA-256 {FILES[name][3][:12]}...)' if data else 'is missing')
    images[name] = np.asarray(Image.open(path).convert('RGB'))
  return images


def octaves(image: np.ndarray, tile: int) -> list[np.ndarray]:
  """The image, halved and halved again while its short side holds a tile."""
  scales = [image]
  while min(scales[-1].shape[:2]) // 2 >= tile:
    scales.append(np.asarray(Image.fromarray(scales[-1]).reduce(2)))
  return scales


class Photographs:
  """One split of the embedded photographs as a source of records.

  Args:
    split: 'train' (a record is a photograph) or 'test' (a record is a tile).
    resolution: side of a tile in pixels; a training window has a side between
      this and twice this. A photograph with a shorter side gives its largest
      square, which is then enlarged.
  """
  moving = timed = False
  classes = 0

  def __init__(self, split: str, resolution: int):
    if split not in ('train', 'test'):
      raise errors.InputError(
          'split', split, "photographs has the splits 'train' and 'test'",
          'train' if split.startswith('tr') else 'test')
    self._resolution, self._split = resolution, split
    self._names = [n for n, (side, *_) in FILES.items() if side == split]
    self._scales = [octaves(load(split)[n], resolution) for n in self._names]
    self._tiles = None if split == 'train' else mixed([
        [(photo, scale, top, left) for scale, image in enumerate(scales)
         for top, left in tiles(image, resolution)]
        for photo, scales in enumerate(self._scales)])
    listed = [FILES[name][3] for name in self._names] + [
        resolution, split, MIN_CONTRAST, TILES_PER_SCALE]
    self.fingerprint = hashlib.sha256(repr(listed).encode()).hexdigest()

  def __len__(self) -> int:
    return len(self._names if self._tiles is None else self._tiles)

  def read(self, index: int, rng: np.random.Generator | None,
           choose: Any = None) -> tuple[np.ndarray, int]:
    """Pixels of a record, uint8 (1, h, w, 3): a window drawn with `rng`.

    And its label: none.
    """
    del choose
    if self._tiles is not None:
      photo, scale, top, left = self._tiles[index]
      image = self._scales[photo][scale]
      side = min(self._resolution, *image.shape[:2])
    else:
      scales = self._scales[index]
      image = scales[0 if rng is None else rng.integers(len(scales))]
      short = min(image.shape[:2])
      if rng is None:
        return image[None], NO_LABEL
      low = min(self._resolution, short)
      side = int(rng.integers(low, min(2 * low, short) + 1))
      top = rng.integers(image.shape[0] - side + 1)
      left = rng.integers(image.shape[1] - side + 1)
    return image[None, top:top + side, left:left + side], NO_LABEL

  def name(self, index: int) -> str:
    photo = index if self._tiles is None else self._tiles[index][0]
    return self._names[photo]

  def group(self, index: int) -> int:
    """Number of the scene, what is independent in statistics."""
    return FILES[self.name(index)][1]


def mixed(lists):
  """Tiles in turn from each photograph, scales mixed by a hash.

  So the first few show all photographs.
  """
  ranked = []
  for each in lists:
    each = sorted(each, key=lambda tile: hashlib.sha256(
        repr(tile).encode()).digest())
    ranked += [(rank, tile) for rank, tile in enumerate(each)]
  return [tile for _, tile in sorted(ranked)]


def tiles(image, tile):
  """Corners of disjoint tiles with contrast, at most TILES_PER_SCALE of them.

  Contrast is the standard deviation over a tile's pixels, mean over colours.
  """
  height, width = image.shape[:2]
  tile = min(tile, height, width)
  corners = [(top, left) for top in range(0, height - tile + 1, tile)
             for left in range(0, width - tile + 1, tile)
             if image[top:top + tile, left:left + tile].std(
                 (0, 1)).mean() >= MIN_CONTRAST]
  count = min(len(corners), TILES_PER_SCALE)
  return [corners[round(i)]
          for i in np.linspace(0, len(corners) - 1, count)] if count else []
