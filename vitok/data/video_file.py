"""One video file: when its frames are shown, their pixels, and a new file.

Decoded by PyAV, which is FFmpeg. Frame n is the n-th that is shown, whatever
the order in the file, and access to it is exact: a decoder is believed only
from a key frame on, since frames before it may lack what they were predicted
from, and only if that has the time stamp of a key frame (after a search in an
MPEG program stream the first one may have another's) and each frame after it
the stamp that follows. Where no key frame is found so, decoding starts at the
beginning; where a file has no stamps to rely on, as AVI with reordered frames,
it always does, and frames are counted.

Rotation and the aspect of pixels are ignored, as an EXIF orientation is.

N: frames of the file. H, W: height, width.
"""

import bisect
import contextlib
import dataclasses
import fractions
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

import av
import numpy as np

from vitok import files

# What a folder's videos may be called. Not .ts, which is TypeScript as often.
ENDINGS = frozenset((
    '.3gp', '.avi', '.flv', '.m2ts', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg',
    '.mpg', '.mts', '.ogv', '.webm', '.wmv'))
# Packets of these may hold no frame to show, which only decoding tells.
_HIDDEN_FRAMES = ('vp8',)
_BACK = (0, 2, 10)  # Seconds before the frame wanted, to look for a key frame.
_CODECS = ('libx264', 'libopenh264', 'mpeg4')  # For writing, best first.


@dataclasses.dataclass(frozen=True)
class Timeline:
  """When the frames of a file are shown.

  Attributes:
    stamps: time stamps (N,), increasing; a `range` where they are regular.
    keys: those of the key frames, likewise.
    unit: seconds of one.
    counted: whether the file has no stamps to rely on: these count frames.
  """
  stamps: Sequence[int]
  keys: Sequence[int]
  unit: fractions.Fraction
  counted: bool = False

  def __len__(self) -> int:
    return len(self.stamps)

  @property
  def seconds(self) -> np.ndarray:
    """(N,) float64, the first at 0."""
    stamps = np.asarray(self.stamps, np.int64)
    return (stamps - stamps[0]) * float(self.unit)

  @property
  def rate(self) -> fractions.Fraction:
    """Frames a second, on average; 25 for a single frame."""
    if len(self) == 1:
      return fractions.Fraction(25)
    return (len(self) - 1) / (self.unit * (self.stamps[-1] - self.stamps[0]))


def timeline(path: os.PathLike | str) -> Timeline:
  """Reads all packets of a file and decodes its first frame.

  Raises:
    Exception: it is no video, or nothing in it can be decoded; of the kinds
      that PyAV raises, or ValueError.
  """
  stamps, keys, decoded = [], [], 0
  with av.open(os.fspath(path)) as container:
    stream = _video(container)
    codec = stream.codec_context
    counted = container.format.name == 'avi' and codec.has_b_frames
    for packet in container.demux(stream):
      shown = [packet] if packet.size and not packet.is_discard else []
      if not decoded or codec.name in _HIDDEN_FRAMES:
        frames = packet.decode()
        decoded += len(frames)
        if codec.name in _HIDDEN_FRAMES:
          shown = frames
      stamps += [one.pts for one in shown]
      keys += [one.pts for one in shown if _is_key(one)]
    rate, unit = stream.average_rate or fractions.Fraction(25), stream.time_base
  if not decoded:
    raise ValueError('no frame of it can be decoded')
  if counted or None in stamps or len(set(stamps)) < len(stamps):
    with _decoding(path) as decoding:
      count = range(sum(1 for _ in decoding))
    return Timeline(count, count[:1], 1 / rate, counted=True)
  return Timeline(compact(sorted(stamps)), compact(sorted(keys)), unit)


def compact(stamps: Sequence[int]) -> Sequence[int]:
  """Increasing numbers as a `range`, where they are regular, or a tuple."""
  if len(stamps) < 2:
    return tuple(stamps)
  regular = range(stamps[0], stamps[-1] + 1, stamps[1] - stamps[0])
  return regular if list(regular) == list(stamps) else tuple(stamps)


