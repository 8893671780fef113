from vitok import sweeps

POINTS = [
    sweeps.Point('a', {'model.name': 'A-A/8', 'total_steps': 10}, 2.3e-3),
    sweeps.Point('b', {'model.name': 'A-A/1x8x4', 'total_steps': 20}, 1e-3)]


def expand(**options):
  return {unit.name: unit for unit in
          sweeps.expand(POINTS, **options)}


def test_every_point_has_a_law_unit_and_its_seeds():
  units = expand(seeds={'a': 2})
  assert list(units) == ['a-seed0', 'a-seed1', 'b-seed0']
  assert [u.overrides['seed'] for u in units.values()] == [0, 1, 0]
  assert all(u.factors['role'] == 'law' for u in units.values())
  assert len(expand(seeds=3)) == 6


def test_longer_units_differ_in_steps_alone():
  units = expand(longer=['a'])
  law, longer = units['a-seed0'], units['a-3x']
  assert longer.factors == {'configuration': 'a', 'role': 'longer'}
  assert law.overrides | {'total_steps': 30} == longer.overrides


def test_other_rates_are_multiples_of_the_points_own():
  units = expand(tuned=['a'], multiples=(0.5, 2.0))
  assert units['a-lr0.5'].overrides['optimizer.learning_rate'] == 1.15e-3
  assert units['a-lr2'].overrides['optimizer.learning_rate'] == 4.6e-3
  assert units['a-lr2'].factors['role'] == 'rate'


def test_an_arms_overrides_come_last():
  units = expand(arms={'wide': ({'optimizer.learning_rate': 1.0}, ['b'])})
  assert units['b-wide'].overrides['optimizer.learning_rate'] == 1.0
  assert units['b-wide'].factors == {
      'configuration': 'b', 'role': 'arm', 'arm': 'wide'}
  assert 'a-wide' not in units


def test_points_may_be_an_arm_and_bring_columns_of_their_own():
  points = [sweeps.Point('c', POINTS[0].overrides, 1e-3, {'together': 8})]
  law, longer = sweeps.expand(points, longer='c', arm='apart')
  assert law.factors == {'configuration': 'c', 'role': 'arm', 'arm': 'apart',
                         'together': 8}
  assert longer.factors == {'configuration': 'c', 'role': 'longer',
                            'together': 8}


def test_all_units_of_points_may_be_after_others():
  assert {unit.after for unit in expand(
      longer='ab', after=('tokenizer',)).values()} == {('tokenizer',)}
  assert {unit.after for unit in expand().values()} == {()}


def test_units_of_one_configuration_stand_side_by_side():
  configurations = [u.factors['configuration'] for u in expand(
      seeds=2, longer='ab', tuned='ab', multiples=(0.5,),
      arms={'x': ({}, 'ab')}).values()]
  assert configurations == sorted(configurations)
