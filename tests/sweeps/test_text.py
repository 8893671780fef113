import pytest

from vitok.sweeps import text


def test_a_table_aligns_words_left_and_numbers_right():
  assert text.table(('unit', 'n'), [('a', 5), ('bcdef', 12)]) == (
      'unit    n\na       5\nbcdef  12')


@pytest.mark.parametrize('value, shown', [
    (4.65e12, '4.65 TFLOP'), (999, '999 FLOP'), (1e19, '10 EFLOP')])
def test_amounts_have_a_prefix(value, shown):
  assert text.amount(value, 'FLOP') == shown


@pytest.mark.parametrize('seconds, shown', [
    (0, '0 s'), (47.2, '47 s'), (725, '12:05 min'), (3599, '59:59 min'),
    (12_000, '3:20 h'), (1_080_000, '12.5 days')])
def test_durations_have_the_unit_that_fits(seconds, shown):
  assert text.duration(seconds) == shown