def frames(path: os.PathLike | str, times: Timeline,
           numbers: Sequence[int]) -> Iterator[np.ndarray]:
  """Some frames of a file, decoded one after the other.

  Args:
    path: the file.
    times: its `timeline`.
    numbers: of the frames wanted, not decreasing.

  Yields:
    uint8 (H, W, 3), RGB.

  Raises:
    Exception: a frame is missing or damaged, or the file is; as `timeline`.
  """
  shown, last = _shown(path, times, numbers[0]), None
  for number in numbers:
    if number != last:
      last = number
      frame = next((f for n, f in shown if n == number), None)
      if frame is None:
        raise ValueError(f'frame {number} is missing')
      image = frame.to_ndarray(format='rgb24')
    yield image


def write(path: os.PathLike | str, images: Iterable[np.ndarray],
          rate: fractions.Fraction) -> None:
  """Writes an MP4 file, whole or not at all, also on `gs://`.

  Args:
    path: where.
    images: uint8 (H, W, 3), RGB, all of one size; an odd side is made even by
      repeating its last row or column.
    rate: frames a second.
  """
  codec = next(name for name in _CODECS if name in av.codecs_available)
  buffer, stream = io.BytesIO(), None
  with av.open(buffer, 'w', format='mp4') as container:
    for image in images:
      image = np.pad(image, [(0, side % 2) for side in image.shape[:2]]
                     + [(0, 0)], 'edge')
      if stream is None:
        # Nearly without loss: what is shown is the loss of something else.
        stream = container.add_stream(
            codec, rate=fractions.Fraction(rate).limit_denominator(1001),
            options={'crf': '10'} if codec == 'libx264' else {})
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = 'yuv420p'
        if codec != 'libx264':
          stream.bit_rate = 20_000_000
      container.mux(stream.encode(av.VideoFrame.from_ndarray(image, 'rgb24')))
    container.mux(stream.encode())
  files.write_bytes(path, buffer.getvalue())


def _video(container):
  """The stream that a player would choose, decoded by a single thread."""
  stream = container.streams.best('video')
  if stream is None or stream.codec_context is None:
    raise ValueError('it holds no video that can be decoded')
  stream.codec_context.thread_count = 1  # Files are read in parallel.
  return stream


def _is_key(one):
  return one.is_keyframe if isinstance(one, av.Packet) else one.key_frame


@contextlib.contextmanager
def _decoding(path, seek=None):
  """Opens a file, searches, and gives its frames as they are decoded."""
  with av.open(os.fspath(path)) as container:
    stream = _video(container)
    if seek is not None:
      try:
        container.seek(seek, stream=stream)
      except av.FFmpegError:  # Not every file can be searched.
        yield iter(())
        return
    yield container.decode(stream)


def _shown(path, times, first):
  """(number, frame) of the frame `first`, or one before it, and all after."""
  stamps = times.stamps
  for back in () if times.counted else _BACK:
    seek = stamps[first] - int(back / times.unit)
    if seek <= stamps[0]:
      break
    with _decoding(path, seek) as decoding:
      until = itertools.takewhile(
          lambda frame: frame.pts is not None and frame.pts <= stamps[first],
          decoding)
      try:
        key = next((frame for frame in until if frame.key_frame
                    and _holds(times.keys, frame.pts)), None)
      except av.FFmpegError:  # Of what lies before a key frame.
        key = None
      if key is not None:
        yield from _numbered(itertools.chain([key], decoding), times,
                             bisect.bisect_left(stamps, key.pts))
        return
  with _decoding(path) as decoding:
    yield from _numbered(decoding, times, 0)


def _numbered(decoding, times, first):
  for number, frame in enumerate(decoding, first):
    if not times.counted and not (
        number < len(times) and times.stamps[number] == frame.pts):
      raise ValueError(f'at the place of frame {number} is another one')
    if frame.is_corrupt:  # And what is predicted from it.
      raise ValueError(f'frame {number} is damaged')
    yield number, frame


def _holds(numbers, wanted):
  place = bisect.bisect_left(numbers, wanted)
  return place < len(numbers) and numbers[place] == wanted
