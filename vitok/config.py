"""The config of a run: how it is read, and what is refused.

A config is an `ml_collections.ConfigDict`. `default()` has every field of
`vitok.fields`, which give each its type; a config file's `get_config(arg)`
starts from it; `--config.a.b=v` on the command line and an experiment's
overrides both go through `override`. `vitok.validation.check` then refuses
impossible values. All of this happens before a device is touched: none of these
modules imports JAX.
"""

import ast
import difflib
import importlib.util
import json
import math
import pathlib

import ml_collections

from vitok import errors, fields


def default():
  """A locked `ConfigDict` of all fields with the values of `vitok.fields`."""
  return ml_collections.ConfigDict(fields.FIELDS).lock()


def flatten(config, prefix=''):
  """{'model.name': 'S-B/16', ...}: the leaves of a config by dotted key."""
  leaves = {}
  for key, value in config.items():
    if isinstance(value, (dict, ml_collections.ConfigDict)):
      leaves.update(flatten(value, f'{prefix}{key}.'))
    else:
      leaves[prefix + key] = value
  return leaves


def override(config, changes):
  """Sets dotted keys of a config, each with the type that its field has.

  Args:
    config: a config as `default()` shapes it; changed in place.
    changes: {dotted key: value}. A string for a field of another type is read
      as a Python literal, as the command line gives it.

  Returns:
    `config`.

  Raises:
    errors.InputError: an unknown key (with the nearest one), a group of fields
      where one is meant, or a value of the wrong type.
  """
  for key, value in changes.items():
    known = flatten(config)
    if key not in known:
      if any(other.startswith(key + '.') for other in known):
        raise errors.InputError(f'config.{key}', None,
                                'is a group of fields, not a field',
                                next(f'config.{other}' for other in known
                                     if other.startswith(key + '.')))
      raise errors.InputError(f'config.{key}', None, 'no such field',
                              f'config.{_nearest_key(key, known)}')
    *groups, field = key.split('.')
    node = config
    for group in groups:
      node = node[group]
    node[field] = _typed(f'config.{key}', value, known[key])
  return config


def load(spec):
  """Reads a config file: `configs/vitok.py` or `configs/vitok.py:S-B/16`.

  Args:
    spec: path of a Python file that defines `get_config(arg)`, and after a
      colon the argument that it takes.

  Returns:
    The `ConfigDict` that `get_config` returns, locked.

  Raises:
    errors.InputError: no such file, a file that fails, or no `get_config`.
  """
  path, _, arg = spec.partition(':')
  module = load_module(path, '--config')
  if not hasattr(module, 'get_config'):
    raise errors.InputError('--config', path, 'defines no get_config(arg)')
  try:
    config = module.get_config(*([arg] if arg else []))
  except errors.InputError:
    raise
  except Exception as error:  # Whatever the user's function does wrong.
    raise errors.InputError(
        '--config', spec, f'fails: {type(error).__name__}: {error}'
    ) from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise errors.InputError(
        '--config', spec, f'get_config returns a {type(config).__name__}, not '
        'a ConfigDict', 'config = vitok.config.default(); ...; return config')
  expected, actual = set(flatten(default())), set(flatten(config))
  if expected != actual:
    odd = sorted(expected ^ actual)[0]
    raise errors.InputError('--config', path,
                            f'has other fields than a config: {odd}',
                            _nearest_key(odd, expected))
  return config.lock()


def load_module(path, key):
  """Runs a Python file that the user named; `key` is the flag to blame."""
  path = pathlib.Path(path)
  if not path.is_file():
    folder = path.parent if path.parent.is_dir() else pathlib.Path('.')
    near = errors.nearest(path.name, sorted(
        f.name for f in folder.glob('*.py')))
    raise errors.InputError(key, str(path), 'no such file',
                            near and str(folder / near))
  spec = importlib.util.spec_from_file_location(
      f'vitok_user_{path.stem}', path)
  if spec is None:
    raise errors.InputError(key, str(path), 'is not a Python file')
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except errors.InputError:
    raise
  except Exception as error:  # Whatever the user's file does wrong.
    raise errors.InputError(
        key, str(path), f'fails: {type(error).__name__}: {error}') from error
  return module


