"""Folders of videos: the index, what it leaves out, and clips."""

import io
import json
import logging
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from tests import films
from vitok import errors
from vitok.data import clips, records, sources, video_file, videos


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('VITOK_CACHE', str(tmp_path / 'cache'))
  sources.open_source.cache_clear()
  yield tmp_path / 'cache' / 'videos'
  sources.open_source.cache_clear()


@pytest.fixture
def folder(tmp_path):
  for i, name in enumerate(('b/2.mp4', 'b/1.mkv', 'a.mp4')):
    films.write(tmp_path / 'd' / name, films.images(5 + i, seed=i))
  return tmp_path / 'd'


def open_source(folder, split='train', skip=False):
  return videos.Videos(str(folder), split, 16, skip)


def test_a_folder_is_read_recursively_in_the_order_of_paths(folder):
  (folder / 'notes.txt').write_text('')
  source = sources.open_source(f'videos:{folder}', 'train', 16, False)
  assert [os.path.relpath(source.name(i), folder) for i in range(3)] == [
      'a.mp4', 'b/1.mkv', 'b/2.mp4']
  assert [len(source.read(i, None)[0]) for i in range(3)] == [7, 6, 5]
  clip = source.read(0, None, lambda count, seconds: np.array([1, 4, 4, 6]))[0]
  np.testing.assert_array_equal(
      clip, films.decode(folder / 'a.mp4')[[1, 4, 4, 6]])
  again = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(again.read(0, None)[0][[1, 4, 4, 6]], clip)
  assert [source.group(i) for i in range(3)] == [0, 1, 2]


def test_times_reach_the_choice_of_a_clip(folder):
  source = open_source(folder)
  clip = source.read(0, None, clips.Clips(3, frame_rate=12.5).choose)[0]
  np.testing.assert_array_equal(clip, source.read(0, None)[0][[1, 3, 5]])


def test_the_index_is_built_once(folder, cache, monkeypatch):
  first = open_source(folder)
  assert len(list(cache.iterdir())) == 1
  monkeypatch.setattr(video_file, 'timeline', lambda path: pytest.fail(path))
  assert open_source(folder).fingerprint == first.fingerprint


def test_only_what_has_changed_is_read_again(folder, monkeypatch):
  before = open_source(folder).fingerprint
  films.write(folder / 'a.mp4', films.images(9))
  films.write(folder / 'c.mp4', films.images(3))
  seen, timeline = [], video_file.timeline
  monkeypatch.setattr(video_file, 'timeline', lambda path: (
      seen.append(os.path.basename(path)), timeline(path))[1])
  source = open_source(folder)
  assert sorted(seen) == ['a.mp4', 'c.mp4'] and len(source) == 4
  assert len(source.read(0, None)[0]) == 9 and source.fingerprint != before


def test_irregular_times_survive_the_index(folder):
  stamps = [0, 20, 90, 100, 180]
  films.write(folder / 'a.mkv', films.images(5), stamps=stamps)
  open_source(folder)
  times = open_source(folder)._read[0][1]
  np.testing.assert_allclose(times.seconds, np.array(stamps) / 1000)
  assert times == video_file.timeline(folder / 'a.mkv')


@pytest.mark.parametrize('damage', [
    lambda text: text[:90], lambda text: '[]',
    lambda text: text.replace('"regular": [0', '"regular": [512', 1)])
def test_a_damaged_index_is_made_anew(folder, cache, caplog, damage):
  whole = open_source(folder)
  (path,) = cache.iterdir()
  text = path.read_text()
  path.write_text(damage(text))
  assert path.read_text() != text
  with caplog.at_level(logging.WARNING):
    assert open_source(folder).fingerprint == whole.fingerprint
  assert 'made anew' in caplog.text
  assert json.loads(path.read_text())['index'] == json.loads(text)['index']


def test_a_cache_that_cannot_be_written_is_done_without(
    folder, monkeypatch, caplog):
  monkeypatch.setenv('VITOK_CACHE', '/dev/null/cache')
  assert len(open_source(folder)) == 3
  assert 'is not kept' in caplog.text


def test_unreadable_files_are_counted_named_and_refused_or_left_out(folder):
  (folder / 'b' / '0.mp4').write_bytes(b'no video')
  with pytest.raises(errors.InputError) as caught:
    open_source(folder)
  assert 'of 4 videos cannot be read: 1 file (b/0.mp4)' in caught.value.reason
  assert caught.value.nearest == '--config.data.skip_unreadable=True'
  source = open_source(folder, skip=True)
  assert source.unreadable == ('b/0.mp4',) and len(source) == 3


def test_an_unreadable_file_is_tried_again(folder, monkeypatch):
  """It may have been the disk."""
  timeline = video_file.timeline

  def failing(path):
    if path.endswith('a.mp4'):
      raise OSError('not now')
    return timeline(path)
  monkeypatch.setattr(video_file, 'timeline', failing)
  assert len(open_source(folder, skip=True)) == 2
  monkeypatch.setattr(video_file, 'timeline', timeline)
  assert len(open_source(folder)) == 3


def test_subfolders_named_as_splits_are_the_splits(folder):
  films.write(folder / 'test' / 'x.mp4', films.images(2))
  assert len(open_source(folder, 'test')) == 1
  with pytest.raises(errors.InputError) as caught:
    open_source(folder)
  assert caught.value.key == 'split'


def test_a_folder_without_videos_says_what_was_found(tmp_path):
  (tmp_path / 'a.png').write_text('')
  with pytest.raises(errors.InputError, match=r'no video; found 1 other file'):
    open_source(tmp_path)


def test_records_of_clips_are_videos_without_times(tmp_path):
  frames = films.images(6)
  writer = records.writer(tmp_path / 'a.array_record')
  writer.write(records.pack(frames))
  writer.write(records.pack(frames[:1]))
  writer.close()
  source = sources.open_source(f'array_record:{tmp_path}', 'train', 16, False)
  assert source.moving and not source.timed
  np.testing.assert_array_equal(source.read(0, None)[0], frames)
  np.testing.assert_array_equal(
      source.read(0, None, clips.Clips(2, stride=3).choose)[0], frames[[1, 4]])
  np.testing.assert_array_equal(
      source.read(1, None, clips.Clips(2).choose)[0], frames[:1])


def test_tfds_videos_are_read_frame_by_frame_undecoded(tmp_path):
  tfds = pytest.importorskip('tensorflow_datasets')
  frames = films.images(6)

  class Moving(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
      return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(
          {'video': tfds.features.Video((None, *films.SHAPE, 3))}))

    def _split_generators(self, dl_manager):
      return {'train': self._generate_examples()}

    def _generate_examples(self):
      for i in (4, 6, 1):
        yield i, {'video': frames[:i]}

  builder = Moving(data_dir=tmp_path, file_format='array_record')
  builder.download_and_prepare()
  source = sources.open_source(f'tfds:{builder.data_path}', 'train', 16, False)
  source = pickle.loads(pickle.dumps(source))
  assert source.moving and not source.timed and len(source) == 3
  assert sorted(len(source.read(i, None)[0]) for i in range(3)) == [1, 4, 6]
  longest = max(range(3), key=lambda i: len(source.read(i, None)[0]))
  clip = source.read(longest, None, clips.Clips(2, stride=4).choose)[0]
  assert all(frame[1:4] == b'PNG' for frame in clip)
  decoded = [np.asarray(Image.open(io.BytesIO(frame))) for frame in clip]
  np.testing.assert_array_equal(decoded, frames[[0, 4]])
