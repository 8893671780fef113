"""Fits recover what was put in, and refuse what cannot be fitted."""

import numpy as np
import pytest
from scipy import stats

from tests.scaling.synthetic import LAW
from vitok import errors
from vitok.scaling import bootstrap, claims, estimates, fits

FLOATS = (32, 64, 128, 256, 512, 1024)


def data(law, *, patches=(8, 4), floats=FLOATS, seeds=2, sd=0.05, images=200,
         random=0, y='psnr'):
  """Units of a grid at 32 px; `law(tokens, channels)` is their mean PSNR."""
  random = np.random.default_rng(random)
  shared = 2.4 * random.standard_normal(images)
  shared -= shared.mean()
  rows, arrays = [], []
  for patch in patches:
    tokens = (32 // patch)**2
    for e in floats:
      channels = e // tokens
      for _ in range(seeds if channels else 0):
        psnr = (law(tokens, channels) + sd * random.standard_normal() + shared
                + 0.3 * random.standard_normal(images))
        rows.append(dict(
            unit=str(len(rows)), role='law',
            configuration=f'p{patch}c{channels}', code_floats=e,
            tokens=tokens, channels=channels, patch=patch))
        arrays.append(dict(psnr=psnr, mse=10**(-psnr / 10),
                           group=np.arange(images)))
  return fits.responses(rows, arrays, y)


def test_known_slope_lies_in_an_interval_that_pairing_keeps_short():
  fit = fits.fit(data(lambda n, c: 3 + 1.7 * np.log2(n * c)), ['code_floats'])
  slope, replicates = fit.slope('code_floats')
  low, high = bootstrap.interval(replicates, 0.9)
  assert low < 1.7 < high
  assert high - low < 0.1  # A single PSNR is uncertain by 0.5 dB here.
  assert slope == pytest.approx(1.7, abs=0.03)
  assert fit.r2 > 0.999
  assert fit.line(np.array([256.0]))[0] == pytest.approx(3 + 1.7 * 8, abs=0.1)


def test_known_exponent_of_the_squared_error_is_recovered():
  # PSNR = a + 10 b log10(E) is MSE ~ E^-b for each image, and for their mean.
  fit = fits.fit(data(lambda n, c: 5 + 8 * np.log10(n * c), y='log2_mse'),
                 ['code_floats'])
  slope, replicates = fit.slope('code_floats')
  low, high = bootstrap.interval(replicates, 0.9)
  assert low < -0.8 < high
  assert slope == pytest.approx(-0.8, abs=0.02)


def test_slopes_over_tokens_and_channels_are_told_apart():
  fit = fits.fit(data(lambda n, c: 2.0 * np.log2(n) + 1.2 * np.log2(c)),
                 ['tokens', 'channels'])
  assert fit.slope('tokens')[0] == pytest.approx(2.0, abs=0.06)
  assert fit.slope('channels')[0] == pytest.approx(1.2, abs=0.06)


def test_curvature_is_recovered_and_its_absence_fails_the_f_test():
  bent = data(lambda n, c: 2 * np.log2(n * c) + 0.15 * (np.log2(n * c) - 7)**2)
  curve = fits.fit(bent, ['code_floats'], curved=True)
  assert curve.curvature()[0] == pytest.approx(0.15, abs=0.02)
  assert curve.lack_of_fit['p'] > 0.01
  line = fits.fit(bent, ['code_floats'])
  assert line.lack_of_fit['p'] < 1e-4
  assert line.r2 > 0.98  # R2 alone would have passed it.


def test_lack_of_fit_is_the_textbook_f_test():
  given = data(lambda n, c: 2 * np.log2(n * c), patches=(8,), seeds=3)
  fit = fits.fit(given, ['code_floats'])
  # Against the saturated model, by hand.
  x = np.log2([row['code_floats'] for row in given.rows])
  line = np.polyval(np.polyfit(x, given.y_U, 1), x)
  cells = given.y_U.reshape(-1, 3)
  pure = ((cells - cells.mean(1, keepdims=True))**2).sum()
  lack = ((given.y_U - line)**2).sum() - pure
  f = (lack / (6 - 2)) / (pure / 12)
  assert fit.lack_of_fit['df'] == (4, 12)
  assert fit.lack_of_fit['f'] == pytest.approx(f)
  assert fit.lack_of_fit['p'] == pytest.approx(stats.f.sf(f, 4, 12))
  assert fit.seed_sd == pytest.approx((pure / 12)**0.5)


def test_without_second_seeds_there_is_no_pure_error():
  fit = fits.fit(data(lambda n, c: np.log2(n * c), seeds=1), ['code_floats'])
  assert fit.seed_sd is None and fit.lack_of_fit is None


def test_leaving_a_deviant_configuration_out_shows_by_how_much_it_deviates():
  fit = fits.fit(data(lambda n, c: 2 * np.log2(n * c) - 3 * (c == 32)),
                 ['code_floats'])
  worst = max(fit.leave_one_out, key=lambda k: abs(fit.leave_one_out[k]))
  assert worst == 'p8c32'
  assert fit.leave_one_out[worst] == pytest.approx(3, abs=0.2)


def test_a_patch_held_out_is_predicted_by_the_other():
  out = fits.held_out(data(lambda n, c: 2 * np.log2(n * c) + (n == 64)),
                      ['code_floats'], 'patch')
  assert out[4][0] == pytest.approx(-1, abs=0.1)
  assert out[8][0] == pytest.approx(1, abs=0.1)
  low, high = bootstrap.interval(out[4][1], 0.99)
  assert low < -1 < high < -0.8


@pytest.mark.parametrize('floats, works', [
    (FLOATS[:3], False), (FLOATS[:4], True)])
def test_fewer_than_four_code_sizes_are_refused(floats, works):
  given = data(lambda n, c: np.log2(n * c), floats=floats)
  if works:
    fits.fit(given, ['code_floats'])
  else:
    with pytest.raises(errors.InputError, match='3 distinct values'):
      fits.fit(given, ['code_floats'], distinct=2)


def test_three_sizes_suffice_for_a_tower():
  rows = [dict(unit='', role='law', configuration=str(n), parameters=n)
          for n in (1, 2, 4) for _ in range(2)]
  y = np.arange(6.0)
  fits.fit(fits.Data(tuple(rows), y, y[None]), ['parameters'])
  with pytest.raises(errors.InputError, match='2 distinct values'):
    fits.fit(fits.Data(tuple(rows[:4]), y[:4], y[None, :4]), ['parameters'])


def test_terms_that_do_not_vary_apart_are_refused():
  with pytest.raises(errors.InputError, match='do not vary apart'):
    fits.fit(data(lambda n, c: np.log2(n * c), patches=(8,)),
             ['tokens', 'channels'])


def test_smallest_effect_is_detected_as_often_as_the_claim_asks():
  claim, = claims.parse([LAW])
  rows = [dict(configuration=str(e), code_floats=e)
          for e in FLOATS for _ in range(2)]
  effect = estimates.smallest_effect(claim, rows)
  x = np.log2([row['code_floats'] for row in rows])
  x -= x.mean()
  random = np.random.default_rng(0)
  y_4000xU = effect * x + 0.06 * random.standard_normal((4000, len(x)))
  slopes = y_4000xU @ x / (x @ x)
  cells = y_4000xU.reshape(4000, 6, 2)
  sd = np.sqrt(((cells - cells.mean(2, keepdims=True))**2).sum((1, 2)) / 6)
  detected = slopes > stats.t.ppf(0.95, 6) * sd / np.sqrt(x @ x)
  assert 0.75 < detected.mean() < 0.85
  assert estimates.smallest_effect(claim, rows * 4) < effect / 1.9
  assert estimates.smallest_effect(claim, rows[:2]) is None


@pytest.mark.parametrize('rule', ['no_slope', 'straight', 'equal_slopes'])
def test_a_true_zero_is_shown_within_the_printed_effect_as_often_as_asked(rule):
  x = dict(x=['tokens', 'channels']) if rule == 'equal_slopes' else {}
  claim, = claims.parse([LAW | dict(rule=rule) | x])
  rows = [dict(configuration=f'{n} {c}', tokens=n, channels=c,
               code_floats=n * c)
          for n in (16, 64) for c in (2, 4, 8, 16) for _ in range(2)]
  margin = estimates.smallest_effect(claim, rows)
  logs = {k: np.log2([row[k] for row in rows]) for k in rows[0] if k in (
      'tokens', 'channels', 'code_floats')}
  e = logs['code_floats'] - logs['code_floats'].mean()
  columns, contrast = {
      'no_slope': ([e], [0, 1]), 'straight': ([e, e**2], [0, 0, 1]),
      'equal_slopes': ([logs['tokens'], logs['channels']], [0, 1, -1])}[rule]
  columns = np.stack([np.ones(len(rows)), *columns], 1)
  y_4000xU = 0.06 * np.random.default_rng(1).standard_normal((4000, len(rows)))
  found = np.linalg.lstsq(columns, y_4000xU.T, rcond=None)[0].T @ contrast
  cells = y_4000xU.reshape(4000, 8, 2)
  sd = np.sqrt(((cells - cells.mean(2, keepdims=True))**2).sum((1, 2)) / 8)
  error = sd * np.sqrt(contrast @ np.linalg.inv(columns.T @ columns) @ contrast)
  shown = np.abs(found) + stats.t.ppf(0.95, 8) * error < margin
  assert 0.76 < shown.mean() < 0.84


@pytest.mark.parametrize('y', ['psnr', 'log2_mse'])
def test_few_photographs_stretch_replicates_as_students_t_has_it(y):
  psnr = 20 + np.random.default_rng(0).standard_normal((3, 8))
  rows = [dict(unit=str(i), role='law', configuration=str(i))
          for i in range(3)]
  group = np.arange(8) % 4
  arrays = [dict(psnr=p, mse=10**(-p / 10), group=group) for p in psnr]
  narrow, wide = (fits.responses(rows, arrays, y, level=level, count=300)
                  for level in (0.9, 0.98))
  column = 'mse' if y == 'log2_mse' else y
  plain = bootstrap.resample_images(
      np.stack([each[column] for each in arrays]), group, count=300)
  plain = np.log2(plain) if y == 'log2_mse' else plain
  for found, level in ((narrow, 0.9), (wide, 0.98)):
    t, z = stats.t(3).ppf((1 + level) / 2), stats.norm.ppf((1 + level) / 2)
    np.testing.assert_allclose(
        found.y_RxU - found.y_U,
        (4 / 3)**0.5 * t / z * (plain - found.y_U), atol=1e-12)


def test_numbers_of_sets_vary_with_their_images_by_configuration():
  rows = [dict(unit=f'{name}{seed}', role='law', configuration=name, arm=None,
               steps=1, learning_rate=1.0, gkid=0.1, gkid_se=0.02)
          for name in 'ab' for seed in range(2)]
  found = fits.responses(rows, [{}] * 4, 'gkid', count=4000)
  a_RxU = found.y_RxU[:, :2]
  assert found.y_RxU.std(0) == pytest.approx(0.02, rel=0.1)
  np.testing.assert_allclose(a_RxU[:, 0], a_RxU[:, 1])  # Of the same images.
  assert abs(np.corrcoef(found.y_RxU[:, 0],
                         found.y_RxU[:, 2])[0, 1]) < 0.1
  certain = [row | {'gkid_se': None} for row in rows]
  assert fits.responses(certain, [{}] * 4, 'gkid').y_RxU.std() < 1e-12


def test_kernel_distances_of_reconstructions_are_paired_by_their_own_images():
  rows = [dict(unit=name, role='law', configuration=name, arm=None, steps=1,
               learning_rate=1.0, rkid=0.1, rkid_se=0.02) for name in 'ab']
  random = np.random.default_rng(0)
  shared = random.normal(size=40)
  images = [{'group': np.arange(7), 'psnr': np.ones(7),
             'rkid': shared + shift, 'rkid_group': np.arange(40) // 2}
            for shift in (0.0, 0.3)]
  found = fits.responses(rows, images, 'rkid', count=400)
  np.testing.assert_allclose(found.y_U, [shared.mean(), shared.mean() + 0.3])
  np.testing.assert_allclose(found.y_RxU[:, 1] - found.y_RxU[:, 0], 0.3)
  assert found.y_RxU[:, 0].std() > 0.05
  # The draws are of the twenty groups.
  pairs = shared.reshape(20, 2).mean(1)
  alike = bootstrap.widen(bootstrap.resample_images(
      pairs[None], np.arange(20), count=400), pairs.mean(), 20, 0.9)
  np.testing.assert_allclose(found.y_RxU[:, 0], alike[:, 0])
