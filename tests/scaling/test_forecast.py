"""Forecasts: they cover known truths, and are written before the run."""

import json

import numpy as np
import pytest

from tests.scaling import synthetic
from vitok import errors
from vitok.scaling import analysis, forecast

RUNGS = np.repeat(np.arange(30, 35), 2).astype(float)  # log2 FLOPs, two seeds.
TARGET = 34 + np.log2(10)


def straight(z):
  return 20 + 0.8 * (z - 30)


def saturating(z):
  return 26 - 6 * 2**(-0.25 * (z - 30))


@pytest.mark.parametrize('truth, least', [(straight, 54), (saturating, 48)])
def test_intervals_cover_what_they_say(truth, least):
  """Of 60, 54 is what 90% means; a bent truth may cost 6, a straight none.

  The slope of the bent one falls to a half between the top rung and the run,
  which a ladder can only guess at.
  """
  random = np.random.default_rng(3)
  covered, widths = 0, []
  for _ in range(60):
    y = truth(RUNGS) + 0.06 * random.standard_normal(len(RUNGS))
    draws = forecast.extrapolate(RUNGS, y, TARGET)
    low, high = np.quantile(draws, (0.05, 0.95))
    covered += low <= truth(TARGET) + 0.06 * random.standard_normal() <= high
    widths.append(high - low)
  assert covered >= least
  # And say something: the rungs themselves differ by more than 3 dB.
  assert np.median(widths) < 3


def test_a_straight_ladder_without_noise_is_continued():
  draws = forecast.extrapolate(RUNGS, straight(RUNGS), TARGET)
  assert np.median(draws) == pytest.approx(straight(TARGET), abs=0.05)


def test_the_forecast_does_not_depend_on_the_unit_of_the_response():
  random = np.random.default_rng(0)
  y = straight(RUNGS) + 0.06 * random.standard_normal(len(RUNGS))
  one = forecast.extrapolate(RUNGS, y, TARGET)
  other = forecast.extrapolate(RUNGS, 3 + 100 * y, TARGET)
  np.testing.assert_allclose(3 + 100 * one, other, rtol=1e-6)


def ladder(path, *, target='missing', psnr=straight, top=24.0, rungs=5):
  """A sweep whose rungs double their steps; the run has ten times the last."""
  claim = dict(name='told', rule='forecasts', x='train_flops', margin=1.5,
               text='Told before.', requires=['complete'])
  random, units = np.random.default_rng(5), []
  for rung in range(rungs):
    for seed in range(2):
      units.append(synthetic.unit(
          f'r{rung}-{seed}', f'r{rung}', 'P-N/8', seed=seed,
          steps=100 * 2**rung,
          psnr=psnr(30 + rung) + 0.06 * random.standard_normal()))
  units.append(synthetic.unit(
      'run', 'run', 'P-N/8', role='forecast', steps=1000 * 2**(rungs - 1),
      psnr=top, state=target))
  return synthetic.write(path, units, [claim])


def finish(path, top):
  """The same sweep with the larger run done, and nothing else changed."""
  other = ladder(path.parent / 'done', target='done', top=top)
  (other / 'run').rename(path / 'run')


def judged(path):
  found = analysis.analyse(path, count=50)
  return found, found.verdicts[0]


def test_what_was_written_before_the_run_is_scored_after_it(tmp_path):
  path, said = ladder(tmp_path / 'sweep'), []
  stored = forecast.write(path, 'run', said.append)
  assert stored['sha256'] in said[-1]
  assert stored['times'] == pytest.approx(10)
  assert {'psnr', 'ssim', 'log2_mse', 'hours'} == set(stored['numbers'])
  assert judged(path)[1].word == 'undecided'
  finish(path, top=straight(TARGET))
  found, verdict = judged(path)
  assert verdict.word == 'holds', verdict.reason
  number = stored['numbers']['psnr']
  score = forecast.scores(stored, found.rows)['psnr']
  assert score.covered
  assert verdict.estimate == pytest.approx(score.observed - number['predicted'])
  assert (verdict.low, verdict.high) == pytest.approx(
      (score.observed - number['high'], score.observed - number['low']))
  # The synthetic clock charges steps by their FLOPs, and 10.9 s for the rest.
  hours = forecast.scores(stored, found.rows)['hours']
  assert hours.covered and abs(hours.error) < 0.2 * hours.observed
  # Written once: the run is no rung, and a second call changes nothing.
  assert forecast.write(path, 'run', said.append) == stored


@pytest.mark.parametrize('top, word', [
    (straight(TARGET) + 2, 'does not hold'), (straight(TARGET), 'holds')])
def test_a_run_outside_its_interval_refutes_the_forecast(tmp_path, top, word):
  path = ladder(tmp_path / 'sweep')
  forecast.write(path, 'run', print)
  finish(path, top)
  assert judged(path)[1].word == word


def test_an_interval_too_wide_decides_nothing(tmp_path):
  path = ladder(tmp_path / 'sweep')
  stored = json.loads((path / 'sweep.json').read_text())
  stored['claims'][0]['margin'] = 0.05
  (path / 'sweep.json').write_text(json.dumps(stored))
  forecast.write(path, 'run', print)
  finish(path, straight(TARGET))
  found, verdict = judged(path)
  assert verdict.word == 'undecided' and 'wider' in verdict.reason


def test_a_run_that_has_started_is_not_forecast(tmp_path):
  path = ladder(tmp_path / 'sweep', target='done')
  with pytest.raises(errors.InputError, match='has started'):
    forecast.write(path, 'run')
  assert not (path / 'forecast.json').exists()
  verdict = judged(path)[1]
  assert verdict.word == 'not testable here'
  assert 'not forecast before' in verdict.reason


def test_a_changed_forecast_is_refused(tmp_path):
  path = ladder(tmp_path / 'sweep')
  stored = forecast.write(path, 'run', print)
  stored['numbers']['psnr']['high'] += 1
  (path / 'forecast.json').write_text(json.dumps(stored))
  with pytest.raises(errors.InputError, match='changed'):
    forecast.read(path)
  finish(path, straight(TARGET))
  assert 'changed' in judged(path)[1].reason


def test_four_rungs_and_unfinished_ones_are_refused(tmp_path):
  with pytest.raises(errors.InputError, match='needs 5'):
    forecast.write(ladder(tmp_path / 'four', rungs=4), 'run')
  path = ladder(tmp_path / 'sweep')
  (path / 'r2-0' / 'DONE').unlink()
  with pytest.raises(errors.InputError, match='r2-0'):
    forecast.write(path, 'run')


def test_the_top_rung_is_predicted_from_those_below(tmp_path):
  found, _ = judged(ladder(tmp_path / 'sweep'))
  assert forecast.backtest(found.rows)['psnr'].covered
