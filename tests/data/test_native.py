"""Images at their own size: which size, their patches, and back."""

import math

import numpy as np
import pytest

from vitok import config as config_lib
from vitok import data
from vitok.data import native


@pytest.mark.parametrize('height, width, expected', [
    (32, 32, (32, 32)), (640, 640, (32, 32)), (480, 640, (24, 32)),
    (16, 64, (16, 64)), (8, 8, (8, 8)), (5, 3, (8, 8)), (9, 9, (16, 16)),
    (1, 1000, (8, 128)), (1000, 1, (128, 8)), (100, 3000, (8, 128))])
def test_sizes_keep_the_aspect_within_the_tokens_and_enlarge_nothing(
    height, width, expected):
  assert native.Native(16, 8).size(height, width) == expected


def test_other_patches_make_other_data_to_evaluate_on():
  def of(crop, patch):
    made = config_lib.override(config_lib.default(), {
        'model.name': f'A-A/1x{patch}x4', 'data.resolution': 32,
        'evaluation.crop': crop})
    return data.fingerprint(made, 'evaluation')
  assert of('native', 8) == of('native', 8) != of('native', 16)
  assert of('center', 8) == of('center', 16)  # Squares are the same.


def test_any_size_has_whole_patches_and_at_most_the_tokens():
  rng = np.random.default_rng(0)
  for height, width, root in zip(*rng.integers(1, 2000, (2, 300)),
                                 rng.integers(1, 20, 300), strict=True):
    tokens = int(root)**2
    h, w = native.Native(tokens, 16).size(int(height), int(width))
    assert h % 16 == w % 16 == 0 and 1 <= h * w // 256 <= tokens
    assert h < height + 16 and w < width + 16
    if min(h, w) >= 128:  # A patch more or less is an eighth.
      assert abs(math.log(h * width / (w * height))) < 1 / 8


def test_an_image_is_its_patches_in_reading_order_and_comes_back():
  rng = np.random.default_rng(1)
  image = rng.integers(0, 256, (1, 12, 20, 3), np.uint8)
  made = native.Native(16, 4).example(image)
  assert made['image'].shape == (1, 64, 4, 3)
  assert made['valid'].sum() == 15 and not made['valid'][15]
  for k in range(15):
    row, column = made['places'][k]
    assert (row, column) == divmod(k, 5)
    np.testing.assert_array_equal(
        made['image'][0, 4 * k:4 * k + 4],
        image[0, 4 * row:4 * row + 4, 4 * column:4 * column + 4])
  assert not made['image'][0, 60:].any()
  np.testing.assert_array_equal(native.picture(**{
      'strip_1xLxpx3': made['image'], 'places_Lx2': made['places'],
      'valid_L': made['valid']}), image)
