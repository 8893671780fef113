"""Files with pickles are read, and what they ask for is not done."""

import collections
import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from vitok import errors
from vitok.interop import pickles


class Call:
  """Unpickled, it calls a function."""

  def __init__(self, function, *arguments):
    self.reduced = function, arguments

  def __reduce__(self):
    return self.reduced


def archive(path, data, **members):
  with zipfile.ZipFile(path, 'w') as out:
    out.writestr('root/data.pkl', data)
    for name, content in members.items():
      out.writestr(f'root/data/{name.strip("_")}', content)
  return path


@pytest.mark.parametrize('protocol', [3, 4])
def test_nested_arrays_are_read(protocol):
  rng = np.random.default_rng(0)
  tree = {'conv': {'kernel': rng.normal(size=(3, 4)).astype('f4'),
                   'bias': np.asfortranarray(rng.normal(size=(2, 3)))}}
  read = pickles.read_numpy(pickle.dumps(tree, protocol), 'a file')
  for name, array in tree['conv'].items():
    np.testing.assert_array_equal(read['conv'][name], array)


def test_calls_are_refused_and_not_made(tmp_path):
  made = tmp_path / 'made'
  attacks = {
      'posix.system': Call(os.system, f'touch {made}'),
      'builtins.eval': Call(eval, f'open({str(made)!r}, "w")'),
      'numpy.load': Call(np.load, str(made)),
      'collections.OrderedDict': collections.OrderedDict(),
  }
  for name, attack in attacks.items():
    with pytest.raises(errors.InputError, match=f'{name}.*not admitted'):
      pickles.read_numpy(pickle.dumps({'a': attack}), 'a file')
  for name in ('posix.system', 'builtins.eval'):
    data = pickle.dumps(attacks[name])
    with pytest.raises(errors.InputError, match='not admitted'):
      pickles.read_torchscript(archive(tmp_path / 'a.pt', data))
  assert not made.exists()


class _Storages(pickle.Pickler):

  def persistent_id(self, value):
    return value.name if isinstance(value, Storage) else None


class Storage:

  def __init__(self, *name):
    self.name = name


@pytest.mark.parametrize('offset, shape, strides', [
    (1, (4,), (1,)), (-1, (2,), (1,)), (0, (2, 2), (3, 1)), (3, (2,), (-1,))])
def test_a_tensor_cannot_leave_its_storage(tmp_path, offset, shape, strides):
  data = io.BytesIO()
  storage = Storage('storage', np.dtype('f4'), '0', 'cpu', 4)
  pickler = _Storages(data, 2)
  call = Call(pickles.read_numpy, storage, offset, shape, strides)
  pickler.dump(call)
  data = data.getvalue().replace(b'cvitok.interop.pickles\nread_numpy',
                                 b'ctorch._utils\n_rebuild_tensor_v2')
  data = data.replace(b'cnumpy\ndtype', b'ctorch\nFloatStorage', 1)
  path = archive(tmp_path / 'a.pt', data, _0=np.zeros(4, 'f4').tobytes())
  with pytest.raises(errors.InputError, match='cannot be read|leaves'):
    pickles.read_torchscript(path)


@pytest.mark.parametrize('content', [b'', b'PK\3\4 and no more'])
def test_no_archive_is_refused_in_one_line(tmp_path, content):
  path = tmp_path / 'a.pt'
  path.write_bytes(content)
  with pytest.raises(errors.InputError, match='a.pt'):
    pickles.read_torchscript(path)


def test_a_damaged_pickle_is_refused():
  whole = pickle.dumps({'a': np.zeros(100)})
  with pytest.raises(errors.InputError, match='cannot be read'):
    pickles.read_numpy(whole[:-50], 'a file')
