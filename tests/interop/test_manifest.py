"""The manifest finds every kind of damage to a directory, and names it."""

import json

import pytest

from vitok.interop import manifest


@pytest.fixture
def directory(tmp_path):
  (tmp_path / 'params' / 'd').mkdir(parents=True)
  (tmp_path / 'opt').mkdir()
  (tmp_path / 'top').write_bytes(b'top')
  (tmp_path / 'params' / 'd' / 'array').write_bytes(bytes(range(256)))
  (tmp_path / 'opt' / 'array').write_bytes(b'moments')
  manifest.write(tmp_path)
  return tmp_path


def _flip_bit(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 4
  path.write_bytes(data)


def _truncate(path):
  path.write_bytes(path.read_bytes()[:-1])


def test_an_untouched_directory_verifies(directory):
  manifest.verify(directory)
  files = json.loads((directory / manifest.NAME).read_text())['files']
  assert set(files) == {'top', 'params/d/array', 'opt/array'}


@pytest.mark.parametrize('harm, reason', [
    (_flip_bit, 'params/d/array has changed'),
    (_truncate, 'params/d/array has 255 bytes, not 256'),
    (lambda path: path.unlink(), r'params/d/array cannot be read \(No such'),
])
def test_damage_is_named(directory, harm, reason):
  harm(directory / 'params' / 'd' / 'array')
  with pytest.raises(manifest.Damaged, match=reason):
    manifest.verify(directory)


@pytest.mark.parametrize('harm, reason', [
    (lambda path: path.unlink(), 'no manifest'),
    (_truncate, 'manifest is unreadable'),
    (lambda path: path.write_text('[]'), 'manifest is unreadable'),
    (lambda path: path.write_bytes(b'\xff\xfe'), 'manifest is unreadable'),
    (lambda path: path.unlink() or path.mkdir(), 'manifest is unreadable'),
])
def test_a_damaged_manifest_is_damage(directory, harm, reason):
  harm(directory / manifest.NAME)
  with pytest.raises(manifest.Damaged, match=reason):
    manifest.verify(directory)


def test_a_part_is_verified_without_the_rest_but_with_the_top(directory):
  _flip_bit(directory / 'opt' / 'array')
  manifest.verify(directory, ('params',))
  with pytest.raises(manifest.Damaged, match='opt/array'):
    manifest.verify(directory, ('params', 'opt'))
  _truncate(directory / 'top')
  with pytest.raises(manifest.Damaged, match='top has'):
    manifest.verify(directory, ('params',))
