"""Files that appear whole or not at all, locally and on `gs://`."""

import os
import socket

from etils import epath


def write_bytes(path: os.PathLike | str, data: bytes) -> None:
  """Writes a file atomically; makes its folder."""
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  if '://' in os.fspath(path):  # Object stores publish whole objects.
    path.write_bytes(data)
    return
  # Hosts that share a folder may share process ids as well.
  temporary = path.with_name(
      f'.{path.name}.{socket.gethostname()}.{os.getpid()}.part')
  try:
    temporary.write_bytes(data)
    temporary.replace(path)
  except OSError:
    temporary.unlink(missing_ok=True)
    raise


def write_text(path: os.PathLike | str, text: str) -> None:
  """As `write_bytes`, of UTF-8 text."""
  write_bytes(path, text.encode())
