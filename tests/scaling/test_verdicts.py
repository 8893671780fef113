"""Synthetic sweeps come to each of the four verdicts, for the right reason."""

import json
import math

import pytest

from tests.scaling import synthetic
from vitok.scaling import analysis, fits

LAW = synthetic.LAW
EQUAL = dict(name='equal', rule='equal_slopes', x=['tokens', 'channels'],
             margin=0.25, text='Tokens and channels are worth the same.')
STRAIGHT = dict(name='straight', rule='straight', x='code_floats', margin=0.1,
                text='The law is straight.')
PREDICTS = dict(name='predicts', rule='predicts', x='code_floats',
                hold_out='code_floats', margin=0.5, text='It predicts.')
FLAT = dict(name='flat', rule='no_slope', x='decoder_parameters', margin=0.05,
            convergence=dict(absolute=0.02), text='No effect.')


def line(slope=2.0, channels=None, bend=0.0):
  """PSNR that is linear in log2 of tokens and of channels, or bent."""
  def psnr(tokens, c):
    e = math.log2(tokens * c)
    return (4 + slope * math.log2(tokens) + (channels or slope) * math.log2(c)
            + bend * (e - 7)**2)
  return psnr


def judge(tmp_path, units, claim=LAW, **more):
  found = analysis.analyse(synthetic.write(tmp_path, units, [claim], **more),
                           count=500)
  return found.verdicts[0]


def sweep(law, **more):
  return synthetic.grid(law, **dict(longer=law, rates=(0.5, 2)) | more)


def towers(slope, *, sd=0.01, seeds=3, sizes=(1, 2, 4, 8), longer=True):
  units = []
  for i, depth in enumerate(sizes):
    psnr, label = 25 + slope * i, f'd{depth}'
    make = lambda name, label=label, depth=depth, **more: synthetic.unit(
        f'{label}-{name}', label, f'P-Pd{depth}/8', **more)
    units += [make(f's{s}', seed=s, psnr=psnr + sd * (s - 1))
              for s in range(seeds)]
    if depth in (sizes[0], sizes[-1]):
      units += [make(f'lr{m}', role='rate', rate=2e-3 * m, psnr=psnr - 1)
                for m in (0.5, 2)]
      units += [make('3x', role='longer', steps=1200, psnr=psnr)] * longer
  return units


def fail(workdir, name, error='NonFiniteError: loss'):
  """Makes a finished unit one that failed on the way."""
  (workdir / name / 'DONE').unlink()
  (workdir / name / 'FAILED').write_text(json.dumps(dict(error=error)))


@pytest.mark.parametrize('law, claim, word', [
    (line(2.0), LAW, 'holds'),
    (line(0.5), LAW, 'does not hold'),
    (line(2.0), EQUAL, 'holds'),
    (line(2.0, channels=1.5), EQUAL, 'does not hold'),
    (line(2.0), STRAIGHT, 'holds'),
    (line(2.0, bend=0.2), STRAIGHT, 'does not hold'),
    (line(2.0), PREDICTS, 'holds'),
    (line(2.0, bend=0.5), PREDICTS, 'does not hold'),
])
def test_each_rule_holds_and_fails(tmp_path, law, claim, word):
  verdict = judge(tmp_path, sweep(law), claim)
  assert verdict.word == word, verdict.reason
  assert verdict.low <= verdict.estimate <= verdict.high or claim is PREDICTS


@pytest.mark.parametrize('slope, sd, word', [
    (0.0, 0.01, 'holds'), (0.14, 0.01, 'does not hold'),
    (0.05, 0.06, 'undecided'), (0.0, 0.4, 'undecided')])
def test_no_effect_is_shown_by_equivalence(tmp_path, slope, sd, word):
  # The last: an interval that includes 0 is no evidence of absence.
  verdict = judge(tmp_path, towers(slope, sd=sd), FLAT)
  assert verdict.word == word, verdict.reason


def test_three_tower_sizes_suffice(tmp_path):
  assert judge(tmp_path, towers(0, sizes=(1, 2, 4)), FLAT).word == 'holds'


def test_three_code_sizes_are_not_testable(tmp_path):
  verdict = judge(tmp_path, sweep(line(), floats=(64, 128, 256)))
  assert verdict.word == 'not testable here'
  assert '3 distinct values' in verdict.reason


def test_one_patch_size_cannot_tell_tokens_from_channels(tmp_path):
  verdict = judge(tmp_path, sweep(line(), patches=(8,)), EQUAL)
  assert verdict.word == 'not testable here'
  assert 'do not vary apart' in verdict.reason


