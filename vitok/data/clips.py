"""Which frames of a video make a clip: pure functions of length and generator.

The frames of a clip are `stride` frames of the video apart or, with a
`frame_rate`, 1 / frame_rate seconds: each is then the one that is on the screen
at its time, by the file's own time stamps. In training the start is drawn
evenly from all at which the clip fits. In evaluation clip k of K lies around
the middle of part k of K equal parts of the video, so that one clip is the
centre and K clips tile it (and overlap if it is too short for them).

An image is a video of one frame. What is too short for a clip goes on with its
last frame: an image in a batch of clips is a still clip, its frame repeated to
`frames`. So a batch has one shape whatever it mixes, and an image fills whole
tubelets; at `frames` equal to the tubelet q it is one frame repeated to q.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

# (number of frames, seconds at which they are shown or None) -> their numbers.
Chooser = Callable[[int, np.ndarray | None], np.ndarray]

# Seconds: time stamps are multiples of odd units, and floats besides.
_SLACK = 1e-6


@dataclasses.dataclass(frozen=True)
class Clips:
  """How clips are cut from videos.

  Attributes:
    frames: of a clip.
    stride: frames of the video from one to the next.
    frame_rate: frames a second instead of a stride; 0 leaves it to the stride.
    parts: clips of each video in evaluation.
  """
  frames: int = 1
  stride: int = 1
  frame_rate: float = 0.0
  parts: int = 1

  def choose(self, count: int, seconds_N: np.ndarray | None = None, *,
             rng: np.random.Generator | None = None,
             part: int = 0) -> np.ndarray:
    """Numbers of the frames of a clip.

    Args:
      count: frames of the video, N.
      seconds_N: when they are shown, increasing; needed with a frame rate.
      rng: draws the start; `None`, in evaluation: the middle of a part.
      part: which part.

    Returns:
      (frames,) int, not decreasing.
    """
    if self.frame_rate:
      offsets_T = np.arange(self.frames) / self.frame_rate
      latest = seconds_N[-1] - offsets_T[-1]
      start = self._start(count, _shown(seconds_N, latest), rng, part)
      return _shown(seconds_N, seconds_N[start] + offsets_T)
    offsets_T = np.arange(self.frames) * self.stride
    start = self._start(count, count - 1 - offsets_T[-1], rng, part)
    return np.minimum(start + offsets_T, count - 1)

  def along(self, count: int,
            seconds_N: np.ndarray | None = None) -> np.ndarray:
    """Numbers of the frames all along a video, from its first one on."""
    if not self.frame_rate:
      return np.arange(0, count, self.stride)
    frames = int((seconds_N[-1] + _SLACK) * self.frame_rate) + 1
    return _shown(seconds_N, np.arange(frames) / self.frame_rate)

  def _start(self, count, latest, rng, part):
    """Number of the first frame; `latest` is the last at which a clip fits."""
    latest = max(0, int(latest))
    if not latest:  # Draws nothing: images are augmented as they always were.
      return 0
    if rng is not None:
      return int(rng.integers(latest + 1))
    # The middle of the part, less half of a clip of count - latest frames.
    middle = (2 * part + 1) * count - self.parts * (count - latest)
    return min(max(middle // (2 * self.parts), 0), latest)


def _shown(seconds_N, at):
  """Number of the frame that is on the screen; -1 before the first."""
  return np.searchsorted(seconds_N, at + _SLACK, side='right') - 1
