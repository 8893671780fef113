"""Batches are a pure function of the step, whoever makes them."""

import collections
import json

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from PIL import Image

from tests.multiprocess import launch
from vitok import config as config_lib
from vitok import data, errors
from vitok.data import pipeline, records

ROWS = PartitionSpec(('replica', 'fsdp'))


def config(**changes):
  return config_lib.override(config_lib.default(), {
      'batch_size': 16, 'data.resolution': 16, 'evaluation.batch_size': 16,
      **{key.replace('__', '.'): value for key, value in changes.items()}})


def sharding(replica=1, fsdp=1, tensor=1):
  mesh = jax.make_mesh((replica, fsdp, tensor), ('replica', 'fsdp', 'tensor'),
                       devices=jax.devices()[:replica * fsdp * tensor],
                       axis_types=(AxisType.Auto,) * 3)
  return NamedSharding(mesh, ROWS)


def take(made, steps, **kwargs):
  batches = data.train_batches(made, sharding(), **kwargs)
  try:
    return [jax.device_get(next(batches)) for _ in range(steps)]
  finally:
    batches.close()


def assert_same(a, b):
  assert a.keys() == b.keys() == {
      'image', 'mask', 'index', 'group', 'label'}
  for key in a:
    np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def folder(path, count, broken=()):
  for i in range(count):
    file = path / 'train' / f'{i:03}.png'
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(i).integers(0, 256, (24, 24, 3), np.uint8)
    Image.fromarray(noise).save(file)
    if i in broken:  # The header is whole, so the index does not show it.
      file.write_bytes(file.read_bytes()[:200])
  return dict(data__sources=(f'folder:{path}',), evaluation__split='train')


def test_batches_are_as_the_contract_says():
  (batch,) = take(config(), 1)
  assert batch['image'].shape == (16, 1, 16, 16, 3)
  assert batch['image'].dtype == np.float32
  assert -1 <= batch['image'].min() < -.5 < .5 < batch['image'].max() <= 1
  assert batch['mask'].all() and batch['mask'].dtype == bool
  assert batch['index'].dtype == batch['group'].dtype == np.int32


def test_labels_are_the_outer_folders_of_files_in_the_order_of_names(tmp_path):
  for i, name in enumerate(('wolf/a', 'bird/b', 'wolf/deep/c', 'd')):
    file = tmp_path / 'train' / f'{name}.png'
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (16, 16), (50 * i,) * 3).save(file)
  source = dict(data__sources=(f'folder:{tmp_path}',), batch_size=4,
                data__flip=False)
  batch = data.host_batch(config(**source), 0)
  shade = np.rint((batch['image'][:, 0, 0, 0, 0] + 1) * 127.5 / 50).astype(int)
  labels = dict(zip(shade.tolist(), batch['label'].tolist(), strict=True))
  assert labels == {0: 1, 1: 0, 2: 1, 3: -1}
  assert batch['label'].dtype == np.int32
  with pytest.raises(data.UnreadableError, match='label 1 of 1 classes'):
    data.host_batch(config(**source, diffusion__classes=1), 0)


def test_photographs_have_no_labels():
  assert (data.host_batch(config(), 0)['label'] == -1).all()


def test_resuming_at_any_step_continues_the_stream():
  whole = take(config(), 6)
  for start in (1, 4):
    for a, b in zip(whole[start:], take(config(), 6 - start, start=start),
                    strict=True):
      assert_same(a, b)


@pytest.mark.parametrize('shape', [(8, 1, 1), (1, 8, 1), (2, 2, 2), (4, 1, 2)])
def test_every_mesh_gets_the_same_batch(shape):
  batches = data.train_batches(config(), sharding(*shape), start=3)
  batch = next(batches)
  batches.close()
  assert batch['image'].sharding.is_equivalent_to(sharding(*shape), 5)
  assert_same(jax.device_get(batch), data.host_batch(config(), 3))


@pytest.mark.parametrize('processes', [2, 4, 16])
def test_processes_that_hold_some_rows_make_the_same_rows(processes):
  whole = data.host_batch(config(), 5)
  for first in range(processes):
    rows = range(first, 16, processes)
    assert_same({key: x[rows] for key, x in whole.items()},
                data.host_batch(config(), 5, rows))


def test_workers_make_the_same_batches_in_the_same_order():
  expected = take(config(), 5, start=2)
  for a, b in zip(expected, take(config(data__workers=2), 5, start=2),
                  strict=True):
    assert_same(a, b)


PROGRAM = '''
import hashlib, json, os
import numpy as np
from tests.data import test_pipeline as t
from vitok import data
out = {}
for name, shape in {'data': (8, 1, 1), 'tensor': (2, 2, 2)}.items():
  batches = data.train_batches(t.config(), t.sharding(*shape), start=1)
  for step in (1, 2):
    for shard in next(batches)['image'].addressable_shards:
      rows = range(16)[shard.index[0]]
      out[f'{step} {rows.start} {rows.stop}'] = hashlib.sha256(
          np.asarray(shard.data)).hexdigest()
  batches.close()
evaluation = data.eval_batches(t.config(evaluation__batch_size=60),
                               t.sharding(8))
print(json.dumps([out, len(evaluation), len(list(evaluation))]))
'''