def test_units_below_their_own_pca_are_left_out_and_counted(tmp_path):
  # Above E = 256 training falls behind; the law is that of the rest.
  stuck = lambda n, c: min(line(2.0)(n, c), line(2.0)(16, 16))
  verdict = judge(tmp_path, sweep(stuck, floats=(32, 64, 128, 256, 512)),
                  pca=lambda n, c: line(2.0)(n, c) - 1.5)
  assert verdict.flagged == 4
  assert verdict.estimate == pytest.approx(2.0, abs=0.05)


def test_mostly_below_pca_is_limited_by_optimisation(tmp_path):
  verdict = judge(tmp_path, sweep(line()), pca=lambda n, c: 60)
  assert verdict.word == 'not testable here'
  assert 'optimisation' in verdict.reason


def test_one_independent_image_is_limited_by_data(tmp_path):
  verdict = judge(tmp_path, sweep(line()), groups=1)
  assert verdict.word == 'not testable here'
  assert 'data' in verdict.reason


def test_two_photographs_decide_nothing_and_eight_do(tmp_path):
  verdict = judge(tmp_path / '2', sweep(line()), groups=2)
  assert verdict.word == 'not testable here'
  assert '2 independent images, 8 needed' in verdict.reason
  assert verdict.low < 2 < verdict.high  # Shown all the same.
  assert judge(tmp_path / '8', sweep(line()), groups=8).word == 'holds'


def test_a_slope_that_still_moves_is_undecided(tmp_path):
  verdict = judge(tmp_path, sweep(line(1.5), longer=line(2.5)))
  assert verdict.word == 'undecided'
  assert 'at T, 2.500 at 3T' in verdict.reason
  assert judge(tmp_path / 'b', sweep(line(1.5), longer=line(1.65))
               ).word == 'holds'


@pytest.mark.parametrize('claim, longer, word', [
    # The slope over E moves little, what the claim is about does.
    (EQUAL, line(2.6, channels=1.95), 'undecided'),
    (EQUAL, line(2.1, channels=2.0), 'holds'),
    (STRAIGHT, line(2.0, bend=0.2), 'undecided'),
    (STRAIGHT, line(2.3), 'holds'),
    (PREDICTS, lambda n, c: line()(n, c) + (n * c == 512), 'undecided'),
    (PREDICTS, line(2.3), 'holds')])
def test_converged_is_the_claims_own_statistic(tmp_path, claim, longer, word):
  verdict = judge(tmp_path, sweep(line(2.0), longer=longer), claim)
  assert verdict.word == word, verdict.reason
  assert ('convergence' in verdict.reason) == (word == 'undecided')


def test_longer_units_that_cannot_carry_the_fit_meet_no_check(tmp_path):
  units = [row for row in sweep(line(2.0)) if not (
      row['role'] == 'longer' and row['configuration'].startswith('p4'))]
  verdict = judge(tmp_path, units, EQUAL)
  assert verdict.word == 'undecided'
  assert 'tokens, channels: do not vary apart' in verdict.reason


def test_noise_alone_does_not_refute_a_prediction(tmp_path):
  verdicts = [judge(tmp_path / str(i), sweep(line(2.0), sd=0.8, random=i),
                    PREDICTS | dict(requires=['complete'])) for i in range(12)]
  assert sum(verdict.low > 0.5 for verdict in verdicts) > 3
  assert {verdict.word for verdict in verdicts} == {'undecided'}


def test_seeds_that_straddle_their_pca_are_left_out_together(tmp_path):
  units = sweep(line(2.0))
  lucky, unlucky = (row for row in units if row['role'] == 'law'
                    and row['configuration'] == 'p8c32')
  lucky['psnr'], unlucky['psnr'] = 20.2, 19.4
  verdict = judge(tmp_path, units, pca=lambda n, c: 20 if c == 32 else 2)
  assert verdict.flagged == 2


@pytest.mark.parametrize('change, unmet, word', [
    (dict(longer=None), 'convergence', 'not testable here'),
    (dict(rates=()), 'rates', 'not testable here'),
    (dict(rates=(2, 4)), 'rates', 'undecided'),
    (dict(seeds=1), 'seeds', 'undecided')])
def test_a_check_that_was_not_made_is_not_met(tmp_path, change, unmet, word):
  if change.get('rates') == (2, 4):  # Three rates, the best at the edge.
    verdict = judge(tmp_path, sweep(line(), **change))
    assert 'at the edge' in verdict.reason
  else:
    verdict = judge(tmp_path, sweep(line(), **change))
  assert verdict.word == word
  assert (f'has no units for {unmet}' in verdict.reason) == (
      word == 'not testable here')
  assert [c.name for c in verdict.checks
          if not c.met and c.name in verdict.claim.requires] == [unmet]


