"""Numbers of generated clips, from the config to the log."""

import json

import jax
import numpy as np
import pytest

from tests import films, runs, stand_ins, tiny_run
from vitok import config as config_lib
from vitok import data, errors, evaluate, sample
from vitok.interop import weights
from vitok.metrics import frechet, image, moments, numbers
from vitok.tasks import feature_numbers

FRAMES = 2


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder with a tokenizer of clips and a 'dit' trained on its codes."""
  folder = tmp_path_factory.mktemp('clips')
  levels = np.random.default_rng(0).integers(0, 256, (60, 20, 20, 3), np.uint8)
  films.write(folder / 'films/noise.mkv', levels, 'ffv1')
  clips = {'model.name': 'A-A/1x8x4', 'model.positions': 'rope3d',
           'data.frames': FRAMES, 'data.sources': (f'videos:{folder}/films',),
           'data.split': 'train', 'evaluation.split': 'train',
           'evaluation.clips': 20}
  with tiny_run.tokenized(folder, **{
      key.replace('.', '__'): value for key, value in clips.items()}):
    tiny_run.train(config_lib.override(runs.tiny(
        tokenizer__workdir=str(folder / 'tokenizer')), tiny_run.DIT | clips | {
            'dit.width': 24, 'dit.positions': 'rope3d', 'evaluation.count': 9,
            'evaluation.numbers': ('gfid_frame',)}), folder / 'dit')
    yield folder


def test_clips_have_a_distance_of_each_frame_from_those_of_others(place):
  line, config = runs.lines(place / 'dit')[-1], config_lib.read(
      place / 'dit/config.json')
  made = sample.sample(place / 'dit', place / 'out', devices=jax.devices()[:1])
  assert made['images'].shape == (5, FRAMES, 16, 16, 3)
  originals = np.concatenate([
      np.asarray(image.to_uint8(batch['image']))[np.asarray(batch['mask'])]
      for batch in data.eval_batches(config, jax.sharding.SingleDeviceSharding(
          jax.devices()[0]))])
  fake, real = (stand_ins.features(weights.load('inception_fid')['w'], x, np)
                for x in (made['images'], originals))
  assert len(fake) == 5 and len(real) == 9
  expected = np.mean([frechet.distance(*map(moments.Moments.of, (
      fake[:, t], real[:, t]))) for t in range(FRAMES)])
  # Features of float32, whose products are summed in another order.
  assert line['eval/gfid_frame'] == pytest.approx(expected, rel=1e-4)
  assert line['eval/gfid_frame'] == line['eval/gfid_frame@1']


def test_the_reference_of_clips_has_a_protocol_and_is_taken_once(
    place, monkeypatch):
  stored = json.loads((place / 'dit/evaluation/protocol.json').read_text())
  reference = stored['numbers']['gfid_frame']['reference']
  file = place / 'weights/references' / f'{reference}.npz'
  with np.load(file) as arrays:
    said = json.loads(str(arrays['protocol']))
    assert said['id'] == reference and said['count'] == 9
    assert list(said['numbers']) == ['frame_moments']
  hits, made = [], feature_numbers.Originals.__init__

  def noted(self, *arguments):
    made(self, *arguments)
    hits.append(self.hit)
  monkeypatch.setattr(feature_numbers.Originals, '__init__', noted)
  # Samples do not depend on batches, and a level of 255 moves now and then.
  found = evaluate.evaluate(place / 'dit', devices=jax.devices()[:1], changes={
      'generation.batch_size': 3})
  assert hits == [True]
  assert found['metrics']['eval/gfid_frame'] == pytest.approx(
      runs.lines(place / 'dit')[-1]['eval/gfid_frame'], rel=1e-4)
  assert found['protocol']['ids'] == stored['ids']


@pytest.mark.parametrize('frames, name, nearest', [
    (1, 'gfid_frame', 'gfid'), (1, 'gfvd', 'gfid'), (16, 'gfid', 'gfid_frame'),
    (16, 'gkid', 'gfid_frame'), (16, 'gis', 'gfid_frame'),
    (16, 'gfid_frames', 'gfid_frame')])
def test_numbers_of_images_and_of_clips_are_told_apart(frames, name, nearest):
  with pytest.raises(errors.InputError, match=f'{name}.*choice: {nearest}$'):
    numbers.check_samples((name,), frames)
  numbers.check_samples((nearest,), frames)
