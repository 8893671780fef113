"""Configs are read, overridden and stored without losing a type."""

import pathlib

import pytest

from vitok import config as config_lib
from vitok import errors, fields, sizes

ROOT = pathlib.Path(__file__).parents[1]


def test_a_stored_config_reads_back_equal():
  config = config_lib.override(config_lib.default(), {
      'optimizer.groups': ({'match': 'encoder/.*', 'frozen': True},),
      'data.sources': ('photographs', 'folder:/x'), 'data.weights': (1, 2)})
  again = config_lib.from_json(config_lib.to_json(config))
  assert config_lib.to_json(again) == config_lib.to_json(config)
  assert not config_lib.difference(config, again)


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('*.py')))
def test_every_config_file_has_the_fields_of_a_config(path):
  if path.stem == 'qlip':  # It names both towers at once.
    config = config_lib.load(f'{path}:B/16')
    assert sizes.from_config(config.model) == sizes.parse('B-B/1x16x28')
    return
  name = 'B-L/16'  # Letters that every table of sizes has.
  config = config_lib.load(f'{path}:{name}')
  if config.task == 'generation':
    assert config.dit.name == name
  else:
    size = sizes.from_config(config.model)
    assert size == (sizes.parse_v2 if path.stem == 'vitok_v2' else
                    sizes.parse)(name)


def test_strings_take_the_type_of_the_field():
  config = config_lib.override(config_lib.default(), {
      'batch_size': '32', 'ema_decay': '0', 'model.scan': 'False',
      'data.sources': 'photographs', 'data.crop_scale': '(0.5, 1)'})
  assert config.batch_size == 32 and config.ema_decay == 0.0
  assert isinstance(config.ema_decay, float) and config.model.scan is False
  assert config.data.sources == ('photographs',)
  assert config.data.crop_scale == (0.5, 1)


def test_elements_of_a_tuple_take_their_type_and_no_other():
  config = config_lib.override(config_lib.default(), {'data.weights': (1, 2)})
  assert [type(weight) for weight in config.data.weights] == [float, float]
  with pytest.raises(errors.InputError, match='data.sources=1'):
    config_lib.override(config, {'data.sources': ('photographs', 1)})


def test_every_tuple_says_what_it_holds():
  tuples = {f'config.{key}' for key, value in config_lib.flatten(
      config_lib.default()).items() if isinstance(value, tuple)}
  assert tuples == set(fields.ELEMENTS)


def test_flags_are_split_from_the_rest_in_both_forms():
  changes, rest = config_lib.split_flags(
      ['--workdir=w', '--config=c.py', '--config.a.b=1=2', '--config.c', 'x'])
  assert changes == {'a.b': '1=2', 'c': 'x'}
  assert rest == ['--workdir=w', '--config=c.py']


def test_only_the_listed_fields_may_differ_between_sessions_of_a_run():
  old, new = config_lib.default(), config_lib.default()
  config_lib.override(new, {'mesh.fsdp': 8, 'logging.every': 1,
                            'data.workers': 4, 'checkpoint.every': 7})
  assert not config_lib.difference(old, new)
  config_lib.override(new, {'seed': 3})
  assert config_lib.difference(old, new) == {'seed': (0, 3)}


def test_a_config_file_that_fails_is_named_with_its_error(tmp_path):
  path = tmp_path / 'c.py'
  path.write_text('def get_config():\n  return 1 / 0\n')
  with pytest.raises(errors.InputError, match='ZeroDivisionError'):
    config_lib.load(str(path))
