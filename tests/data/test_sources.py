"""Sources: what each finds, in which order, and what it refuses."""

import os
import pathlib
import pickle
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from PIL import Image

from vitok import errors
from vitok.data import records, sources


def open_source(spec, split='train', resolution=16, skip=False):
  return sources.open_source(str(spec), split, resolution, skip)


def write_images(folder, names, value=lambda i: i):
  for i, name in enumerate(names):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (20 + i, 18), (value(i), 0, 0)).save(path)


def write_records(path, count, first=0):
  writer = records.writer(path)
  for i in range(first, first + count):
    writer.write(records.pack(np.full((1, 16, 16, 3), i, np.uint8), i))
  writer.close()


def refusal(spec, split='train', **kwargs):
  with pytest.raises(errors.InputError) as caught:
    open_source(spec, split, **kwargs)
  return caught.value


def test_a_folder_is_read_recursively_in_the_order_of_paths(tmp_path):
  write_images(tmp_path, ['b/2.png', 'b/1.jpg', 'a.webp', 'b/c/3.bmp', 'z.TIF'])
  (tmp_path / 'labels.json').write_text('{}')
  source = open_source(f'folder:{tmp_path}')
  names = [os.path.relpath(source.name(i), tmp_path)
           for i in range(len(source))]
  assert names == ['a.webp', 'z.TIF', 'b/1.jpg', 'b/2.png', 'b/c/3.bmp']
  assert source.read(3, None)[0] == (tmp_path / 'b/2.png').read_bytes()


def test_subfolders_named_as_splits_are_the_splits(tmp_path):
  write_images(tmp_path, ['train/n1/a.png', 'train/n2/b.png', 'val/c.png'])
  assert len(open_source(f'folder:{tmp_path}')) == 2
  assert len(open_source(f'folder:{tmp_path}', 'val')) == 1
  error = refusal(f'folder:{tmp_path}', 'test')
  assert error.key == 'split' and "2 subfolders (train, val)" in error.reason


def test_a_class_has_one_number_in_all_splits(tmp_path):
  write_images(tmp_path, ['train/cat/a.png', 'train/owl/b.png',
                          'val/dog/c.png', 'val/owl/d.png', 'test/e.png'])
  (tmp_path / 'val/notes').mkdir()  # It holds no image: no class.
  (tmp_path / 'val/notes/x.txt').write_text('x')
  found = {}
  for split in ('train', 'val', 'test'):
    source = open_source(f'folder:{tmp_path}', split)
    found[split] = source.classes, [source.read(i, None)[1]
                                    for i in range(len(source))]
  assert found == {'train': (3, [0, 2]), 'val': (3, [1, 2]),
                   'test': (0, [records.NO_LABEL])}


def test_a_class_of_another_split_changes_the_fingerprint_if_labels_change(
    tmp_path):
  names = ['train/dog/a.png', 'train/owl/b.png']
  for place, more in (('x', []), ('y', ['val/owl/c.png']),
                      ('z', ['val/cat/c.png'])):
    write_images(tmp_path / place, [*names, *more])
  x, y, z = (open_source(f'folder:{tmp_path}/{place}').fingerprint
             for place in 'xyz')
  assert x == y != z


def test_a_folder_without_split_subfolders_is_one_split(tmp_path):
  """Else training and test images would be the same."""
  write_images(tmp_path, ['cats/a.png', 'dogs/b.png'])
  assert len(open_source(f'folder:{tmp_path}')) == 2
  error = refusal(f'folder:{tmp_path}', 'test')
  assert 'found 2 subfolders (cats, dogs)' in error.reason
  assert 'train[90%:]' in error.nearest


def test_linked_folders_are_entered_once(tmp_path):
  picture = Image.new('RGB', (4, 4))
  for name in ('here/a', 'there'):
    (tmp_path / name).mkdir(parents=True)
    picture.save(tmp_path / name / 'x.png')
  (tmp_path / 'here/b').symlink_to(tmp_path / 'there')
  (tmp_path / 'here/a/back').symlink_to(tmp_path / 'here')
  source = open_source(f'folder:{tmp_path}/here')
  assert [source.name(i).removeprefix(f'{tmp_path}/here/')
          for i in range(len(source))] == ['a/x.png', 'b/x.png']


