"""Numbers of features on a subset, their protocol, and the originals' cache."""

import jax
import numpy as np
import pytest

from tests import films, runs, stand_ins
from vitok import data
from vitok.interop import weights
from vitok.metrics import (
    features,
    frechet,
    moments,
    protocol,
    reconstruction,
    table,
)
from vitok.tasks import feature_numbers

NAMES = ('rfid', 'rfid_infinity', 'rkid')


@pytest.fixture
def place(tmp_path, monkeypatch):
  stand_ins.install(monkeypatch, tmp_path / 'weights')
  return tmp_path


def measure(place, names=NAMES, originals=True, data_=None, **changes):
  """Of the examples in negative, which stand for a reconstruction."""
  config = runs.tiny(**{'evaluation__reference': str(place / 'cache')} | {
      f'evaluation__{key}': value for key, value in changes.items()}
                     | (data_ or {}))
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  matrix = weights.load('inception_fid')['w']

  def made(batch):
    row = {name: np.asarray(batch[name]) for name in ('mask', 'index', 'group')}
    return jax.device_get(reconstruction.pair(
        batch['image'], -batch['image'])), row
  seen = []

  def features_of(network, image):
    assert network == 'inception_fid'
    seen.append(image)
    if not originals:  # Else their order is made, original, made, ...
      assert len(seen) <= len(batches), 'the originals went through it again'
    return stand_ins.features(matrix, image, np)
  batches = data.eval_batches(config, sharding).spread(
      feature_numbers.examples(config).evaluation.count)
  values, definitions, absent, _ = feature_numbers.measure(
      config, names, batches, made, features_of)
  measured = protocol.Protocol.from_config(
      config, config.evaluation.count,
      data.fingerprint(config, 'evaluation'), definitions)
  return values, measured, absent


def test_features_of_some_examples_are_as_if_no_more_were_evaluated(place):
  some, fewer, _ = measure(place, features=8)
  all_, few, _ = measure(place, count=8)
  every, more, _ = measure(place, features=100)  # There are 24.
  assert some == all_ != every
  assert fewer.of('rfid') == few.of('rfid') != more.of('rfid')
  assert fewer.of('rfid').count == 8 and more.of('rfid').count == 24
  assert fewer.of('psnr') == more.of('psnr') != few.of('psnr')
  assert protocol.Protocol.from_json(fewer.to_json()) == fewer


def test_a_number_without_enough_examples_is_absent(place):
  values, measured, absent = measure(place, features=8)
  assert 'needs 20' in absent['rfid_infinity']
  assert set(measured.numbers) == {'rfid', 'rkid'}
  assert 'rfid_infinity' not in values
  values, _, absent = measure(place, features=1)
  assert set(absent) == set(NAMES) and not values


def test_originals_are_taken_once_and_a_damaged_file_is_replaced(place):
  first, *_ = measure(place)
  file, = (place / 'cache').iterdir()
  whole = file.read_bytes()
  assert measure(place, originals=False)[0] == first
  with pytest.raises(AssertionError, match='again'):  # Of other examples.
    measure(place, originals=False, features=10)
  file.write_bytes(whole[:100])
  assert measure(place)[0] == first
  assert file.read_bytes() == whole


def without(monkeypatch, record):
  """Evaluations from now on lack a record that became unreadable."""
  add = table.Table.add
  monkeypatch.setattr(table.Table, 'add', lambda self, columns, row: add(
      self, columns, dict(row, mask=row['mask'] & (row['index'] != record))))


def test_cached_originals_are_met_by_their_records(place, monkeypatch):
  measure(place)
  file, = (place / 'cache').iterdir()
  with np.load(file) as stored:
    without(monkeypatch, stored['index'][5])
  cached = measure(place, originals=False)[0]
  assert cached == measure(place, reference=str(place / 'other'))[0]