def to_json(config):
  """The resolved config as text: one field a line, keys sorted."""
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + '\n'


def read(path):
  """The config of the file `path` (`epath.Path`) that holds `to_json`'s."""
  try:
    return from_json(path.read_text(), str(path))
  except (OSError, UnicodeDecodeError) as error:
    raise errors.InputError(
        str(path), None, f'cannot be read: {error}') from error


def from_json(text, key='config.json'):
  """The config that `to_json` wrote; `key` names the file if it is unfit."""
  try:
    stored = json.loads(text)
    return override(default(), flatten(stored))
  except errors.InputError as error:
    raise errors.InputError(
        key, None, f'was written by another version: {error}') from error
  except (ValueError, AttributeError) as error:
    raise errors.InputError(key, None, f'is not a config: {error}') from error


def difference(old, new):
  """Fields in which two sessions of one run differ but must not.

  Returns:
    {dotted key: (old value, new value)}, without `MAY_DIFFER`.
  """
  old, new = flatten(old), flatten(new)
  return {
      key: (old.get(key), new.get(key)) for key in sorted(old | new)
      if old.get(key) != new.get(key)
      and not any(key == may or key.startswith(may + '.')
                  for may in fields.MAY_DIFFER)
  }


def split_flags(arguments):
  """Splits a command line into overrides and the rest.

  `--config.a.b=v` and `--config.a.b v` are overrides.

  Returns:
    ({dotted key: text}, the other arguments in their order).
  """
  changes, rest, waiting = {}, [], None
  for argument in arguments:
    if waiting is not None:
      changes[waiting], waiting = argument, None
    elif argument.startswith('--config.'):
      key, equals, value = argument.removeprefix('--config.').partition('=')
      if equals:
        changes[key] = value
      else:
        waiting = key
    else:
      rest.append(argument)
  if waiting is not None:
    raise errors.InputError(f'--config.{waiting}', None, 'has no value')
  return changes, rest


def _nearest_key(key, known):
  """The dotted key that was meant.

  In this order: a like one in the same group, the same field in another group,
  a field with these initials (lr), the likeliest.
  """
  def last(dotted):
    return dotted.rsplit('.', 1)[-1]
  group = key.rpartition('.')[0]
  siblings = difflib.get_close_matches(
      key, [other for other in known if other.rpartition('.')[0] == group],
      n=1, cutoff=0.85)
  same = [other for other in known if last(other) == last(key)]
  initials = [other for other in known if last(key) == ''.join(
      word[0] for word in last(other).split('_'))]
  return errors.nearest(key, siblings or same or initials or list(known))


def _typed(key, value, like):
  """`value` with the type of the field's present value, or a refusal."""
  kind = type(like)
  if isinstance(value, str) and kind is not str:
    try:
      value = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
      if kind is not tuple:  # A bare word is a tuple of one string.
        raise errors.InputError(
            key, value, f'is not of type {kind.__name__}', repr(like)
        ) from None
  if kind is tuple:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
      value = (value,)
    if isinstance(value, (list, tuple)):
      kind, example = fields.ELEMENTS[key]
      return tuple(_one(key, element, kind, example) for element in value)
  return _one(key, value, kind, like)


def _one(key, value, kind, example):
  """`value` as a `kind` (JSON's list is a tuple, an int also a float)."""
  if type(value) is int and value.bit_length() > 2000:  # Too long to print.
    raise errors.InputError(key, None, 'is too large a number', repr(example))
  if kind is tuple and isinstance(value, list):
    value = tuple(value)
  if kind is float and type(value) is int:
    value = float(str(value))  # Infinite, not an error, if it is too large.
  if type(value) is not kind:
    raise errors.InputError(
        key, value, f'is of type {type(value).__name__}, not {kind.__name__}',
        repr(example))
  if kind is float and not math.isfinite(value):
    raise errors.InputError(key, value, 'is not finite', repr(example))
  return value
