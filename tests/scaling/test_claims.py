"""Claims are data: checked when read, hashed as a whole."""

import dataclasses
import hashlib
import json
import math
import pathlib

import numpy as np
import pytest

from tests.scaling.synthetic import LAW
from vitok import errors
from vitok.scaling import claims, published, table

COLUMNS = {*table.COLUMNS, 'arm'}


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


@pytest.mark.parametrize('change, key, near', [
    (dict(margin='1.0'), 'margin', 1.0), (dict(margin=None), 'margin', None),
    (dict(margin=True), 'margin', 1.0), (dict(margin=math.nan), 'margin', None),
    (dict(distinct=4.5), 'distinct', 4), (dict(groups=0), 'groups', 1),
    (dict(flagged=50), 'flagged', 1.0), (dict(level='high'), 'level', 0.5),
    (dict(seed_df='3'), 'seed_df', 3), (dict(power=80), 'power', 0.999),
    (dict(rates=dict(values=1)), 'rates.values', 3),
    (dict(rates=dict(tie='0.1')), 'rates.tie', 0.1),
    (dict(convergence=dict(ratio='3')), 'convergence.ratio', 3.0),
    (dict(convergence=0.15), 'convergence', None),
    (dict(where=['patch']), 'where', None),
    (dict(where={'patch': [4, 8]}), 'where.patch', None),
    (dict(name='my law'), 'name', 'my_law'), (dict(text=3), 'text', None),
    (dict(hold_out=['patch'], rule='predicts'), 'hold_out', None),
    (dict(adjust='patch'), 'adjust', ['patch']),
    (dict(x=[3]), 'x', ['[3]']), (dict(requires='seeds'), 'requires',
                                  ['seeds'])])
def test_a_field_of_the_wrong_type_is_refused_with_what_would_do(
    change, key, near):
  with pytest.raises(errors.InputError) as caught:
    claims.parse([LAW | change])
  assert caught.value.key == f'CLAIMS[0].{key}'
  assert caught.value.nearest == near


@pytest.mark.parametrize('given', [LAW, 'law', None, [['name', 'law']]])
def test_claims_are_a_tuple_of_dicts(given):
  with pytest.raises(errors.InputError, match='dict'):
    claims.parse(given)


@pytest.mark.parametrize('change, key, near', [
    (dict(x='code_float'), 'x', 'code_floats'),
    (dict(adjust=['patches']), 'adjust', 'patch'),
    (dict(where={'arms': 'a'}), 'where', 'arm'),
    (dict(rule='predicts', hold_out='pach'), 'hold_out', 'patch')])
def test_an_unknown_column_is_refused_with_the_nearest(change, key, near):
  claims.parse([LAW | change])  # Where the columns are not known yet.
  with pytest.raises(errors.InputError) as caught:
    claims.parse([LAW | change], COLUMNS)
  assert (caught.value.key, caught.value.nearest) == (f'CLAIMS[0].{key}', near)
  known = dict(adjust=['patch'], where={'arm': 'a'}, rule='predicts',
               hold_out='patch')
  assert len(claims.parse([LAW | known], COLUMNS)) == 1


def test_what_is_recorded_has_every_default_and_says_the_same():
  given = [LAW, LAW | dict(name='flat', rule='no_slope', y='log2_mse')]
  recorded = claims.recorded(given)
  assert recorded == json.loads(json.dumps(recorded))
  assert claims.parse(recorded) == claims.parse(given)
  assert recorded == claims.recorded(claims.parse(given))
  law, flat = recorded
  assert (law['level'], law['groups'], law['requires']) == (
      0.9, 8, ['complete', 'convergence', 'rates', 'seeds', 'null', 'width'])
  assert law['convergence'] == dict(ratio=3, relative=0.15, absolute=0)
  assert flat['convergence']['absolute'] == 0.5


def test_a_default_that_changes_later_changes_no_recorded_claim(monkeypatch):
  before, recorded = claims.parse([LAW]), claims.recorded([LAW])
  monkeypatch.setitem(claims.RESPONSES, 'psnr', dataclasses.replace(
      claims.RESPONSES['psnr'], tie=9))
  assert claims.parse([LAW]) != before == claims.parse(recorded)


def test_the_rules_are_the_bytes_of_what_judges(monkeypatch, tmp_path):
  folder = pathlib.Path(claims.__file__).parent
  text = b''.join((folder / f'{name}.py').read_bytes() for name in (
      'claims', 'responses', 'table', 'bootstrap', 'fits', 'regression', 'iso',
      'forecast', 'estimates', 'checks', 'verdicts'))
  assert claims.rules() == hashlib.sha256(text).hexdigest()
  for file in folder.glob('*.py'):
    (tmp_path / file.name).write_bytes(file.read_bytes())
  monkeypatch.setattr(claims, '__file__', str(tmp_path / 'claims.py'))
  assert claims.rules() == hashlib.sha256(text).hexdigest()
  with open(tmp_path / 'checks.py', 'a') as file:
    file.write('#')
  assert claims.rules() != hashlib.sha256(text).hexdigest()


def test_ties_are_the_same_in_every_response():
  ties = {name: one.tie for name, one in claims.RESPONSES.items()}
  assert ties['log2_mse'] == pytest.approx(
      -math.log2(10**(-ties['psnr'] / 10)), abs=1e-4)
  points = np.array([published.CODE.column('psnr'),
                     published.CODE.column('ssim')])
  psnr, ssim = points[:, (points[0] > 22) & (points[0] < 29)]
  assert ties['ssim'] == pytest.approx(
      ties['psnr'] * np.polyfit(psnr, ssim, 1)[0], rel=0.02)