def test_a_record_without_a_cached_original_makes_its_numbers_absent(
    place, monkeypatch):
  measure(place)
  file, = (place / 'cache').iterdir()
  with np.load(file) as stored:
    arrays = dict(stored)
  arrays['index'] = arrays['index'] + 1
  np.savez(file, **arrays)
  values, _, absent = measure(place, names=('rfid',))
  assert not values
  assert f'record 0 is not among the cached originals; remove {file}' in (
      absent['rfid'])


def test_by_default_originals_lie_beside_the_weights(place):
  measure(place, reference='')
  assert len(list((place / 'weights' / 'references').iterdir())) == 1


def test_a_cache_that_cannot_be_written_stops_nothing(place):
  (place / 'cache').write_text('a file, no folder')
  assert 'rfid' in measure(place)[0]


def test_errors_are_of_examples_and_of_groups(place):
  values, *_ = measure(place, names=('rkid',))
  assert 0 < values['rkid_se'] != values['rkid_se_group'] > 0


@pytest.fixture
def clips(place):
  """Changes to a config that make its examples fourteen clips."""
  levels = np.random.default_rng(0).integers(0, 256, (80, 20, 20, 3), np.uint8)
  films.write(place / 'films/noise.mkv', levels, 'ffv1')
  return {'data__frames': 3, 'data__sources': f'videos:{place}/films',
          'data__split': 'train', 'evaluation__split': 'train',
          'evaluation__clips': 14}


def frames_distance(place, clips):
  """'rfid_frame' by its definition, of all features at once."""
  config = runs.tiny(**clips, evaluation__batch_size=14)
  batch, = data.eval_batches(
      config, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
  pair = jax.device_get(reconstruction.pair(batch['image'], -batch['image']))
  real, fake = (stand_ins.features(weights.load('inception_fid')['w'],
                                   pair[name], np)
                for name in ('original', 'made'))
  return np.mean([frechet.distance(*map(moments.Moments.of, (
      fake[:, t], real[:, t]))) for t in range(3)])


def test_frames_of_clips_are_compared_index_by_index_whatever_the_batches(
    place, clips):
  found = [measure(place, ('rfid_frame',), data_=clips, batch_size=size,
                   reference=str(place / f'cache {size}'))
           for size in (1, 7, 64)]
  assert found[0][0] == found[1][0] == found[2][0]
  assert found[0][1] == found[2][1] and not found[0][2]
  # Another order of sums in float64, of squares of about 1.
  assert found[0][0]['rfid_frame'] == pytest.approx(
      frames_distance(place, clips), rel=1e-9)


def test_moments_of_frames_are_taken_once_unless_clips_are_few(place, clips):
  first = measure(place, ('rfid_frame',), data_=clips)
  file, = (place / 'cache').iterdir()
  with np.load(file) as stored:
    assert stored['scatter'].shape == (3, stand_ins.FEATURES,
                                       stand_ins.FEATURES)
    assert 'features' not in stored
  assert measure(place, ('rfid_frame',), data_=clips,
                 originals=False)[0] == first[0]
  few = dict(data_=clips, count=2 * stand_ins.FEATURES - 1)
  assert 'rfid_frame' in measure(place, ('rfid_frame',), **few)[0]
  assert list((place / 'cache').iterdir()) == [file]


def test_moments_that_are_of_a_lost_record_too_make_a_number_absent(
    place, clips, monkeypatch):
  measure(place, ('rfid_frame',), data_=clips)
  file, = (place / 'cache').iterdir()
  with np.load(file) as stored:
    lost = stored['index'][5]
  add = features.Gathered.add
  monkeypatch.setattr(features.Gathered, 'add', lambda self, columns, row: add(
      self, columns, dict(row, mask=row['mask'] & (row['index'] != lost))))
  values, _, absent = measure(place, ('rfid_frame',), data_=clips)
  assert not values and absent['rfid_frame'] == (
      f'record {lost} alone is among the cached originals; remove {file}')
  file.unlink()
  assert measure(place, ('rfid_frame',), data_=clips)[0]
  assert not file.exists()