def test_two_processes_make_what_one_makes():
  import hashlib
  held, steps = {}, set()
  for printed in launch.run(PROGRAM):
    rows, *counts = json.loads(printed.stdout.splitlines()[-1])
    held.update(rows)
    steps.add(tuple(counts))
  assert len(held) == 2 * (8 + 4) and len(steps) == 1
  for key, found in held.items():
    step, first, end = map(int, key.split())
    image = data.host_batch(config(), step)['image'][first:end]
    assert hashlib.sha256(image).hexdigest() == found, key


@pytest.mark.parametrize('count', [6, 5003])
def test_each_epoch_is_another_order_of_all_records(count):
  stream = pipeline._shuffled(range(10, 10 + count), 3).repeat()
  epochs = [[stream[i] for i in range(e * count, (e + 1) * count)]
            for e in range(4)]
  assert all(sorted(e) == list(range(10, 10 + count)) for e in epochs)
  assert len(set(map(tuple, epochs))) == 4


def test_augmentation_differs_by_row_step_and_seed(tmp_path):
  made = folder(tmp_path, 1) | {'data__crop_scale': (.1, 1.)}
  views = [data.host_batch(config(**made, seed=seed), step)['image']
           for step in (0, 1) for seed in (0, 1)]
  assert len({x.tobytes() for batch in views for x in batch}) > 60


def test_unaugmented_training_reads_the_records_themselves(tmp_path):
  made = config(**folder(tmp_path, 3), data__crop='center', data__flip=False,
                data__resolution=24)
  batch = data.host_batch(made, 0)
  for index, image in zip(batch['index'], batch['image'], strict=True):
    pixels = np.asarray(Image.open(tmp_path / 'train' / f'{index:03}.png'))
    np.testing.assert_array_equal(np.rint((image[0] + 1) * 127.5), pixels)


def test_mixtures_follow_their_weights_and_visit_every_record(tmp_path):
  for name, count in (('a', 4), ('b', 7)):
    folder(tmp_path / name, count)
  made = config(
      data__sources=tuple(f'folder:{tmp_path}/{n}' for n in 'ab'),
      data__weights=(.25, .75), evaluation__split='train')
  data.check(made)
  index = np.concatenate([data.host_batch(made, s)['index']
                          for s in range(7)])
  assert (index < 4).sum() == len(index) / 4
  counts = collections.Counter(index.tolist())
  assert all(counts[i] == 7 for i in range(4))
  assert all(counts[i] == 12 for i in range(4, 11))
  rows = [3, 8]
  assert_same({key: x[rows] for key, x in data.host_batch(made, 6).items()},
              data.host_batch(made, 6, rows))