@pytest.mark.parametrize('gain, met, claim', [
    (0.05, True, LAW), (0.08, False, LAW),
    (0.08, True, LAW | dict(rates=dict(tie=0.1))),
    # Of log2 MSE the smaller is the better; .06 dB are .02 of it.
    (0.05, True, LAW | dict(y='log2_mse')),
    (0.08, False, LAW | dict(y='log2_mse')),
    (-1, True, LAW | dict(y='log2_mse')),
    # A dB is .13 of the synthetic SSIM at the small end.
    (0.01, True, LAW | dict(y='ssim')), (0.6, False, LAW | dict(y='ssim'))])
def test_an_edge_of_the_rates_wins_only_by_more_than_a_tie(
    tmp_path, gain, met, claim):
  units = sweep(line(), sd=0)
  law = {row['configuration']: row['psnr'] for row in units
         if row['role'] == 'law'}
  for row in units:
    if row['name'].endswith('-lr0.5'):
      row['psnr'] = law[row['configuration']] + gain
  check, = (c for c in judge(tmp_path, units, claim).checks
            if c.name == 'rates')
  assert check.met == met
  assert ('at the edge' in check.detail) != met


def test_a_claim_may_do_without_a_check_and_the_report_still_lists_it(
    tmp_path):
  verdict = judge(tmp_path, sweep(line(), rates=()),
                  LAW | dict(requires=['complete', 'seeds', 'null']))
  assert verdict.word == 'holds'
  assert any(c.name == 'rates' and not c.met for c in verdict.checks)


def test_an_unfinished_sweep_is_undecided_and_names_what_is_missing(tmp_path):
  units = sweep(line())
  units[3]['state'] = 'missing'
  verdict = judge(tmp_path, units)
  assert verdict.word == 'undecided'
  assert units[3]['name'] in verdict.reason
  assert verdict.estimate == pytest.approx(2.0, abs=0.05)


def test_where_restricts_a_claim_to_some_units(tmp_path):
  law = lambda n, c: line(2.0 if n == 16 else 0.5)(n, c)
  verdict = judge(tmp_path, sweep(law), LAW | dict(where={'patch': 8}))
  assert verdict.used == 10
  assert verdict.estimate == pytest.approx(2.0, abs=0.05)


def joined(saved):
  """A law of clips of 8 frames, and an arm that codes them frame by frame."""
  clips = [unit | {'together': 8} for unit in sweep(line(), seeds=3)]
  frames = synthetic.grid(
      lambda n, c: line()(n, c) - 2.0 * saved, seeds=1, longer=lambda n, c:
      line()(n, c) - 2.0 * saved)
  return clips + [unit | {
      'name': f'apart-{unit["name"]}', 'together': 1, 'arm': 'apart',
      'role': 'arm' if unit['role'] == 'law' else unit['role'],
      'configuration': f'apart-{unit["configuration"]}'} for unit in frames]


REPLACES = dict(
    name='less', rule='replaces', x=['code_floats', 'together'], margin=0.1,
    arms=['apart'], convergence=dict(absolute=0.05),
    text='Clips need fewer floats than their frames do.')


@pytest.mark.parametrize('saved, word', [(1.2, 'holds'), (0, 'does not hold')])
def test_what_a_column_stands_for_is_counted_in_doublings(
    tmp_path, saved, word):
  verdict = judge(tmp_path, joined(saved), REPLACES)
  assert verdict.word == word, verdict.reason
  # Of the eight frames' three doublings, `saved` are saved.
  assert verdict.estimate == pytest.approx(saved / 3, abs=0.03)
  assert verdict.low < verdict.estimate < verdict.high


def test_arms_enter_the_claims_that_name_them_and_no_other(tmp_path):
  units = joined(1.2)
  assert judge(tmp_path / 'a', units, REPLACES).used == 36
  verdict = judge(tmp_path / 'b', units)
  assert verdict.used == 27
  assert verdict.estimate == pytest.approx(2.0, abs=0.05)


def test_nothing_stands_for_a_doubling_that_is_worth_nothing(tmp_path):
  verdict = judge(tmp_path, [
      unit | {'psnr': 25 + 0.1 * (i % 3)} for i, unit in enumerate(joined(1))],
      REPLACES)
  assert verdict.word == 'not testable here'
  assert 'beyond doubt' in verdict.reason


