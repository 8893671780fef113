"""The embedded photographs: what is held out, and how they are sampled."""

import collections

import numpy as np
import pytest

from vitok import errors
from vitok.data import photographs


def test_whole_scenes_are_held_out():
  scenes = collections.defaultdict(set)
  for split, scene, *_ in photographs.FILES.values():
    scenes[split].add(scene)
  assert not scenes['train'] & scenes['test']
  assert len(photographs.load('train')) == 6
  assert len(photographs.load('test')) == 2


def test_the_stereo_pair_is_one_scene_of_one_split():
  left, right = (photographs.FILES[f'motorcycle_{side}.png'][:2]
                 for side in ('left', 'right'))
  assert left == right


def test_photographs_are_in_colour():
  for split in ('train', 'test'):
    for name, image in photographs.load(split).items():
      assert image.dtype == np.uint8 and image.shape[-1] == 3, name
      assert np.abs(np.diff(image.astype(int), axis=-1)).mean() > 2, name


def test_another_file_under_the_name_is_refused(monkeypatch, tmp_path):
  other = tmp_path / 'china.jpg'
  other.write_bytes(b'not that photograph')
  monkeypatch.setattr(photographs, 'paths', lambda: {'china.jpg': other})
  photographs.load.cache_clear()
  with pytest.raises(errors.InputError, match='is not the file that vitok'):
    photographs.load('test')
  photographs.load.cache_clear()


@pytest.mark.parametrize('size,tiles', [(32, 237), (64, 111), (256, 4)])
def test_test_tiles_are_a_fixed_list(size, tiles):
  source = photographs.Photographs('test', size)
  assert len(source) == tiles
  assert all(source.read(i, None)[0].shape == (1, size, size, 3)
             for i in range(tiles))
  groups = collections.Counter(map(source.group, range(tiles)))
  assert groups.keys() == {5, 6} and min(groups.values()) > tiles / 4
  # The first tiles show both photographs.
  assert len({source.group(i) for i in range(min(tiles, 8))}) == 2
  again = photographs.Photographs('test', size)
  np.testing.assert_array_equal(source.read(tiles - 1, None)[0],
                                again.read(tiles - 1, None)[0])
  assert source.fingerprint == again.fingerprint
  assert source.fingerprint != photographs.Photographs('test', 16).fingerprint


def test_another_list_of_tiles_has_another_fingerprint(monkeypatch):
  before = photographs.Photographs('test', 64).fingerprint
  monkeypatch.setattr(photographs, 'TILES_PER_SCALE', 8)
  assert photographs.Photographs('test', 64).fingerprint != before


def test_flat_tiles_are_left_out():
  source = photographs.Photographs('test', 32)
  contrast = [source.read(i, None)[0][0].std((0, 1)).mean()
              for i in range(len(source))]
  assert min(contrast) >= photographs.MIN_CONTRAST


def test_tiles_of_one_scale_share_no_pixel():
  source = photographs.Photographs('test', 32)
  for photo in range(2):
    for scale in range(4):
      corners = [(top, left) for p, s, top, left in source._tiles
                 if (p, s) == (photo, scale)]
      assert len(set(corners)) == len(corners) > 1
      assert all(top % 32 == left % 32 == 0 for top, left in corners)


def test_training_windows_lie_at_all_scales_and_places():
  """Windows come from every octave and are no smaller than an image."""
  source = photographs.Photographs('train', 32)
  rng = np.random.default_rng(0)
  windows, sides = set(), collections.Counter()
  for _ in range(300):
    window = source.read(0, rng)[0]
    assert window.shape[0] == 1 and window.shape[1] == window.shape[2]
    sides[window.shape[1]] += 1
    windows.add(window.tobytes())
  assert min(sides) >= 32 and max(sides) <= 64 and len(sides) > 25
  assert len(windows) > 200  # The smallest octave may hold a single one.


def test_a_photograph_smaller_than_the_image_gives_its_largest_square():
  source = photographs.Photographs('test', 512)
  assert source.read(0, None)[0].shape == (1, 427, 427, 3)
  train = photographs.Photographs('train', 1024)
  assert train.read(1, np.random.default_rng(0))[0].shape == (1, 300, 300, 3)
