"""A number carries its protocol, and two protocols are never compared."""

import dataclasses
import json
import subprocess
import sys

import pytest

from vitok import config as config_lib
from vitok import errors
from vitok.metrics import protocol


def _protocol(**changes):
  return dataclasses.replace(protocol.Protocol.from_config(
      config_lib.default(), count=50, data='0123abcd'), **changes)


def test_config_gives_the_protocol_of_its_evaluation():
  config = config_lib.override(config_lib.default(), {
      'data.sources': 'tfds:cifar10', 'data.resolution': 32,
      'evaluation.split': 'test[:10%]', 'evaluation.filter': 'lanczos3'})
  made = protocol.Protocol.from_config(config, count=1000, data='f')
  assert (made.source, made.split, made.crop, made.filter, made.resolution,
          made.frames, made.count) == (
              'tfds:cifar10', 'test[:10%]', 'center', 'lanczos3', 32, 1, 1000)
  config.evaluation.source = 'folder:/photos'
  assert protocol.Protocol.from_config(
      config, count=1, data='f').source == 'folder:/photos'


@pytest.mark.parametrize('change', [
    {'split': 'train'}, {'crop': 'none'},
    {'filter': 'bicubic'}, {'resolution': 128}, {'frames': 16},
    {'count': 49}, {'data': 'ffff'}, {'rounding': 'none'},
    {'psnr': 'pooled'}, {'ssim': 'uniform 7x7'}])
def test_every_field_changes_the_id_and_is_named_when_it_differs(change):
  ours, other = _protocol(), _protocol(**change)
  assert ours.id != other.id
  name, = change
  with pytest.raises(errors.InputError, match=f'^protocol.{name}=.*{name} is'):
    protocol.compare(ours, other)


def test_equal_protocols_compare_and_what_is_not_one_leaves_the_id_alone():
  config = config_lib.default()
  config.evaluation.batch_size = 7
  same = protocol.Protocol.from_config(config, count=50, data='0123abcd')
  assert same.id == _protocol().id
  protocol.compare(same, _protocol())


def test_equal_data_elsewhere_have_the_same_id():
  here, there = (_protocol(source=f'folder:/{disk}/photos') for disk in 'ab')
  assert here.id == there.id
  protocol.compare(here, there)


def _numbers(**changes):
  """Of an evaluation with a network, all of whose fields can be changed."""
  return {'rfid': dataclasses.replace(protocol.Definition(
      rule='Frechet', network='inception_fid', weights='0' * 64,
      resize='bilinear to 299', reference='originals'), **changes)}


def test_what_needs_no_network_has_the_id_it_always_had():
  fields = dict(source='photographs', split='test', crop='center',
                filter='antialias', resolution=64, frames=1, count=50,
                data='abc')
  made = protocol.Protocol(**fields)
  assert made.id == '5a7788e789ca'
  more = protocol.Protocol(**fields, numbers=_numbers())
  assert more.id != made.id
  assert more.of('psnr') == more.of('ssim') == made.of('psnr') == made


@pytest.mark.parametrize('change', [
    {'rule': 'else'}, {'network': 'inception_torchvision'},
    {'weights': '1' * 64}, {'resize': 'corners aligned'},
    {'reference': '0123456789ab'}])
def test_every_part_of_a_definition_counts_and_is_named(change):
  ours, other = _protocol(numbers=_numbers()), _protocol(
      numbers=_numbers(**change))
  name, = change
  with pytest.raises(errors.InputError, match=f'^protocol.rfid.{name}='):
    protocol.compare(ours, other)
  with pytest.raises(errors.InputError, match=f'^protocol.rfid.{name}='):
    protocol.compare(ours.of('rfid'), other.of('rfid'))
  protocol.compare(ours.of('psnr'), other.of('psnr'))


def test_a_number_has_an_id_that_others_have_no_part_in():
  ours = _protocol(numbers=_numbers() | {'lpips': protocol.Definition('v0.1')})
  other = _protocol(numbers=_numbers(), ssim='uniform 7x7')
  assert ours.of('rfid').id == other.of('rfid').id
  assert ours.of('rfid').id != ours.of('lpips').id
  assert ours.of('rfid').id != _protocol(
      numbers=_numbers(), count=7).of('rfid').id
  with pytest.raises(errors.InputError, match='^protocol.lpips: .*one of the'):
    protocol.compare(ours, other)
  with pytest.raises(errors.InputError, match='number=.*rfids.*rfid'):
    ours.of('rfids')
  with pytest.raises(errors.InputError, match='number=.*rfid'):
    _protocol().of('rfid')


def test_json_holds_the_id_of_each_number():
  ours = _protocol(numbers=_numbers())
  stored = json.loads(ours.to_json())
  assert stored['ids']['psnr'] == _protocol().id
  assert stored['ids']['rfid'] == ours.of('rfid').id
  assert protocol.Protocol.from_json(ours.to_json()) == ours
  assert f'{"0" * 64}' in str(ours) and 'rfid.network' in str(ours)
  stored['ids']['rfid'] = stored['ids']['psnr']
  with pytest.raises(errors.InputError, match='protocol.ids'):
    protocol.Protocol.from_json(json.dumps(stored))
  stored['numbers']['rfid']['networks'] = ''
  with pytest.raises(errors.InputError, match='rfid.networks.*network'):
    protocol.Protocol.from_json(json.dumps(stored))


def test_numbers_of_other_samples_are_not_compared():
  """A generator's numbers are of samples, its loss of records."""
  def made(labels):
    samples = {name: dataclasses.replace(
        one, count=5000, data=f'samples of labels {labels}')
               for name, one in _numbers().items()}
    return _protocol(numbers=samples)
  assert protocol.Protocol.from_json(made('0..9').to_json()) == made('0..9')
  assert made('0..9').of('rfid').count == 5000
  protocol.compare(made('0..9').of('psnr'), made('3').of('psnr'))
  with pytest.raises(errors.InputError, match='protocol.data.*labels 3'):
    protocol.compare(made('0..9').of('rfid'), made('3').of('rfid'))


def test_all_differences_are_named():
  with pytest.raises(errors.InputError,
                     match='^protocol.crop.*count is 50 and 7, source is'):
    protocol.compare(_protocol(), _protocol(crop='none', count=7,
                                            source='folder:/photos'))


def test_json_round_trip_and_print_carry_the_id():
  ours = _protocol()
  assert protocol.Protocol.from_json(ours.to_json()) == ours
  assert ours.id in str(ours) and 'photographs' in str(ours)


def test_an_edited_file_is_refused():
  fields = json.loads(_protocol().to_json())
  with pytest.raises(errors.InputError, match='protocol.id'):
    protocol.Protocol.from_json(json.dumps({**fields, 'count': 9}))
  with pytest.raises(errors.InputError, match='protocol.corp.*crop'):
    protocol.Protocol.from_json(json.dumps({**fields, 'corp': 'x'}))
  for text in ('', '[1, 2]', '3'):
    with pytest.raises(errors.InputError, match='^protocol: is no JSON'):
      protocol.Protocol.from_json(text)
  del fields['crop']
  with pytest.raises(errors.InputError, match='protocol.crop: is missing'):
    protocol.Protocol.from_json(json.dumps(fields))


def test_protocols_and_tables_are_read_without_jax():
  subprocess.run([sys.executable, '-c', (
      'import sys; '
      'from vitok.metrics import numbers, protocol, reference, table; '
      'assert not {"jax", "tensorflow"} & set(sys.modules)')], check=True)