def test_the_nearest_of_a_file_is_not_itself(tmp_path):
  (tmp_path / 'photos').write_text('')
  assert refusal(f'folder:{tmp_path}/photos').nearest is None
  (tmp_path / 'photo').mkdir()
  assert refusal(f'folder:{tmp_path}/photos').nearest == (
      f'folder:{tmp_path}/photo')


def test_a_missing_folder_names_the_nearest_one(tmp_path):
  (tmp_path / 'photos').mkdir()
  error = refusal(f'folder:{tmp_path}/photo')
  assert error.nearest == f'folder:{tmp_path}/photos'


def test_an_empty_folder_says_what_was_found(tmp_path):
  (tmp_path / 'a').mkdir()
  assert 'no image; found no other file' in refusal(f'folder:{tmp_path}').reason
  (tmp_path / 'a' / 'notes.txt').write_text('x')
  assert '1 other file (a/notes.txt)' in refusal(f'folder:{tmp_path}').reason


def test_unreadable_files_are_counted_named_and_refused_or_left_out(tmp_path):
  write_images(tmp_path, ['a.png', 'b.png', 'c.png'])
  (tmp_path / 'b.png').write_bytes(b'')
  (tmp_path / 'd.jpg').write_text('no picture')
  error = refusal(f'folder:{tmp_path}')
  assert 'of 4 images cannot be read: 2 files (b.png, d.jpg)' in error.reason
  assert error.nearest == '--config.data.skip_unreadable=True'
  source = open_source(f'folder:{tmp_path}', skip=True)
  assert source.unreadable == ('b.png', 'd.jpg')
  assert [os.path.basename(source.name(i)) for i in range(2)] == [
      'a.png', 'c.png']


def test_a_folder_of_nothing_readable_is_refused_even_if_it_may_skip(tmp_path):
  (tmp_path / 'a.png').write_bytes(b'')
  error = refusal(f'folder:{tmp_path}', skip=True)
  assert '1 file (a.png)' in error.reason and error.nearest is None


def test_fingerprints_follow_the_index_and_not_the_place(tmp_path):
  for name in ('x', 'y', 'z'):
    write_images(tmp_path / name, ['a.png', 'b.png'])
  write_images(tmp_path / 'z', ['c.png'])
  x, y, z = (open_source(f'folder:{tmp_path}/{name}').fingerprint
             for name in ('x', 'y', 'z'))
  assert x == y != z


def test_other_records_under_the_same_names_have_another_fingerprint(tmp_path):
  prints = []
  for folder, last in (('x', 3), ('y', 3), ('z', 9)):
    (tmp_path / folder).mkdir()
    for shard, count, first in ((0, 3, 0), (1, 1, last)):
      write_records(tmp_path / folder / records.file_name(
          'd', 'train', shard, 2), count, first)
    prints.append(open_source(f'array_record:{tmp_path}/{folder}').fingerprint)
  assert prints[0] == prints[1] != prints[2]


def test_records_are_found_by_folder_and_by_glob(tmp_path):
  for shard in range(2):
    write_records(tmp_path / records.file_name('d', 'train', shard, 2), 3,
                  3 * shard)
  write_records(tmp_path / records.file_name('d', 'test', 0, 1), 1, 9)
  for spec in (tmp_path, f'{tmp_path}/d-*'):
    source = open_source(f'array_record:{spec}')
    read = [source.read(i, None) for i in range(len(source))]
    assert [image[0, 0, 0, 0] for image, _ in read] == [0, 1, 2, 3, 4, 5]
    assert [label for _, label in read] == [0, 1, 2, 3, 4, 5]
    assert len(open_source(f'array_record:{spec}', 'test')) == 1
  assert 'd-train.array_record-00000' in source.name(4)


def test_files_without_a_split_in_their_name_are_training_data(tmp_path):
  write_records(tmp_path / 'mine.array_record', 4)
  assert len(open_source(f'array_record:{tmp_path}/mine*')) == 4
  assert refusal(f'array_record:{tmp_path}', 'test').key == 'split'


def test_records_may_be_plain_image_files(tmp_path):
  write_images(tmp_path, ['a.png'])
  writer = records.writer(tmp_path / 'd.array_record')
  writer.write((tmp_path / 'a.png').read_bytes())
  writer.close()
  source = open_source(f'array_record:{tmp_path}')
  assert source.read(0, None)[0] == (tmp_path / 'a.png').read_bytes()