def test_a_rate_that_diverged_is_the_worst_and_blocks_nothing(tmp_path):
  synthetic.write(tmp_path, sweep(line()), [LAW, LAW | dict(
      name='error', y='log2_mse', margin=-1)])
  fail(tmp_path, 'p8c2-lr2')
  for verdict in analysis.analyse(tmp_path, count=100).verdicts:
    check = {check.name: check for check in verdict.checks}
    assert check['complete'].met and check['rates'].met
    assert 'p8c2-lr2 (NonFiniteError: loss)' in check['complete'].detail
  fail(tmp_path, 'p8c2-lr0.5')  # Both: the law's own is inside, and the best.
  verdict, _ = analysis.analyse(tmp_path, count=100).verdicts
  assert verdict.word == 'holds', verdict.reason


def test_a_rate_whose_evaluation_is_not_finite_is_the_worst(tmp_path):
  units = sweep(line())
  for row in units:
    if row['name'] == 'p8c2-lr2':
      row['psnr'] = math.nan
  assert judge(tmp_path, units).word == 'holds'


def test_a_law_unit_that_failed_is_said_to_have_failed(tmp_path):
  synthetic.write(tmp_path, sweep(line()), [LAW])
  fail(tmp_path, 'p8c4-s0')
  verdict, = analysis.analyse(tmp_path, count=100).verdicts
  assert verdict.word == 'undecided'
  assert verdict.reason.startswith('Units failed: ')
  assert 'failed: p8c4-s0 (NonFiniteError: loss)' in verdict.reason
  assert 'not finished' not in verdict.reason


def test_a_unit_that_never_started_counts_as_missing_by_its_factors(tmp_path):
  units = [row | {'half': 'a' if row['configuration'].startswith('p8')
                  else 'b'} for row in sweep(line())]
  units[-1]['state'] = 'missing'  # Of patch 4, which only its config says.
  words = {value: judge(tmp_path / str(value), units, LAW | dict(
      where={column: value})).word
           for column, value in (('half', 'a'), ('half', 'b'), ('patch', 8))}
  assert words == {'a': 'holds', 'b': 'undecided', 8: 'undecided'}


def test_a_column_that_no_unit_has_selects_none(tmp_path):
  verdict = judge(tmp_path, sweep(line()), LAW | dict(where={'pach': 8}))
  assert verdict.used == 0 and verdict.word == 'undecided'


def test_each_of_several_errors_is_stretched_for_its_own_level(
    tmp_path, monkeypatch):
  levels, responses = [], fits.responses
  monkeypatch.setattr(fits, 'responses', lambda *args, level, **more: (
      levels.append(level), responses(*args, level=level, **more))[1])
  judge(tmp_path, sweep(line()), PREDICTS | dict(level=0.8))
  # Three responses of the report, the claim's level, one of five errors'.
  assert levels == pytest.approx([0.9, 0.9, 0.9, 0.8, 1 - 0.2 / 5])


def test_towers_narrower_than_a_patch_are_a_second_bottleneck(tmp_path):
  units = sweep(line())
  for row in units:
    if row['configuration'] == 'p8c2':
      row['model'] = 'F-F/1x8x2'  # 96 wide for 192 numbers.
  verdict = judge(tmp_path / 'a', units)
  assert verdict.word == 'undecided'
  assert 'Not met: width' in verdict.reason and 'p8c2-s1' in verdict.reason
  arm = synthetic.unit('wide', 'p8c2', 'P-N/1x8x2', psnr=14, role='arm',
                       arm='wide')
  assert judge(tmp_path / 'b', [*units, arm]).word == 'holds'


def test_a_claim_may_ask_for_a_constant_price_of_a_nat(tmp_path):
  priced = LAW | dict(requires=['complete', 'price'])
  verdict = judge(tmp_path / 'a', sweep(line()), priced)
  assert verdict.word == 'undecided' and 'nat' in verdict.reason
  assert judge(tmp_path / 'b', towers(0.1), dict(
      FLAT, rule='slope_above', requires=['price'])).word == 'holds'
  rows = analysis.analyse(tmp_path / 'a', count=10).rows
  assert {row['width'] for row in rows} == {192}
  assert {row['patch_floats'] for row in rows} == {192, 48}


def test_a_verdict_says_which_check_it_lacks(tmp_path):
  verdict = judge(tmp_path / 'a', sweep(line()))
  assert verdict.word == 'holds' and verdict.caveat == ', without price'
  units = sweep(line(), rates=())
  assert judge(tmp_path / 'b', units).caveat == ''  # Undecided.
