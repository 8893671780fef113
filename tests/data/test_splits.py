"""Splits and their slices follow TensorFlow Datasets."""

import pytest

from vitok import errors
from vitok.data import splits

# (text, count, first, one past the last); from TFDS 4.9 `ReadInstruction`.
RANGES = [
    ('train', 20, 0, 20),
    ('train[:90%]', 20, 0, 18),
    ('train[90%:]', 20, 18, 20),
    ('train[-3:]', 20, 17, 20),
    ('train[:-3]', 20, 0, 17),
    ('train[5:9]', 20, 5, 9),
    ('train[:2.5%]', 20, 0, 0),
    ('train[-33%:]', 20, 13, 20),
    ('train[30%:60%]', 20, 6, 12),
    ('test[100:200]', 300, 100, 200),
    ('mini-val[ 1 : 2 ]', 3, 1, 2),
]


@pytest.mark.parametrize('text,count,low,high', RANGES)
def test_slices_give_the_records_of_tfds(text, count, low, high):
  split = splits.parse('config.data.split', text)
  assert split.name == text.partition('[')[0]
  assert list(split.range(count)) == list(range(low, high))


def test_rounding_is_that_of_tfds_for_every_percentage():
  tfds = pytest.importorskip('tensorflow_datasets')
  for count in (7, 20, 1001):
    info = tfds.core.SplitInfo(
        name='train', shard_lengths=[count], num_bytes=0)
    for percent in range(-99, 100):
      if percent < 0 and round(percent * count / 100) == 0:
        continue  # TFDS takes 'the last 0 records' for all of them.
      text = f'train[{percent}%:]'
      (theirs,) = tfds.core.ReadInstruction.from_spec(text).to_absolute(
          {'train': info})
      assert splits.parse('', text).range(count).start == (
          theirs.from_ or 0), text


def test_slices_that_meet_share_nothing_and_lose_nothing():
  for count in range(1, 200):
    low = splits.parse('', 'train[:37%]').range(count)
    high = splits.parse('', 'train[37%:]').range(count)
    assert [*low, *high] == list(range(count))


@pytest.mark.parametrize('text', [
    '', 'train[', 'train[5]', 'train[1:2:3]', 'train[a:]', 'train[:1.5]',
    'train+test', 'train[:10%]x', '[:5]', 'train[:%]'])
def test_other_forms_are_refused(text):
  with pytest.raises(errors.InputError) as refusal:
    splits.parse('config.data.split', text)
  assert refusal.value.key == 'config.data.split'
  assert refusal.value.value == text


@pytest.mark.parametrize('text', ['train[:21]', 'train[-21:]', 'train[:101%]'])
def test_bounds_outside_the_split_are_errors(text):
  with pytest.raises(ValueError, match='outside its 20 records'):
    splits.parse('', text).range(20)