def test_absent_records_say_what_is_there(tmp_path):
  write_records(tmp_path / 'mine.array_record', 1)
  error = refusal(f'array_record:{tmp_path}/nine.array_record')
  assert '1 entry (mine.array_record)' in error.reason
  assert error.nearest == f'array_record:{tmp_path}/mine.array_record'


def test_a_missing_shard_is_named(tmp_path):
  write_records(tmp_path / records.file_name('d', 'train', 0, 2), 1)
  assert '1 file (d-train.array_record-00001-of-00002)' in refusal(
      f'array_record:{tmp_path}').reason


@pytest.mark.parametrize('content', [b'', b'no records', None])
def test_files_that_hold_no_images_are_refused(tmp_path, content):
  path = tmp_path / 'd.array_record'
  if content is None:
    writer = records.writer(path)
    writer.write(b'not an image')
    writer.close()
  else:
    path.write_bytes(content)
  assert 'cannot be read' in refusal(f'array_record:{tmp_path}').reason


@pytest.mark.parametrize('spec,nearest', [
    ('photograph', 'photographs'), ('photographs:x', 'photographs'),
    ('folder', 'folder:PATH'), ('folder:', 'folder:PATH'),
    ('tdfs:cifar10', 'tfds:NAME'), ('arrayrecord:/x', 'array_record:GLOB')])
def test_unknown_sources_are_refused(spec, nearest):
  error = refusal(spec)
  assert error.key == 'source' and error.nearest == nearest


def test_photographs_have_two_splits():
  error = refusal('photographs', 'validation')
  assert error.key == 'split' and error.nearest == 'test'


@pytest.fixture
def temporary(monkeypatch, tmp_path):
  """TFDS leaves a temporary folder for each builder: here, not in /tmp."""
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))


def test_tfds_is_read_undecoded_through_its_data_source(temporary):
  tfds = pytest.importorskip('tensorflow_datasets')
  with tfds.testing.mock_data(num_examples=5):
    source = open_source('tfds:cifar10')
    data = source.read(3, None)[0]
    copy = pickle.loads(pickle.dumps(source))
    assert len(copy) == 5
  assert isinstance(data, bytes) and data[1:4] == b'PNG'
  assert source.name(3) == 'record 3 of tfds:cifar10, split train'
  sources.open_source.cache_clear()


def test_unknown_tfds_names_give_the_nearest(temporary):
  error = refusal('tfds:cifra10')
  assert error.nearest == 'tfds:cifar10' and len(str(error)) < 300


def test_tfds_that_is_not_prepared_names_the_command(
    monkeypatch, tmp_path, temporary):
  import tensorflow_datasets as tfds
  builder = tfds.builder('mnist', data_dir=tmp_path, file_format='array_record')
  monkeypatch.setattr(tfds, 'builder', lambda *_, **__: builder)
  error = refusal('tfds:mnist')
  assert error.nearest == 'python tools/prepare_data.py tfds:mnist'
  assert str(tmp_path) in error.reason


def test_tfds_prepared_in_another_format_says_so(
    monkeypatch, tmp_path, temporary):
  import tensorflow_datasets as tfds
  real = tfds.builder('mnist', data_dir=tmp_path)

  def builder(name, file_format=None):
    if file_format:  # As TFDS does where records of another format lie.
      raise ValueError('File format is already set to tfrecord')
    return real
  monkeypatch.setattr(tfds, 'builder', builder)
  error = refusal('tfds:mnist')
  assert 'prepared as tfrecord, not as ArrayRecord' in error.reason
  assert str(tmp_path) in error.reason


def test_tfds_without_images_names_its_features(temporary):
  assert "no feature 'image'; found 2 features" in refusal(
      'tfds:imdb_reviews').reason


def test_nothing_but_a_tfds_source_imports_tensorflow():
  program = '''
import sys
from vitok import config, data
made = config.default()
data.check(made)
data.host_batch(made, 0, [0])
assert not {'tensorflow', 'tensorflow_datasets'} & set(sys.modules)
'''
  root = pathlib.Path(__file__).parents[2]
  subprocess.run([sys.executable, '-c', program], check=True,
                 env=dict(os.environ, PYTHONPATH=str(root)))