@pytest.mark.parametrize('batch_size', [1, 7, 64])
def test_evaluation_is_padded_and_in_order(tmp_path, batch_size):
  made = config(**folder(tmp_path, 10), evaluation__batch_size=batch_size)
  batches = data.eval_batches(made, sharding())
  seen = [jax.device_get(b) for b in batches]
  assert len(seen) == len(batches) == -(-10 // batch_size)
  assert {len(b['mask']) for b in seen} == {batch_size}
  index = np.concatenate([b['index'] for b in seen])
  mask = np.concatenate([b['mask'] for b in seen])
  assert index[mask].tolist() == list(range(10)) and batches.count == 10
  assert not mask[10:].any() and (index[10:] == -1).all()
  again = [jax.device_get(b) for b in batches]
  for a, b in zip(seen, again, strict=True):
    assert_same(a, b)


def test_evaluation_batches_are_rounded_up_to_the_devices():
  batches = data.eval_batches(
      config(evaluation__batch_size=10, evaluation__count=20), sharding(2, 4))
  seen = [jax.device_get(b) for b in batches]
  assert [len(b['mask']) for b in seen] == [16, 16]
  assert sum(b['mask'].sum() for b in seen) == batches.count == 20


def test_evaluation_of_a_slice_keeps_the_numbers_of_the_split():
  made = config(evaluation__split='test[-5:]')
  (batch,) = data.eval_batches(made, sharding())
  assert batch['index'][:5].tolist() == list(range(359, 364))


def test_a_count_is_spread_over_the_split(tmp_path):
  """And not its first records, which are of the first classes of a folder."""
  made = config(**folder(tmp_path, 10), evaluation__count=4)
  (batch,) = data.eval_batches(made, sharding())
  assert batch['index'][batch['mask']].tolist() == [0, 2, 5, 7]


def test_a_count_of_all_records_is_the_whole_split(tmp_path):
  made = folder(tmp_path, 10)
  whole = data.fingerprint(config(**made))
  assert data.fingerprint(config(**made, evaluation__count=10)) == whole
  assert data.fingerprint(config(**made, evaluation__count=9)) != whole


def test_tiles_carry_their_photograph():
  groups = np.concatenate([b['group'][b['mask']] for b in map(
      jax.device_get, data.eval_batches(config(), sharding()))])
  assert set(groups.tolist()) == {5, 6}


def test_an_unreadable_record_stops_the_run_with_its_name(tmp_path):
  """And goes on stopping it: no batch follows that should not."""
  made = config(**folder(tmp_path, 40, broken=[7]), data__prefetch=1)
  batches = data.train_batches(made, sharding())
  good = 0
  with pytest.raises(data.UnreadableError, match='007.png: OSError') as first:
    while True:
      next(batches)
      good += 1
  with pytest.raises(data.UnreadableError) as second:
    next(batches)
  assert first.value is second.value and good < 3
  batches.close()
  with pytest.raises(data.UnreadableError, match='007.png'):
    list(data.eval_batches(made, sharding()))


@pytest.mark.parametrize('workers', [0, 1])
def test_unreadable_records_give_way_counted_and_named(tmp_path, workers):
  made = config(**folder(tmp_path, 6, broken=[2, 3, 5]), data__workers=workers,
                data__skip_unreadable=True, batch_size=12)
  batches = data.train_batches(made, sharding())
  counts = collections.Counter(next(batches)['index'].tolist())
  assert counts == {0: 4, 1: 2, 4: 6}  # Each twice; 2, 3 -> 4 and 5 -> 0.
  batches.close()
  read = {name.rpartition('/')[2]: n for name, n in batches.unreadable.items()}
  assert read.keys() == {'002.png', '003.png', '005.png'}
  assert read['002.png'] >= 2 and read['003.png'] >= 4


def test_unreadable_records_are_not_evaluated(tmp_path):
  made = config(**folder(tmp_path, 6, broken=[2]), data__skip_unreadable=True)
  batches = data.eval_batches(made, sharding())
  (batch,) = batches
  assert batch['mask'][:6].tolist() == [True, True, False, True, True, True]
  assert [n.rpartition('/')[2] for n in batches.unreadable] == ['002.png']


def test_nothing_readable_at_all_stops_the_run(tmp_path):
  made = config(**folder(tmp_path, 3, broken=[0, 1, 2]),
                data__skip_unreadable=True)
  with pytest.raises(data.UnreadableError):
    data.host_batch(made, 0)


def test_placing_a_batch_is_an_explicit_transfer():
  batches = data.train_batches(config(), sharding(8))
  next(batches)
  with jax.transfer_guard('disallow'):
    next(batches)
  batches.close()
  with pytest.raises(ValueError, match='closed'):
    next(batches)


def test_fingerprints_follow_the_records_and_not_how_they_are_read(tmp_path):
  first = data.fingerprint(config())
  assert first == data.fingerprint(config(batch_size=8, data__flip=False))
  assert first != data.fingerprint(config(evaluation__split='test[:9]'))
  other = config(data__split='train[:3]')
  assert first != data.fingerprint(other)
  assert (data.fingerprint(config(), 'evaluation')
          == data.fingerprint(other, 'evaluation'))


def test_array_records_are_read_in_full(tmp_path):
  writer = records.writer(tmp_path / records.file_name('d', 'train', 0, 1))
  for i in range(5):
    writer.write(records.pack(np.full((1, 16, 16, 3), i, np.uint8), i))
  writer.close()
  made = config(data__sources=(f'array_record:{tmp_path}',),
                evaluation__split='train')
  (batch,) = map(jax.device_get, data.eval_batches(made, sharding()))
  levels = np.rint((batch['image'][:5, 0, 0, 0, 0] + 1) * 127.5)
  assert levels.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize('key,value', [
    ('data.sources', ()), ('data.sources', ('photograph',)),
    ('data.weights', (1., 2.)), ('data.weights', (0.,)),
    ('data.weights', (-1.,)), ('data.split', 'valid'),
    ('data.split', 'train[:'), ('data.split', 'train[:0]'),
    ('data.split', 'train[:99]'), ('data.frames', 16), ('data.crop', 'centre'),
    ('data.filter', 'linear'), ('data.crop_scale', (0., 1.)),
    ('data.crop_scale', (.5, 1.1)), ('data.crop_scale', (1.,)),
    ('data.crop_ratio', (2., 1.)), ('evaluation.crop', 'random_resized'),
    ('evaluation.filter', 'area'), ('evaluation.source', 'folder:'),
    ('evaluation.split', 'validation')])
def test_what_cannot_work_is_refused_by_its_key(key, value):
  with pytest.raises(errors.InputError) as caught:
    data.check(config(**{key: value}))
  assert caught.value.key == f'config.{key}'


def test_evaluating_some_of_what_is_trained_on_is_said(tmp_path, caplog):
  made = dict(folder(tmp_path, 10), data__split='train[:90%]')
  for split, said in (('train[90%:]', 0), ('train[80%:]', 1),
                      ('train[:90%]', 1)):
    caplog.clear()
    data.check(config(**made | {'evaluation__split': split}))
    assert len(caplog.records) == said
