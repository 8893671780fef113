"""The layout of records: round trips, and odd bytes are refused."""

import numpy as np
import pytest

from vitok.data import records

PIXELS = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)


def test_pixels_and_label_round_trip():
  image, label = records.unpack(records.pack(PIXELS, 7))
  np.testing.assert_array_equal(image, PIXELS)
  assert label == 7


def test_files_round_trip_with_and_without_header():
  assert records.unpack(records.pack(b'file', 3)) == (b'file', 3)
  assert records.unpack(b'\x89PNG...') == (b'\x89PNG...', -1)


def test_the_layout_is_fixed():
  """Files written today are read by later versions."""
  record = records.pack(PIXELS[:1, :1, :2], 1)
  assert record == (b'VTKR' + b'\0' * 4 + b'\1\0\0\0' + b'\1\0\0\0' * 2
                    + b'\2\0\0\0' + b'\3\0\0\0' + bytes(range(6)))


@pytest.mark.parametrize('record,reason', [
    (records.pack(PIXELS)[:20], 'within its header'),
    (records.pack(PIXELS)[:-1], 'says its shape'),
    (records.pack(PIXELS) + b'x', 'says its shape'),
    (b'VTKR\x09' + records.pack(PIXELS)[5:], 'unknown encoding 9')])
def test_a_damaged_record_is_refused(record, reason):
  with pytest.raises(ValueError, match=reason):
    records.unpack(record)


def test_other_shapes_cannot_be_packed():
  with pytest.raises(ValueError, match='not uint8'):
    records.pack(PIXELS[0])


def test_names_give_split_and_missing_shards():
  files = [records.file_name('a-b', 'test', i, 3) for i in (0, 2)]
  assert files[0] == 'a-b-test.array_record-00000-of-00003'
  assert records.split_of('/d/' + files[0]) == 'test'
  assert records.split_of('/d/mine.array_record') == 'train'
  assert records.missing_shards(files) == [
      'a-b-test.array_record-00001-of-00003']
  assert not records.missing_shards(['mine.array_record'])
