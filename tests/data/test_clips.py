"""Which frames of a video are a clip."""

import collections

import numpy as np
import pytest

from vitok.data.clips import Clips


def test_a_stride_takes_every_so_manieth_frame_from_every_start():
  clips, rng = Clips(frames=4, stride=3), np.random.default_rng(0)
  starts = collections.Counter()
  for _ in range(2000):
    first, *rest = clips.choose(15, rng=rng)
    assert rest == [first + 3, first + 6, first + 9]
    starts[int(first)] += 1
  assert set(starts) == set(range(6))  # The last clip ends with frame 14.
  assert min(starts.values()) > 2000 / 6 * .8


@pytest.mark.parametrize('rate', [8, 24, 30])
def test_a_frame_rate_takes_what_is_on_the_screen(rate):
  """Against the definition: the last frame shown at or before each time."""
  stamps = np.cumsum([40] * 20 + [15, 90] * 20)  # Milliseconds, irregular.
  seconds = (stamps - stamps[0]) / 1000
  clips, rng = Clips(frames=5, frame_rate=rate), np.random.default_rng(1)
  for _ in range(50):
    chosen = clips.choose(len(seconds), seconds, rng=rng)
    for i, number in enumerate(chosen):
      at = seconds[chosen[0]] + i / rate + 1e-9
      assert number == max(n for n, s in enumerate(seconds) if s <= at)
    assert seconds[chosen[0]] + 4 / rate <= seconds[-1] + 1e-9


def test_eight_of_24_frames_a_second_are_every_third():
  seconds = np.arange(100) * 1001 / 24000
  clips = Clips(frames=4, frame_rate=8 / 1.001)
  first, *rest = clips.choose(100, seconds, rng=np.random.default_rng(0))
  assert rest == [first + 3, first + 6, first + 9]


def test_evaluation_takes_the_centre():
  assert Clips(3).choose(9).tolist() == [3, 4, 5]
  assert Clips(2, stride=4).choose(9).tolist() == [2, 6]
  seconds = np.arange(9) / 9
  assert Clips(2, frame_rate=9 / 4).choose(9, seconds).tolist() == [2, 6]


def test_parts_tile_a_video_in_order():
  clips = Clips(frames=3, parts=4)
  assert [clips.choose(12, part=k).tolist() for k in range(4)] == [
      [0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
  starts = [clips.choose(100, part=k)[0] for k in range(4)]
  assert starts == [11, 36, 61, 86]  # Middles 12.5, 37.5, ... less 1.5.
  short = [clips.choose(5, part=k).tolist() for k in range(4)]
  assert short[0][0] == 0 and short[-1][-1] == 4


@pytest.mark.parametrize('clips', [
    Clips(4), Clips(4, stride=2), Clips(4, frame_rate=10.)])
def test_what_is_too_short_goes_on_with_its_last_frame(clips):
  chosen = clips.choose(3, np.arange(3) / 10, rng=np.random.default_rng(0))
  assert chosen.tolist() == ([0, 2, 2, 2] if clips.stride == 2
                             else [0, 1, 2, 2])
  assert clips.choose(1, np.zeros(1)).tolist() == [0, 0, 0, 0]


def test_an_image_draws_nothing():
  """So that a config of images augments as it did before there were clips."""
  rng = np.random.default_rng(0)
  Clips().choose(1, rng=rng)
  assert rng.random() == np.random.default_rng(0).random()
