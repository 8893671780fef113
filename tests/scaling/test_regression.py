"""What E leaves unexplained: known truths, and columns that are one thing."""

import math

import numpy as np
import pytest

from vitok import errors
from vitok.scaling import fits, regression


def data(y, *, tokens=(16, 64, 256), channels=(2, 4, 8, 16), sd=0.05, seeds=2,
         count=400, random=0, **columns):
  random = np.random.default_rng(random)
  rows, values = [], []
  for one in tokens:
    for c in channels:
      for _ in range(seeds):
        rows.append(dict(unit='u', configuration=f'{one}-{c}', tokens=one,
                         channels=c, code_floats=one * c, **{
                             name: f(one, c) for name, f in columns.items()}))
        values.append(y(math.log2(one), math.log2(c)))
  values = np.array(values) + sd * random.standard_normal(len(values))
  return fits.Data(tuple(rows), values, values + sd * random.standard_normal(
      (count, len(values))))


def test_coefficients_equal_those_of_numpy():
  found = data(lambda n, c: 3 + 2 * (n + c) - 0.5 * n)
  result = regression.regress(found, 'psnr')
  assert result.fit.terms == ('code_floats', 'tokens')
  columns = np.array([[1, math.log2(row['code_floats']),
                       math.log2(row['tokens'])] for row in found.rows])
  wanted = np.linalg.lstsq(columns, found.y_U, rcond=None)[0]
  slopes = result.slopes()
  assert slopes['code_floats'][0] == pytest.approx(wanted[1])
  assert slopes['tokens'][0] == pytest.approx(wanted[2])
  # Partial R2 of tokens is its squared partial correlation.
  rest = columns[:, :2]
  project = np.eye(len(rest)) - rest @ np.linalg.pinv(rest)
  r = np.corrcoef(project @ columns[:, 2], project @ found.y_U)[0, 1]
  assert result.partial['tokens'] == pytest.approx(r**2)
  assert result.alone == pytest.approx(np.corrcoef(
      columns[:, 1], found.y_U)[0, 1]**2)


def test_what_others_add_is_their_effect_and_nothing_where_there_is_none():
  logs = np.log2([16, 64, 256])
  # Half a decibel per doubling of tokens, less what E can stand for.
  value, value_R = regression.added(
      data(lambda n, c: 2 * (n + c) - 0.5 * n), ('code_floats',), ('tokens',))
  grid = np.array([[a, b] for a in logs for b in (1, 2, 3, 4)])
  both = np.column_stack([np.ones(12), grid.sum(1)])
  left = 0.5 * (grid[:, 0] - both @ (np.linalg.pinv(both) @ grid[:, 0]))
  assert value == pytest.approx(np.sqrt(np.mean(left**2)), abs=0.03)
  low, high = np.quantile(value_R, (0.05, 0.95))
  assert low < value < high
  value, value_R = regression.added(
      data(lambda n, c: 2 * (n + c), sd=0.2), ('code_floats',), ('tokens',))
  assert np.quantile(value_R, 0.05) == 0  # Noise alone is not an effect.
  assert value < 0.12  # Two standard errors: .2 / sqrt(12).


def test_columns_that_are_one_thing_are_refused_with_the_pair():
  found = data(lambda n, c: n + c, decoder_flops=lambda n, c: 7 * n)
  with pytest.raises(errors.InputError, match='decoder_flops') as refused:
    regression.added(found, ('code_floats',), ('tokens', 'decoder_flops'))
  assert 'tokens' in str(refused.value)
  result = regression.regress(found, 'psnr')
  assert result.left_out == {'decoder_flops': 'tokens'}


def test_a_column_made_of_two_others_is_left_out():
  found = data(lambda n, c: n + c)
  result = regression.regress(found, 'psnr', candidates=(
      'code_floats', 'tokens', 'channels'))
  assert result.fit.terms == ('code_floats', 'tokens')
  assert set(result.left_out) == {'channels'}


def test_a_sweep_of_one_column_has_no_regression():
  found = data(lambda n, c: n + c, tokens=(16,))
  assert regression.regress(found, 'psnr') is None
