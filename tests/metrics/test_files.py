"""Files that an evaluation writes."""

import numpy as np
import pytest
from etils import epath
from PIL import Image

from vitok.metrics import files, table


def _table(**extra):
  filled = table.Table(images=2)
  pictures = np.arange(3 * 16 * 16 * 3, dtype=np.uint8).reshape(
      3, 1, 16, 16, 3)
  filled.add({'mse': np.full(3, .01), 'psnr': np.full(3, 20.), **extra,
              'originals': pictures[:2], 'reconstructions': 255 - pictures[:2]},
             {'mask': np.ones(3, bool), 'index': [2, 0, 1],
              'group': [1, 0, 0]})
  return filled


def test_arrays_have_the_promised_columns_and_nan_where_undefined(tmp_path):
  files.write_evaluation(tmp_path / 'evaluation', 30, _table(
      kl_bits=np.arange(3.)))
  with np.load(tmp_path / 'evaluation' / '30.npz') as stored:
    assert set(files.COLUMNS) <= set(stored)
    np.testing.assert_array_equal(stored['index'], [0, 1, 2])
    np.testing.assert_array_equal(stored['group'], [0, 0, 1])
    np.testing.assert_array_equal(stored['kl_bits'], [1, 2, 0])
    assert np.isnan(stored['ssim']).all()
    assert stored['originals'].shape == (2, 1, 16, 16, 3)
    assert stored['originals'].dtype == np.uint8


def test_grid_has_originals_above_reconstructions(tmp_path):
  files.write_evaluation(tmp_path, 0, _table())
  drawn = np.asarray(Image.open(tmp_path / '0.png'))
  # 16 pixels are enlarged eight times, with 2 white pixels on each side.
  assert drawn.shape == (2 * (128 + 4), 2 * (128 + 4), 3)
  pictures = _table().pictures()
  for column in range(2):
    left = 2 + column * 132
    for top, name in ((2, 'originals'), (134, 'reconstructions')):
      np.testing.assert_array_equal(
          drawn[top:top + 128:8, left:left + 128:8],
          pictures[name][column, 0])


def test_grid_breaks_lines_and_shows_frames_of_videos():
  videos = np.zeros((5, 9, 128, 128, 3), np.uint8)
  drawn = files.grid(videos, videos, columns=4)
  assert drawn.shape == (2 * 4 * 2 * 132, 4 * 132, 3)
  assert (drawn[-132:, 132:] == 255).all()  # Three places stay white.


def test_grey_images_are_drawn_in_grey():
  grey = np.full((1, 1, 128, 128, 1), 7, np.uint8)
  assert (files.grid(grey, grey)[2:-2, 2:-2][:128] == 7).all()


def test_writing_is_atomic(tmp_path, monkeypatch):
  path = tmp_path / 'a.npz'
  files.write_arrays(path, {'x': np.ones(3)})
  before = path.read_bytes()

  def fail(self, target):
    raise OSError('disk full')
  monkeypatch.setattr(type(epath.Path(path)), 'replace', fail)
  with pytest.raises(OSError, match='disk full'):
    files.write_arrays(path, {'x': np.zeros(3)})
  assert path.read_bytes() == before
  assert list(tmp_path.iterdir()) == [path]


def test_equal_arrays_are_equal_bytes(tmp_path):
  for name in ('a', 'b'):
    files.write_arrays(tmp_path / name, {'x': np.arange(5), 'y': np.ones(2)})
  assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()
