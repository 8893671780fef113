"""Files are whole or absent, whoever else writes them."""

import errno
import pathlib
import socket

import pytest
from etils import epath

from vitok import files


def test_what_is_written_is_read_and_nothing_else_is_left(tmp_path):
  files.write_text(tmp_path / 'a' / 'x.json', 'ü')
  files.write_text(tmp_path / 'a' / 'x.json', 'é')
  assert [path.name for path in (tmp_path / 'a').iterdir()] == ['x.json']
  assert (tmp_path / 'a' / 'x.json').read_text() == 'é'


def test_hosts_with_equal_process_ids_write_to_different_files(
    tmp_path, monkeypatch):
  """Else one host could publish the half that another has written."""
  written = []
  monkeypatch.setattr(type(epath.Path(tmp_path)), 'write_bytes', (
      lambda path, data: (written.append(path.name),
                          pathlib.Path(path).open('wb').write(data))))
  for host in ('a', 'b'):
    monkeypatch.setattr(socket, 'gethostname', lambda host=host: host)
    files.write_bytes(tmp_path / 'x', b'whole')
  assert len(set(written)) == 2
  assert [path.name for path in tmp_path.iterdir()] == ['x']


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_is_named_with_the_file(tmp_path, monkeypatch, number):
  def fail(path, data):
    raise OSError(number, 'no more')
  monkeypatch.setattr(type(epath.Path(tmp_path)), 'write_bytes', fail)
  with pytest.raises(OSError, match="no more: '[^']*/x'$") as raised:
    files.write_bytes(tmp_path / 'x', b'data')
  assert raised.value.errno == number
  assert type(raised.value) is type(OSError(number, ''))


def test_a_file_that_is_there_stays_if_asked(tmp_path, monkeypatch):
  files.write_text(tmp_path / 'x', 'first', replace=False)
  files.write_text(tmp_path / 'x', 'second', replace=False)
  # Another process may write between the look and the link.
  monkeypatch.setattr(type(epath.Path(tmp_path)), 'exists', lambda path: False)
  files.write_text(tmp_path / 'x', 'third', replace=False)
  assert (tmp_path / 'x').read_text() == 'first'
  assert [path.name for path in tmp_path.iterdir()] == ['x']
