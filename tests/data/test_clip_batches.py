"""Batches of clips, alone and joint with images."""

import io

import jax
import numpy as np
import pytest
from PIL import Image

from tests import films
from tests.data import test_pipeline as images
from vitok import data, errors
from vitok.data import clips as clips_lib
from vitok.data import examples, records, sources, transforms


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('VITOK_CACHE', str(tmp_path / 'cache'))
  sources.open_source.cache_clear()


def config(path, frames=4, **changes):
  return images.config(**{
      'data__sources': (f'videos:{path}',), 'data__frames': frames,
      'evaluation__split': 'train', 'batch_size': 8,
      'evaluation__batch_size': 8, **changes})


@pytest.fixture
def grey(tmp_path):
  """Videos of 12, 13 and 14 frames: frame n has about the level 8 n."""
  for i in range(3):
    films.write(tmp_path / 'grey' / f'{i}.mp4', films.flat(12 + i))
  return tmp_path / 'grey'


def numbers(batch):
  """(B, T): which frame each is."""
  levels = (batch['image'].mean((2, 3, 4)) + 1) * 127.5
  return np.rint(levels / 8).astype(int)


def test_clips_are_of_the_configured_length_and_stride(grey):
  made = config(grey, data__stride=3)
  data.check(made)
  shown = np.concatenate([numbers(data.host_batch(made, s)) for s in range(6)])
  assert shown.shape == (48, 4) and (np.diff(shown) == 3).all()
  assert set(shown[:, 0]) == {0, 1, 2, 3, 4}


def test_clips_at_a_frame_rate(grey):
  made = config(grey, data__frame_rate=12.5)
  data.check(made)
  assert (np.diff(numbers(data.host_batch(made, 0))) == 2).all()


def test_frames_of_a_clip_are_cropped_and_mirrored_alike(tmp_path):
  """Of a film in which nothing moves every frame stays the same."""
  for name in ('a.mkv', 'b.mkv'):
    still = films.images(1, seed=len(name)).repeat(9, 0)
    films.write(tmp_path / 'd' / name, still, 'ffv1')
  made = config(tmp_path / 'd', data__crop_scale=(.2, 1.))
  clips = data.host_batch(made, 0)['image']
  np.testing.assert_array_equal(clips, clips[:, :1].repeat(4, 1))
  assert len({clip.tobytes() for clip in clips}) == 8


def test_image_files_of_a_clip_are_cropped_alike():
  """As those of a TFDS video: one draw, whatever the decoder does."""
  drawn, rng = [], np.random.default_rng(0)

  def crop(height, width, rng):
    drawn.append(rng.random())
    return transforms.random_resized(height, width, rng, scale=(.1, .5),
                                     ratio=(1., 1.))
  made = examples.Examples(
      ('a', 'b'), ('photographs',), 'train', size=16, crop=crop,
      name_of_filter='bilinear', clips=clips_lib.Clips(frames=3))
  file = _png(films.images(1)[0])
  image = made._pixels([file] * 3, rng)
  assert len(drawn) == 1
  np.testing.assert_array_equal(image, image[:1].repeat(3, 0))


def _png(image):
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'PNG')
  return buffer.getvalue()


def test_the_batch_of_a_step_is_a_function_of_seed_and_step(grey):
  made = config(grey)
  whole = images.take(made, 4)
  for a, b in zip(whole[2:], images.take(made, 2, start=2), strict=True):
    images.assert_same(a, b)
  rows = [1, 6]
  images.assert_same({key: x[rows] for key, x in whole[3].items()},
                     data.host_batch(made, 3, rows))
  other = data.host_batch(config(grey, seed=1), 3)
  assert not np.array_equal(other['image'], whole[3]['image'])


def test_workers_make_the_same_clips(grey):
  expected = images.take(config(grey), 2)
  for a, b in zip(expected, images.take(config(grey, data__workers=1), 2),
                  strict=True):
    images.assert_same(a, b)


def test_images_among_clips_are_still_clips(grey, tmp_path):
  made = config(grey, **{
      'data__sources': (f'videos:{grey}', 'photographs'),
      'data__weights': (.25, .75)})
  data.check(made)
  batch = data.host_batch(made, 0)
  assert batch['image'].shape == (8, 4, 16, 16, 3)
  video = batch['index'] < 3
  assert video.sum() == 2  # As the weights say.
  clips = batch['image']
  assert (np.diff(numbers(batch)[video]) == 1).all()
  np.testing.assert_array_equal(clips[~video],
                                clips[~video][:, :1].repeat(4, 1))
  images.assert_same({key: x[[0, 5]] for key, x in batch.items()},
                     data.host_batch(made, 0, [0, 5]))


