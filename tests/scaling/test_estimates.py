"""Rules beyond slopes, through whole sweeps of known truth."""

import json
import math

import numpy as np
import pytest

from tests.scaling import synthetic
from vitok.scaling import analysis, claims, estimates, fits, report

PARALLEL = dict(name='parallel', rule='parallel', text='Parallel.', margin=0.1,
                x=['decoder_parameters', 'code_floats'],
                requires=['complete', 'seeds'])
BEST = dict(name='best', rule='optimum', x=['parameters', 'budget'],
            margin=0.1, requires=['complete', 'seeds'],
            text='The best size grows.')


def decoders(more):
  """Units whose decoder is worth `more` dB a doubling for each doubling of E.

  Of .2 dB at the smallest of three E.
  """
  random, units = np.random.default_rng(4), []
  for power, c in enumerate((4, 8, 16)):
    for depth in (1, 2, 4, 8):
      for seed in range(2):
        units.append(synthetic.unit(
            f'd{depth}c{c}-{seed}', f'd{depth}c{c}', f'P-Pd{depth}/1x8x{c}',
            seed=seed, psnr=20 + 2 * power + (0.2 + more * power)
            * math.log2(depth) + 0.02 * random.standard_normal()))
  return units


@pytest.mark.parametrize('more, word', [
    (0.0, 'holds'), (0.3, 'does not hold')])
def test_a_slope_that_depends_on_e_is_told_from_one_that_does_not(
    tmp_path, more, word):
  synthetic.write(tmp_path, decoders(more), [PARALLEL])
  found = analysis.analyse(tmp_path, count=200)
  verdict, = found.verdicts
  assert verdict.word == word, verdict.reason
  # The same regression by numpy.
  rows = found.data['psnr'].rows
  logs = np.log2([[row['decoder_parameters'], row['code_floats']]
                  for row in rows])
  logs -= logs.mean(0)
  columns = np.column_stack([np.ones(len(logs)), logs, logs.prod(1)])
  wanted = np.linalg.lstsq(columns, found.data['psnr'].y_U, rcond=None)[0]
  assert verdict.estimate == pytest.approx(wanted[3])
  # The law that is drawn takes E into account.
  law = found.law('decoder_parameters')
  assert law.fit.terms == ('decoder_parameters', 'code_floats')
  np.testing.assert_allclose(law.fit.predict(rows), columns[:, :3] @ (
      np.linalg.lstsq(columns[:, :3], found.data['psnr'].y_U, rcond=None)[0]))


def test_the_smallest_change_of_a_slope_is_that_of_its_coefficient():
  claim, = claims.parse([PARALLEL])
  rows = [dict(configuration=f'{d}-{c}', decoder_parameters=d, code_floats=c)
          for d in (1, 2, 4, 8) for c in (64, 256) for _ in range(2)]
  effect = estimates.smallest_effect(claim, rows)
  z = np.log2([[row['decoder_parameters'], row['code_floats']]
               for row in rows])
  z -= z.mean(0)
  # A balanced design: its columns are orthogonal. t(.95; 8) + t(.9; 8).
  assert effect == pytest.approx(
      (1.8595 + 1.3968) * 0.06 / np.sqrt(np.sum(z.prod(1)**2)), rel=1e-3)


def budgets(best):
  """Units of three budgets, with their best width at log2 w = `best`."""
  random, units = np.random.default_rng(0), []
  for power, budget in enumerate((3e11, 12e11, 48e11)):
    for width in (48, 64, 128, 192):
      heads = width // 16
      model = f'Aw{width}h{heads}-Fw{width}h{heads}/1x8x4'.replace(
          'w96h6', 'h6')
      for seed in range(2):
        units.append(synthetic.unit(
            f'w{width}-{power}-{seed}', f'w{width}-{power}', model, seed=seed,
            budget=budget, psnr=20 + power
            - (math.log2(width) - best(power))**2
            + 0.02 * random.standard_normal()))
  return units


def test_best_sizes_that_grow_are_found_through_a_whole_sweep(tmp_path):
  synthetic.write(tmp_path, budgets(lambda power: 6.1 + 0.5 * power), [BEST],
                  experiment='iso_flop')
  verdict, = analysis.analyse(tmp_path, count=200).verdicts
  assert verdict.word == 'holds', verdict.reason
  assert 'convergence' not in verdict.caveat
  # Width grows as budget^.25, and parameters nearly as its square.
  assert verdict.estimate == pytest.approx(0.5, abs=0.05)


def test_units_below_their_pca_stay_in_a_budgets_curve(tmp_path):
  # The smallest and the largest of the first budget, two seeds each.
  synthetic.write(tmp_path, budgets(lambda power: 6.5 + 0.001 * power), [BEST],
                  pca=lambda tokens, channels: 19.6)
  found = analysis.analyse(tmp_path, count=100)
  below = sum(row['below_pca'] for row in found.rows)
  verdict, = found.verdicts
  assert below == 4 and verdict.used == 24
  assert verdict.word == 'does not hold'


def test_a_claim_that_cannot_be_tested_says_where_it_can(tmp_path):
  synthetic.write(tmp_path, budgets(lambda power: 5.0), [BEST],
                  experiment='iso_flop')
  text = report.write(tmp_path, count=100).read_text()
  summary = json.loads((tmp_path / 'report/report.json').read_text())
  claim, = summary['claims']
  assert claim['verdict'] == 'not testable here'
  assert 'not inside what was run' in claim['reason']
  command = ('python -m vitok.sweep run experiments/iso_flop.py:gpu1 '
             '--workdir=runs/iso_flop-gpu1')
  assert claim['where'] == command and command in text
  assert (tmp_path / 'report/budgets.png').exists()
  assert 'Multiple regression' in text


def test_a_number_of_all_images_has_replicates_over_seeds_alone():
  rows = [dict(unit=str(i), configuration=str(i // 2), role='law', rkid=0.1 * i)
          for i in range(6)]
  images = [dict(group=np.arange(9))] * 6
  data = fits.responses(rows, images, 'rkid', count=400)
  np.testing.assert_allclose(data.y_U, [row['rkid'] for row in rows])
  assert np.all(data.y_RxU.std(0) > 0)
  alone = fits.responses(rows[::2], images[::2], 'rkid', count=50)
  assert np.all(alone.y_RxU == alone.y_U)
