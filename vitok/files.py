"""Files that appear whole or not at all, locally and on `gs://`."""

import contextlib
import os
import socket

from etils import epath


def write_bytes(path: os.PathLike | str, data: bytes,
                replace: bool = True) -> None:
  """Writes a file atomically; makes its folder.

  Args:
    path: of the file.
    data: all of it.
    replace: or else a file that is there stays, also one that another process
      writes at the same moment (object stores cannot promise the latter).

  Raises:
    OSError: as the system's, but with the file, which a full disk names not.
  """
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  if not replace and path.exists():
    return
  if '://' in os.fspath(path):  # Object stores publish whole objects.
    path.write_bytes(data)
    return
  temporary = own_name(path)
  try:
    temporary.write_bytes(data)
    if replace:
      temporary.replace(path)
      return
    with contextlib.suppress(FileExistsError):
      os.link(temporary, path)
    temporary.unlink()
  except OSError as error:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
    if error.errno is None:  # Not the system's: it names the file.
      raise
    raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def own_name(path: os.PathLike | str) -> epath.Path:
  """A hidden name beside `path` that no other process of the job takes."""
  path = epath.Path(path)
  # Hosts that share a folder may share process ids as well.
  return path.with_name(
      f'.{path.name}.{socket.gethostname()}.{os.getpid()}.part')


def write_text(path: os.PathLike | str, text: str,
               replace: bool = True) -> None:
  """As `write_bytes`, of UTF-8 text."""
  write_bytes(path, text.encode(), replace)
