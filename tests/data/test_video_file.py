"""One video file: exact access to frames in every container, and writing."""

import fractions
import pathlib

import av
import numpy as np
import pytest

from tests import films
from vitok.data import video_file

COUNT = 40
X264 = (('bf', '3'), ('x264-params', 'log-level=-1'))
OPEN = (('bf', '3'), ('x264-params', 'log-level=-1:open-gop=1'))
# No H.265: PyAV 18's encoder of it corrupts memory (decoding is another's).
CONTAINERS = {  # File: (codec, options).
    'h264.mp4': ('libx264', X264),
    'open_gop.mp4': ('libx264', OPEN),
    'open_gop.mkv': ('libx264', OPEN),
    'h264.avi': ('libx264', X264),
    'mpeg4.avi': ('mpeg4', (('bf', '2'),)),
    'no_reorder.avi': ('mpeg4', ()),
    'mpeg2.mpg': ('mpeg2video', (('bf', '2'),)),
    'mpeg2.mts': ('mpeg2video', (('bf', '2'),)),
    'h264.m2ts': ('libx264', X264),
    'mpeg4.mov': ('mpeg4', (('bf', '2'),)),
    'vp9.webm': ('libvpx-vp9', (('deadline', 'realtime'), ('cpu-used', '8'))),
    'hidden.webm': ('libvpx', (('auto-alt-ref', '1'), ('cpu-used', '8'),
                               ('lag-in-frames', '16'))),
    'ffv1.mkv': ('ffv1', ()),
}


@pytest.fixture(scope='module')
def container(tmp_path_factory):
  folder = tmp_path_factory.mktemp('containers')

  def make(name):
    path = folder / name
    if not path.exists():
      films.write(path, films.images(COUNT), *CONTAINERS[name])
    return path
  return make


def read(path, numbers, times=None):
  times = times or video_file.timeline(path)
  return np.stack(list(video_file.frames(path, times, numbers)))


@pytest.mark.parametrize('name', CONTAINERS)
def test_frames_are_those_of_decoding_from_the_beginning(container, name):
  path = container(name)
  expected, times = films.decode(path), video_file.timeline(path)
  assert len(times) == len(expected) == COUNT
  assert times.rate == 25
  np.testing.assert_allclose(times.seconds, np.arange(COUNT) / 25, atol=1e-9)
  order = np.random.default_rng(0).permutation(COUNT)
  for first in order.tolist():
    np.testing.assert_array_equal(read(path, [first], times)[0],
                                  expected[first], err_msg=str(first))
  for numbers in ([0, 39], [5, 5, 6, 30], list(range(COUNT))):
    np.testing.assert_array_equal(read(path, numbers, times),
                                  expected[numbers])


@pytest.mark.parametrize('name, most', [
    ('h264.mp4', 13), ('mpeg4.mov', 13)])
def test_a_late_frame_is_not_decoded_for_from_the_beginning(
    container, monkeypatch, name, most):
  decoded = []
  numbered = video_file._numbered

  def counted(*args):
    for number, frame in numbered(*args):
      decoded.append(number)
      yield number, frame
  monkeypatch.setattr(video_file, '_numbered', counted)
  read(container(name), [39])
  assert 1 <= len(decoded) <= most and decoded[-1] == 39


def test_irregular_frames_have_their_own_times(tmp_path):
  stamps = np.cumsum([0] + [20, 45, 33, 7] * 7).tolist()
  path = films.write(tmp_path / 'a.mkv', films.images(29), 'libx264', X264,
                     stamps=stamps)
  times, expected = video_file.timeline(path), films.decode(path)
  np.testing.assert_allclose(times.seconds, np.array(stamps) / 1000)
  assert not isinstance(times.stamps, range) and not times.counted
  for n in (0, 13, 28):
    np.testing.assert_array_equal(read(path, [n], times)[0], expected[n])


def test_regular_stamps_take_no_room():
  assert video_file.compact([3, 5, 7]) == range(3, 8, 2)
  assert video_file.compact([3, 5, 8]) == (3, 5, 8)
  assert video_file.compact([4]) == (4,)


def test_stamps_that_are_not_the_frames_own_are_not_believed(container):
  """As in an MPEG program stream after a search."""
  path = container('h264.mp4')
  times = video_file.timeline(path)
  shifted = video_file.Timeline([s + 1 for s in times.stamps],
                                [s + 1 for s in times.keys], times.unit)
  with pytest.raises(ValueError, match='another one'):
    read(path, [30], shifted)


@pytest.mark.parametrize('content', [b'', b'no video' * 99, 'sound', 'header'])
def test_what_holds_no_video_is_refused(container, tmp_path, content):
  path = tmp_path / 'a.mp4'
  if content == 'sound':
    with av.open(str(path), 'w') as sound:
      stream = sound.add_stream('aac', rate=8000)
      frame = av.AudioFrame.from_ndarray(
          np.zeros((1, 8000), np.float32), 'fltp', 'mono')
      frame.rate = 8000
      sound.mux(stream.encode(frame) + stream.encode())
  else:
    path.write_bytes(container('h264.mp4').read_bytes()[:100]
                     if content == 'header' else content)
  with pytest.raises(Exception):  # noqa: B017  (Of PyAV's kinds.)
    video_file.timeline(path)


@pytest.mark.parametrize('name', ['h264.m2ts', 'h264.mp4'])
def test_a_file_cut_after_it_was_indexed_raises(container, tmp_path, name):
  whole = container(name)
  times = video_file.timeline(whole)
  path = tmp_path / whole.name
  path.write_bytes(whole.read_bytes()[:-whole.stat().st_size // 2])
  with pytest.raises(Exception):  # noqa: B017
    read(path, [39], times)


@pytest.mark.parametrize('name', ['h264.mp4', 'mpeg2.mpg', 'mpeg4.mov'])
def test_of_a_damaged_file_no_wrong_frame_is_believed(
    container, tmp_path, name):
  whole = container(name)
  times, expected = video_file.timeline(whole), films.decode(whole)
  path, content = tmp_path / name, bytearray(whole.read_bytes())
  middle = len(content) // 2
  content[middle:middle + 60] = bytes(60)
  path.write_bytes(content)
  refused = 0
  for n in range(COUNT):
    try:
      np.testing.assert_array_equal(read(path, [n], times)[0], expected[n])
    except (ValueError, av.FFmpegError):
      refused += 1
  assert 0 < refused < COUNT / 2


def test_what_is_written_is_read_back_nearly_without_loss(tmp_path):
  frames = films.images(20, (33, 47))
  video_file.write(tmp_path / 'out' / 'a.mp4', iter(frames),
                   fractions.Fraction(30000, 1001))
  times = video_file.timeline(tmp_path / 'out' / 'a.mp4')
  assert times.rate == fractions.Fraction(30000, 1001)
  again = read(tmp_path / 'out' / 'a.mp4', range(20), times)
  assert again.shape == (20, 34, 48, 3)
  # Colour has half the resolution: compare brightness.
  error = (again[:, :33, :47].mean(-1) - frames.mean(-1)).std()
  assert error < 6


def test_a_video_appears_whole_or_not_at_all(tmp_path):
  def broken():
    yield films.images(1)[0]
    raise RuntimeError('no more')
  with pytest.raises(RuntimeError):
    video_file.write(pathlib.Path(tmp_path, 'a.mp4'), broken(), 25)
  assert not list(tmp_path.iterdir())
