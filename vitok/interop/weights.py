"""Converted weights of published networks: a cache of safetensors files.

`python tools/fetch_weights.py NAME` fills it, or `tools/convert_weights.py NAME
--file=...` from a file at hand. It lies in the directory that the environment
variable VITOK_CACHE names, `~/.cache/vitok/weights` without it. A file holds
one tree of arrays, its names joined by '/', and in its metadata where the
arrays come from and the SHA-256 of their content. That hash names the network
in every number that was measured with it.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes as ml_dtypes  # Teaches NumPy to read bfloat16.
import numpy as np
import safetensors
import safetensors.numpy

from vitok import errors, files

CACHE_VARIABLE = 'VITOK_CACHE'

NAMES = {
    'lpips_vgg16': 'VGG16 (ImageNet) and the linear heads of LPIPS v0.1',
    'lpips_alexnet': 'AlexNet (ImageNet) and the linear heads of LPIPS v0.1',
    'inception_fid': "FID's Inception-v3 of 2015-12-05, 2048 features",
    'inception_fid_head': 'its 1008 classes, for the Inception score',
    'inception_torchvision': "torchvision's Inception-v3 (ImageNet)",
    'i3d': 'I3D (Kinetics-400), 400 logits, for FVD',
    'resnet50': 'ResNet50 (ImageNet), the Keras v1 form, with its classes',
}
# Converted from a file that the user downloads: nobody has recorded its hash.
REPOSITORIES = {
    f'dinov2_{size}{short}': f'facebook/dinov2-{long}{size}'
    for short, long in (('', ''), ('_registers', 'with-registers-'))
    for size in ('small', 'base', 'large', 'giant')}
NAMES |= {name: f'DINOv2, {repository} on the Hugging Face hub'
          for name, repository in REPOSITORIES.items()}


# NumPy lacks types that the format has: 8-bit floats end in an AttributeError.
_UNREADABLE = (safetensors.SafetensorError, AttributeError, TypeError)


@dataclasses.dataclass(frozen=True)
class Info:
  """What a converted file says of itself.

  Attributes:
    name: key of `NAMES`.
    source: where the arrays come from.
    sha256: of their names, types, shapes and bytes.
  """
  name: str
  source: str
  sha256: str


def cache_dir() -> pathlib.Path:
  """Where converted weights lie; need not exist."""
  given = os.environ.get(CACHE_VARIABLE)
  return pathlib.Path(given or '~/.cache/vitok/weights').expanduser()


def path_of(name: str) -> pathlib.Path:
  """The file of a network, whether or not it is there.

  Raises:
    InputError: no network has that name.
  """
  errors.one_of('weights', name, tuple(NAMES))
  return cache_dir() / f'{name}.safetensors'


def command(name: str) -> str:
  """What a user types to get a network."""
  if name in REPOSITORIES:
    return (f'python tools/convert_weights.py {name} '
            '--file=model.safetensors')
  return f'python tools/fetch_weights.py {name}'


def is_cached(name: str) -> bool:
  return path_of(name).is_file()


def describe(name: str) -> Info:
  """Reads source and hash of a network, and none of its arrays.

  Raises:
    InputError: the file is absent or cannot be read; says the command.
  """
  with _open(name) as file:
    return _info(name, file)


def load(name: str) -> dict[str, Any]:
  """Reads a network, and checks its arrays against their recorded hash.

  Args:
    name: key of `NAMES`.

  Returns:
    Nested dict of numpy arrays.

  Raises:
    InputError: the file is absent, cannot be read, was changed or holds no
      tree; says the command.
  """
  with _open(name) as file:
    info = _info(name, file)
    try:
      tensors = {key: file.get_tensor(key) for key in file.keys()}
    except _UNREADABLE as error:
      raise _refuse(name, f'cannot be read ({error})') from error
  found = content_sha256(tensors)
  if found != info.sha256:
    raise _refuse(name, f'content has SHA-256 {found}, recorded {info.sha256}')
  try:
    return nest(tensors)
  except ValueError as error:
    raise _refuse(name, f'holds no tree: {error}') from error


@contextlib.contextmanager
def fit(*names: str) -> Iterator[None]:
  """Applies a network within: arrays that are not its own are refused.

  A file may be whole and be another network's: that is seen where its arrays
  meet the network, when a program is traced and before it runs.

  Args:
    names: keys of `NAMES` that the arrays come from.

  Raises:
    InputError: the network found other shapes or names than its own.
  """
  from flax import errors as flax_errors  # The rest here needs no JAX.
  try:
    yield
  except (flax_errors.FlaxError, KeyError, TypeError) as error:
    raise _refuse(names[0], f'{" and ".join(names)}: the arrays are not those '
                  f'of the network ({error})') from error


def save(name: str, tree: Mapping[str, Any], source: str) -> Info:
  """Writes a network into the cache, whole or not at all.

  Args:
    name: key of `NAMES`.
    tree: nested dict of arrays.
    source: where they come from, in words.
  """
  tensors = flatten(tree)
  info = Info(name, source, content_sha256(tensors))
  files.write_bytes(path_of(name), safetensors.numpy.save(
      tensors, {'source': info.source, 'sha256': info.sha256}))
  return info


def read(path: os.PathLike | str) -> dict[str, np.ndarray]:
  """Arrays of somebody's safetensors file, as float32.

  Raises:
    InputError: there is no such file, or it is not one.
  """
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      return {name: file.get_tensor(name).astype(np.float32)
              for name in file.keys()}
  except (OSError, *_UNREADABLE) as error:
    raise errors.InputError(
        str(path), None, f'is no safetensors file that NumPy can read: {error}'
    ) from error


def flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, np.ndarray]:
  """{'a/b': array} of a nested dict of arrays; they become contiguous."""
  flat = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f'{prefix}{name}/')
    else:
      flat[prefix + name] = np.asarray(value, order='C')
  return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Inverse of `flatten`.

  Raises:
    ValueError: a name is that of an array and of a part of the tree.
  """
  tree = {}
  for name, value in flat.items():
    *path, leaf = name.split('/')
    node = tree
    for part in path:
      node = node.setdefault(part, {})
      if not isinstance(node, dict):
        raise ValueError(f'{name} is below an array')
    if leaf in node:
      raise ValueError(f'other arrays are below {name}')
    node[leaf] = value
  return tree


def content_sha256(tensors: Mapping[str, np.ndarray]) -> str:
  """Hash of arrays by name; does not depend on their order or file format."""
  digest = hashlib.sha256()
  for name, array in sorted(tensors.items()):
    digest.update(f'{name} {array.dtype} {array.shape}\n'.encode())
    digest.update(np.asarray(array, order='C').tobytes())
  return digest.hexdigest()


def _open(name):
  path = path_of(name)
  if not path.is_file():
    raise _refuse(name, f'the weights of {NAMES[name]} are not there')
  try:
    return safetensors.safe_open(path, framework='numpy')
  except (safetensors.SafetensorError, OSError) as error:
    raise _refuse(name, f'cannot be read ({error})') from error


def _info(name, file):
  metadata = file.metadata() or {}
  if not {'source', 'sha256'} <= set(metadata):
    raise _refuse(name, 'was not written by this program: it says neither '
                  'its source nor its SHA-256')
  return Info(name, metadata['source'], metadata['sha256'])


def _refuse(name, reason):
  return errors.InputError(str(path_of(name)), None, f'{reason}; get them with '
                           f'`{command(name)}`')
