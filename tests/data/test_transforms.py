"""Transforms against Pillow, and what they promise about boxes and colours."""

import io

import numpy as np
import pytest
from PIL import Image

from vitok.data import transforms

SCALE, RATIO = (.1, .9), (.5, 2.)


def noise(*shape, seed=0):
  """Smooth uint8 noise, so that resampling is not all aliasing."""
  rng = np.random.default_rng(seed)
  small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
  return np.asarray(small.resize(shape[::-1], Image.Resampling.BICUBIC))


def encoded(image, form='PNG', **options):
  buffer = io.BytesIO()
  image.save(buffer, form, **options)
  return buffer.getvalue()


def decode(data, crop='resize', size=32, fast=False, rng=None):
  return transforms.decode(data, transforms.crop(crop, SCALE, RATIO), rng, size,
                           'bicubic', fast=fast)


def test_random_boxes_have_the_area_and_aspect_asked_for_and_lie_inside():
  rng = np.random.default_rng(0)
  areas, corners = [], set()
  for _ in range(500):
    top, left, h, w = transforms.random_resized(200, 300, rng, scale=SCALE,
                                                ratio=RATIO)
    assert 0 <= top <= 200 - h and 0 <= left <= 300 - w
    assert SCALE[0] - .01 < h * w / 60000 < SCALE[1] + .01
    assert RATIO[0] - .02 < w / h < RATIO[1] + .02
    areas.append(h * w / 60000)
    corners.add((top, left))
  assert max(areas) - min(areas) > .6 and len(corners) > 400


def test_a_shape_that_no_draw_fits_gives_the_largest_centred_box():
  box = transforms.random_resized(10, 1000, np.random.default_rng(0),
                                  scale=(.9, 1.), ratio=(.5, 2.))
  assert box == (0, 490, 10, 20)


def test_a_generator_in_one_state_draws_one_box():
  boxes = {transforms.random_resized(64, 64, np.random.default_rng(7),
                                     scale=SCALE, ratio=RATIO)
           for _ in range(5)}
  assert len(boxes) == 1


def test_centre_crop_is_of_whole_pixels():
  assert transforms.center(33, 100) == (0, 33, 33, 33)
  assert transforms.center(100, 33) == (33, 0, 33, 33)


@pytest.mark.parametrize('name', list(transforms.FILTERS))
def test_resizing_is_that_of_pillow_for_each_filter_and_frame(name):
  clip = np.stack([noise(60, 80, seed=i) for i in range(3)])
  resized = transforms.resize(clip, (5, 10, 40, 50), 24, name)
  for frame, result in zip(clip, resized, strict=True):
    expected = Image.fromarray(frame).crop((10, 5, 60, 45)).resize(
        (24, 24), getattr(Image.Resampling, name.upper()))
    np.testing.assert_array_equal(result, np.asarray(expected))


def test_a_box_of_the_right_size_keeps_its_pixels():
  clip = noise(40, 40)[None]
  np.testing.assert_array_equal(
      transforms.resize(clip, (3, 4, 32, 32), 32, 'lanczos'),
      clip[:, 3:35, 4:36])


def test_flipping_mirrors_half_of_the_time():
  clip, rng = noise(8, 8)[None], np.random.default_rng(0)
  results = [transforms.random_flip(clip, rng) for _ in range(400)]
  mirrored = sum(np.array_equal(r, clip[:, :, ::-1]) for r in results)
  assert 150 < mirrored < 250
  assert mirrored + sum(np.array_equal(r, clip) for r in results) == 400


def test_decoding_a_file_equals_resizing_its_pixels():
  pixels = noise(50, 70)
  for crop in ('center', 'resize'):
    box = transforms.crop(crop)(50, 70)
    np.testing.assert_array_equal(
        decode(encoded(Image.fromarray(pixels)), crop),
        transforms.resize(pixels[None], box, 32, 'bicubic'))


def test_fast_decoding_of_a_jpeg_is_near_the_full_one():
  data = encoded(Image.fromarray(noise(500, 700)), 'JPEG', quality=95)
  for seed in range(10):
    fast, full = (decode(data, 'random_resized', fast=fast,
                         rng=np.random.default_rng(seed)).astype(int)
                  for fast in (True, False))
    assert np.abs(fast - full).mean() < .5
    assert np.abs(fast - full).max() < 10


def test_fast_decoding_never_enlarges_what_the_file_holds():
  """A crop as large as the result is decoded at full size."""
  data = encoded(Image.fromarray(noise(64, 64)), 'JPEG', quality=95)
  np.testing.assert_array_equal(decode(data, 'resize', 64, fast=True),
                                decode(data, 'resize', 64, fast=False))


def test_grey_images_become_three_equal_channels():
  grey = Image.fromarray(noise(32, 32)[..., 0])
  expected = np.repeat(np.asarray(grey)[..., None], 3, -1)
  np.testing.assert_array_equal(decode(encoded(grey))[0], expected)


def test_sixteen_bits_are_divided_by_257():
  levels = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
  pixels = decode(encoded(Image.fromarray(levels)))[0, ..., 0]
  np.testing.assert_array_equal(pixels, np.rint(levels / 257))
  assert pixels.max() == 255


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'PA'])
def test_transparent_pixels_are_laid_on_white(mode):
  image = Image.new('RGBA', (32, 32), (200, 0, 0, 255))
  image.paste((0, 0, 0, 0), (0, 0, 32, 16))
  image = image.convert('P' if mode == 'PA' else mode)
  pixels = decode(encoded(image))[0]
  assert (pixels[:16] == 255).all()
  assert (pixels[16:] == pixels[-1, -1]).all() and pixels[-1, -1, 1] < 255


@pytest.mark.parametrize('form,mode', [
    ('JPEG', 'CMYK'), ('JPEG', 'L'), ('GIF', 'P'), ('BMP', 'RGB'),
    ('TIFF', 'RGB'), ('WEBP', 'RGB'), ('PPM', 'RGB')])
def test_other_formats_and_modes_become_rgb(form, mode):
  image = Image.fromarray(noise(32, 32))
  pixels = decode(encoded(image.convert(mode), form))
  assert pixels.shape == (1, 32, 32, 3) and pixels.dtype == np.uint8
  expected = image.convert('L').convert('RGB') if mode == 'L' else image
  difference = np.abs(pixels[0].astype(int) - np.asarray(expected))
  assert difference.mean() < 20


def test_float_pixels_are_refused():
  with pytest.raises(ValueError, match='no stated range'):
    decode(encoded(Image.new('F', (8, 8)), 'TIFF'))


def test_floats_span_minus_one_to_one_and_round_trip():
  levels = np.arange(256, dtype=np.uint8)
  floats = transforms.to_float(levels)
  assert floats.dtype == np.float32
  assert (floats[0], floats[255]) == (-1, 1)
  np.testing.assert_array_equal(floats, -floats[::-1])
  np.testing.assert_allclose(floats, levels / 127.5 - 1, atol=1e-7)
  np.testing.assert_array_equal(np.rint((floats + 1) * 127.5), levels)
