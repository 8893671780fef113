"""Reads arrays out of files that hold pickles, without running the files.

A pickle is a program. The readers here admit the few names that arrays need
and refuse all others; a TorchScript archive's code is not looked at.
"""

import collections
import io
import os
import pickle
import zipfile
from typing import Any

import numpy as np

from vitok import errors

_DTYPES = {'HalfStorage': 'f2', 'FloatStorage': 'f4', 'DoubleStorage': 'f8',
           'IntStorage': 'i4', 'LongStorage': 'i8', 'BoolStorage': '?'}
_MAX_MEMBER = 2**30  # Bytes; a network's largest array is far below it.


class _Unpickler(pickle.Unpickler):
  """Knows the names it is given, and no other."""

  def __init__(self, data, name, known, persistent_load=None):
    super().__init__(io.BytesIO(data))
    self._name, self._known = name, known
    if persistent_load:
      self.persistent_load = persistent_load

  def find_class(self, module, name):
    if (module, name) in self._known:
      return self._known[module, name]
    if module.split('.')[0] == '__torch__' and None in self._known:
      return self._known[None]
    raise errors.InputError(self._name, f'{module}.{name}',
                            'is not admitted in a file of arrays')


class _Object:
  """Stands for any TorchScript class: its attributes and nothing else."""

  def __setstate__(self, state):
    if not isinstance(state, dict):
      raise pickle.UnpicklingError('an object that is no set of attributes')
    self.attributes = state


def _ndarray(kind, shape, code):
  if kind is not np.ndarray:
    raise pickle.UnpicklingError('an array of a class of its own')
  return np.ndarray(shape, np.dtype(code))


def read_numpy(data: bytes, name: str) -> Any:
  """Unpickles containers of numpy arrays.

  Args:
    data: the pickle.
    name: what messages call it.

  Raises:
    InputError: it needs more than arrays, or is damaged.
  """
  rebuild = {('numpy', 'ndarray'): np.ndarray, ('numpy', 'dtype'): np.dtype}
  for core in ('numpy.core', 'numpy._core'):
    rebuild[f'{core}.multiarray', '_reconstruct'] = _ndarray
  return _run(_Unpickler(data, name, rebuild), name)


def read_torchscript(path: os.PathLike | str) -> dict[str, np.ndarray]:
  """Reads the tensors of a TorchScript archive.

  Args:
    path: a zip file as `torch.jit.save` writes it.

  Returns:
    {'module.submodule.weight': array} in the order of their definition.

  Raises:
    InputError: it is no such file, or is damaged.
  """
  path = os.fspath(path)
  try:
    with zipfile.ZipFile(path) as archive:
      root, = (name.removesuffix('/data.pkl') for name in archive.namelist()
               if name.count('/') == 1 and name.endswith('/data.pkl'))
      return _tensors(archive, root, path)
  except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
    if isinstance(error, errors.InputError):
      raise
    raise errors.InputError(path, None, 'is not a whole TorchScript archive '
                            f'({type(error).__name__}: {error})') from error


def _tensors(archive, root, path):

  def member(name):
    info = archive.getinfo(f'{root}/{name}')
    if info.file_size > _MAX_MEMBER:
      raise errors.InputError(path, info.filename, 'is too large')
    return archive.read(info)

  def storage(identifier):
    kind, dtype, key, *_ = identifier
    if kind != 'storage':
      raise pickle.UnpicklingError(f'a persistent {kind!r}')
    return np.frombuffer(member(f'data/{key}'), dtype)

  def tensor(data, offset, shape, strides, *_):
    if not shape:
      return data[offset].copy()
    reach = offset + sum((n - 1) * s for n, s in zip(shape, strides,
                                                     strict=True))
    if min(offset, *shape, *strides) < 0 or reach >= data.size:
      raise pickle.UnpicklingError('a tensor that leaves its storage')
    return np.lib.stride_tricks.as_strided(
        data[offset:], shape, [s * data.itemsize for s in strides]).copy()

  known = {('torch', kind): np.dtype(f'<{code}'.replace('<?', '?'))
           for kind, code in _DTYPES.items()}
  known['torch._utils', '_rebuild_tensor_v2'] = tensor
  known['collections', 'OrderedDict'] = collections.OrderedDict
  for kind in ('int', 'double', 'bool', 'tensor'):
    known['torch.jit._pickle', f'build_{kind}list'] = list
  known[None] = _Object
  module = _run(_Unpickler(member('data.pkl'), path, known, storage), path)
  return dict(_walk(module, ''))


def _walk(value, prefix):
  if isinstance(value, np.ndarray | np.generic):
    yield prefix, value
  elif isinstance(value, _Object):
    for name, attribute in value.attributes.items():
      yield from _walk(attribute, f'{prefix}.{name}' if prefix else name)


def _run(unpickler, name):
  try:
    return unpickler.load()
  except errors.InputError:
    raise
  except Exception as error:  # A damaged pickle fails in any way.
    raise errors.InputError(name, None, 'cannot be read '
                            f'({type(error).__name__}: {error})') from error


def read_state_dict(path: os.PathLike | str) -> dict[str, np.ndarray]:
  """Reads a PyTorch state dict, with PyTorch, which admits tensors only.

  Raises:
    InputError: PyTorch is not installed, or the file is no state dict.
  """
  path = os.fspath(path)
  try:
    import torch
  except ImportError as error:
    raise errors.InputError(path, None, 'needs PyTorch to be read; install '
                            'it with `pip install torch`') from error
  try:
    state = torch.load(path, map_location='cpu', weights_only=True)
    return {name: tensor.numpy() for name, tensor in state.items()}
  except Exception as error:  # Of several kinds, none documented.
    raise errors.InputError(path, None, 'is not a state dict '
                            f'({type(error).__name__}: {error})') from error