def test_a_model_of_clips_is_measured_on_stills_only_if_told_to(grey, caplog):
  mixed = {'data__sources': ('photographs', f'videos:{grey}')}
  with pytest.raises(errors.InputError, match='evaluation.source.*photographs, '
                     f'which holds images.*choice: videos:{grey}'):
    data.check(config(grey, **mixed))
  with caplog.at_level('WARNING'):
    data.check(config(grey, **mixed, evaluation__source=f'videos:{grey}'))
    data.check(config(grey, frames=1, **mixed))
  assert 'still' not in caplog.text
  for part, source in (('all', 'photographs'), ('evaluation', '')):
    caplog.clear()
    with caplog.at_level('WARNING'):
      data.check(config(grey, **mixed, evaluation__source=source), part)
    assert 'photographs holds images: what is measured is of still clips' in (
        caplog.text)


def test_one_frame_of_each_video_is_an_image(grey):
  batch = data.host_batch(config(grey, frames=1), 0)
  assert batch['image'].shape == (8, 1, 16, 16, 3)
  assert len(set(numbers(batch)[:, 0])) > 3


def evaluated(made):
  data.check(made)
  return next(iter(map(jax.device_get, data.eval_batches(
      made, images.sharding()))))


def test_evaluation_takes_the_centre_of_each_video(grey):
  batch = evaluated(config(grey))
  assert numbers(batch)[:3].tolist() == [
      [4, 5, 6, 7], [4, 5, 6, 7], [5, 6, 7, 8]]
  assert batch['mask'].tolist() == [True] * 3 + [False] * 5


def test_evaluation_of_several_clips_keeps_videos_and_slices_whole(grey):
  made = config(grey, evaluation__clips=3, evaluation__split='train[:2]')
  batch = evaluated(made)
  assert numbers(batch)[:6].tolist() == [
      [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11],
      [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
  assert batch['index'][:6].tolist() == list(range(6))
  assert batch['group'][:6].tolist() == [0, 0, 0, 1, 1, 1]
  held_out = evaluated(config(grey, evaluation__clips=3,
                              evaluation__split='train[2:]',
                              data__split='train[:2]'))
  assert held_out['index'][:3].tolist() == [6, 7, 8]
  assert set(held_out['group'][:3]) == {2}


def test_an_unreadable_video_is_named_in_every_clip_of_it(grey):
  made = config(grey, evaluation__clips=2, data__skip_unreadable=True)
  for one in (made, config(grey)):
    data.check(one)
  (grey / '1.mp4').write_bytes(b'')  # After it was indexed.
  batches = data.eval_batches(made, images.sharding())
  (batch,) = batches
  assert batch['mask'][:6].tolist() == [True, True, False, False, True, True]
  assert {name.rpartition('/')[2]: n
          for name, n in batches.unreadable.items()} == {'1.mp4': 2}
  counts = np.bincount(data.host_batch(made, 0)['index'], minlength=3)
  assert counts[1] == 0 and counts[2] > counts[0]
  with pytest.raises(data.UnreadableError, match='1.mp4'):
    data.host_batch(config(grey), 0)


def test_other_clips_are_another_evaluation(grey):
  first = data.fingerprint(config(grey), 'evaluation')
  assert first == data.fingerprint(config(grey), 'evaluation')
  for change in (dict(data__stride=2), dict(data__frame_rate=5.),
                 dict(evaluation__clips=2), dict(frames=2)):
    assert first != data.fingerprint(config(grey, **change), 'evaluation')
  # What a run trains on is a matter of its config.
  assert (data.fingerprint(config(grey), 'train')
          == data.fingerprint(config(grey, data__stride=2), 'train'))


def test_clips_that_are_also_trained_on_are_noticed(grey, caplog):
  data.check(config(grey, data__split='train[:2]',
                    evaluation__split='train[2:]', evaluation__clips=4))
  assert not caplog.records
  data.check(config(grey, data__split='train[:2]',
                    evaluation__split='train[1:]', evaluation__clips=4))
  assert len(caplog.records) == 1


@pytest.mark.parametrize('key, changes', [
    ('data.stride', dict(data__frame_rate=8., data__stride=2)),
    ('data.frames', dict(data__sources=('photographs',))),
    ('evaluation.clips', dict(evaluation__clips=2,
                              evaluation__source='photographs',
                              evaluation__split='test'))])
def test_what_cannot_work_is_refused_by_its_key(grey, key, changes):
  with pytest.raises(errors.InputError) as caught:
    data.check(config(grey, **changes))
  assert caught.value.key == f'config.{key}'


def test_a_frame_rate_needs_sources_that_know_times(grey, tmp_path):
  writer = records.writer(tmp_path / 'a.array_record')
  writer.write(records.pack(films.images(6)))
  writer.close()
  made = config(grey, data__frame_rate=8.,
                evaluation__source=f'array_record:{tmp_path}')
  with pytest.raises(errors.InputError, match='does not say when') as caught:
    data.check(made)
  assert caught.value.key == 'config.data.frame_rate'
  assert str(tmp_path) in caught.value.reason
