"""The paper's points give the fits that the paper prints beside them."""

import numpy as np
import pytest

from vitok.scaling import published
from vitok.scaling.responses import RESPONSES


def r2(table, y, *, x='code_floats', log=False, degree=1):
  x = np.log2(table.column(x))
  y = np.array(table.column(y), float)
  y = np.log2(y) if log else y
  fit = np.polyval(np.polyfit(x, y, degree), x)
  return 1 - np.sum((y - fit)**2) / np.sum((y - y.mean())**2)


# Figure 2's R2, to the two decimals that are printed.
@pytest.mark.parametrize('y, log, printed', [
    ('rfid', True, .94), ('ris', False, .91), ('ssim', False, .98),
    ('psnr', False, .92)])
def test_points_of_figure_2_have_its_r2(y, log, printed):
  assert r2(published.CODE, y, log=log) == pytest.approx(printed, abs=0.006)


@pytest.mark.parametrize('table', [published.VIDEO, published.VIDEO_UCF])
@pytest.mark.parametrize('y', ['rfid', 'rfvd', 'psnr'])
def test_points_of_the_video_sweep_have_its_r2(table, y):
  """The paper prints .97 to .99."""
  assert 0.965 < r2(table, y, log=y != 'psnr') < 0.995


def test_code_sizes_are_tokens_times_channels():
  for table, frames in ((published.CODE, 1), (published.GENERATION, 1)):
    for row in table.rows:
      patch, channels, floats = row[:3]
      assert floats == (256 // patch)**2 * channels * frames
  for table in (published.VIDEO, published.VIDEO_UCF):
    for patch, tubelet, floats, *_ in table.rows:
      assert floats == 16 // tubelet * (256 // patch)**2 * 16
  for patch, floats, *_ in published.CODE_512.rows:
    assert floats == (512 // patch)**2 * 16


def test_one_run_is_the_same_in_every_figure():
  """S-B/16 of stage 1 is a point of figures 2, 6 to 9, 10."""
  points = [dict(zip(table.columns, row, strict=True))
            for table, key in ((published.CODE, (16, 16, 4096)),
                               (published.TOWERS, ('S', 'B')),
                               (published.LOSSES, ('L2 + LPIPS',)))
            for row in table.rows if row[:len(key)] == key]
  assert len(points) == 3
  for name in ('rfid', 'ris', 'psnr'):
    assert len({point[name] for point in points}) == 1
  assert {round(point['ssim'], 3) for point in points} == {.790}


@pytest.mark.parametrize('x', ['code_floats', 'encoder_parameters',
                               'decoder_parameters', 'together', 'calm',
                               'indifference', 'latent', 'cut'])
@pytest.mark.parametrize('y', sorted(RESPONSES))
@pytest.mark.parametrize('video', [False, True])
def test_panels_are_whole_and_name_their_source(x, y, video):
  panel = published.panel(x, y, video=video)
  if y == 'log2_mse':
    assert panel is None
  if panel is not None:
    assert 'ViTok' in panel.source and panel.points
    for points in panel.points.values():
      assert all(a > 0 and b > 0 for a, b in points)


def test_a_measure_that_the_paper_lacks_is_named_as_the_papers_own():
  assert published.panel('code_floats', 'lpips').y == 'rFID'
  assert published.panel('code_floats', 'gkid').y == 'gFID'
  assert published.panel('code_floats', 'psnr').y == 'PSNR (dB), pooled'
  assert published.panel('patch', 'psnr') is None


def test_images_stand_beside_video_by_pixels_per_float():
  panel = published.panel('code_floats', 'psnr', video=True)
  assert panel.x == 'pixels_per_float'
  # Figures 2 and 11: 256 tokens of 16 floats, of an image and of 16 frames.
  assert (48, 26.12) in panel.points['p 16, 256 px']
  assert (192, 26.6) in panel.points['p 16, Kinetics']


def test_weights_of_the_adversary_are_counted_from_the_largest():
  panel = published.panel('calm', 'psnr')
  assert sorted(panel.points['S-B/16']) == [(1, 25.00), (2, 25.07), (4, 26.15)]


def test_patches_stand_beside_latents_of_their_size():
  panel = published.panel('latent', 'psnr')
  assert panel.points['E 4096'] == [(1, 26.2), (2, 26.8)]
  assert published.panel('latent', 'ssim') is None
  assert published.panel('cut', 'rkid').points['E 4096'] == [
      (1, 1.52), (2, 1.88)]
