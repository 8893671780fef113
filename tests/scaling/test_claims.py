"""Claims are data: checked when read, hashed as a whole."""

import pytest

from tests.scaling.synthetic import LAW
from vitok import errors
from vitok.scaling import claims


@pytest.mark.parametrize('change, key', [
    (dict(rule='slope_over'), 'CLAIMS[0].rule'),
    (dict(margn=1), 'CLAIMS[0].margn'),
    (dict(y='rfid'), 'CLAIMS[0].y'),
    (dict(rule='equal_slopes'), 'CLAIMS[0].x'),
    (dict(rule='no_slope', margin=0), 'CLAIMS[0].margin'),
    (dict(requires=['luck']), 'CLAIMS[0].requires'),
    (dict(level=90), 'CLAIMS[0].level'),
    (dict(rule='predicts'), 'CLAIMS[0].hold_out'),
    (dict(convergence=dict(ration=3)), 'CLAIMS[0].convergence.ration'),
])
def test_a_claim_that_cannot_be_judged_is_refused_by_key(change, key):
  with pytest.raises(errors.InputError) as caught:
    claims.parse([LAW | change])
  assert caught.value.key == key


def test_a_claim_without_a_margin_is_refused():
  with pytest.raises(errors.InputError, match='margin: is missing'):
    claims.parse([{k: v for k, v in LAW.items() if k != 'margin'}])


def test_names_are_unique():
  with pytest.raises(errors.InputError, match='is not unique'):
    claims.parse([LAW, LAW])


def test_a_law_over_code_size_cannot_ask_for_fewer_than_four_sizes():
  few, tower = claims.parse([LAW | dict(distinct=2), LAW | dict(
      name='tower', x='decoder_parameters')])
  assert few.distinct == 4
  assert tower.distinct == 3


def test_an_effect_near_zero_may_move_by_half_its_margin():
  law, flat = claims.parse([LAW, LAW | dict(name='flat', rule='no_slope')])
  assert law.convergence['absolute'] == 0
  assert flat.convergence['absolute'] == 0.5


def test_the_fingerprint_is_of_every_number_and_not_of_spelling():
  same = claims.fingerprint(claims.parse([LAW]))
  assert same == claims.fingerprint(claims.parse([LAW | dict(
      x=['code_floats'], level=0.9, convergence=dict(relative=0.15))]))
  for change in (dict(margin=1.1), dict(convergence=dict(relative=0.2)),
                 dict(text='other'), dict(requires=['seeds'])):
    assert claims.fingerprint(claims.parse([LAW | change])) != same
