"""Best sizes for a budget: known truths are found, edges are refused."""

import math

import numpy as np
import pytest

from vitok import accounting, errors, sizes
from vitok.scaling import fits, iso

SIZES = (1, 2, 4, 8, 16)


def data(best, *, budgets=(1e12, 4e12, 16e12), sd=0.02, bend=-0.4, seeds=2,
         count=400, random=0):
  """PSNR with its maximum at log2 x = `best(budget)`; known replicates."""
  random = np.random.default_rng(random)
  rows, y = [], []
  for budget in budgets:
    for size in SIZES:
      for seed in range(seeds):
        rows.append(dict(unit=f'{budget}-{size}-{seed}', parameters=size,
                         budget=budget, configuration=f'{budget}-{size}'))
        y.append(20 + bend * (math.log2(size) - best(budget))**2)
  y = np.array(y) + sd * random.standard_normal(len(y))
  noise = sd * random.standard_normal((count, len(y)))
  return fits.Data(tuple(rows), y, y + noise)


def grows(exponent):
  return lambda budget: 1 + exponent * math.log2(budget / 1e12)


def test_the_exponent_of_a_known_law_is_found():
  found = iso.power_law(data(grows(0.5), sd=1e-4), 'parameters', 'budget',
                        'psnr')
  assert found.exponent[0] == pytest.approx(0.5, abs=1e-3)
  assert [curve.best for curve in found.curves] == pytest.approx(
      [1, 2, 3], abs=1e-2)
  assert found.curves[0].value == pytest.approx(20, abs=1e-3)
  assert found.curves[0].line(np.array([2.0])) == pytest.approx(20, abs=1e-3)
  # best = 2^factor budget^exponent.
  assert found.factor + 0.5 * math.log2(4e12) == pytest.approx(2, abs=1e-2)


def test_intervals_of_the_exponent_cover_the_truth():
  """90% intervals cover 80 of 100 times or more (binomial: 3.3 sd below)."""
  covered = 0
  for random in range(100):
    _, exponent_R = iso.power_law(data(grows(0.5), random=random),
                                  'parameters', 'budget', 'psnr').exponent
    low, high = np.quantile(exponent_R, (0.05, 0.95))
    covered += low <= 0.5 <= high
  assert 80 <= covered


def test_a_smaller_error_is_better():
  up = data(grows(0.5), sd=1e-4)
  down = fits.Data(up.rows, -up.y_U, -up.y_RxU)
  assert iso.power_law(down, 'parameters', 'budget', 'log2_mse').exponent[
      0] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize('best, bend, why', [
    (lambda budget: 5.0, -0.4, 'not inside'),
    (lambda budget: 2.0, 0.4, 'no best value'),
    (lambda budget: 4.0, -0.01, 'not inside')])
def test_a_budget_without_an_interior_best_is_refused(best, bend, why):
  with pytest.raises(errors.InputError, match=why) as refused:
    iso.power_law(data(best, bend=bend), 'parameters', 'budget', 'psnr')
  assert '1e+12' in str(refused.value)


def test_a_budget_whose_best_unit_is_below_its_pca_is_refused():
  found = data(grows(0.5))
  for row in found.rows:
    row['below_pca'] = row['budget'] == 4e12
  with pytest.raises(errors.InputError, match='4e.12.*below its own patch'):
    iso.power_law(found, 'parameters', 'budget', 'psnr')


def test_few_budgets_and_few_sizes_are_refused():
  with pytest.raises(errors.InputError, match='2 values'):
    iso.power_law(data(grows(0.5), budgets=(1e12, 2e12)), 'parameters',
                  'budget', 'psnr')
  with pytest.raises(errors.InputError, match='needs 6'):
    iso.power_law(data(grows(0.5)), 'parameters', 'budget', 'psnr', least=6)


def test_the_distance_to_the_nearer_end_is_measured():
  one = data(lambda budget: 3.0, budgets=(1e12,), sd=1e-4)
  value, value_R = iso.inside(one, 'parameters', 'psnr')
  assert value == pytest.approx(1, abs=1e-2)
  assert np.all(value_R > 0)
  outside = data(lambda budget: 4.5, budgets=(1e12,), sd=1e-4)
  value, value_R = iso.inside(outside, 'parameters', 'psnr')
  assert value == pytest.approx(-0.5, abs=1e-2)
  assert np.all(value_R == 0)


NAMES = iso.towers((48, 96), ((1, 1), (1, 2), (2, 4)), head=48, patch=4,
                   channels=2)
RUN = dict(resolution=32, batch=32, steps=(50, 2000))


def test_candidates_spend_the_budget_to_a_percent():
  found = iso.candidates(5e11, NAMES, **RUN)
  assert len(found) == len(NAMES)
  for name, steps in found.items():
    spent = steps * 32 * accounting.describe(
        sizes.parse(name), 1, 32)['flops']['train_step']
    assert abs(spent / 5e11 - 1) <= 0.01
  assert list(found.values()) == sorted(found.values(), reverse=True)
  chosen = iso.spread(found, 4)
  assert len(chosen) == 4 and chosen.items() <= found.items()
  assert {max(found.values()), min(found.values())} <= set(chosen.values())


def test_a_budget_nobody_can_spend_is_refused_with_the_nearest():
  with pytest.raises(errors.InputError, match='within 1%') as refused:
    iso.candidates(2e9, NAMES, **RUN)
  nearest = float(refused.value.nearest)
  assert len(iso.candidates(nearest, NAMES, **RUN)) >= 4
