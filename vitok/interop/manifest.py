"""SHA-256 manifests: is a checkpoint on disk what was written there?

Orbax does not checksum array data: one flipped bit restores silently. A
manifest lists every file of a checkpoint directory with its size and digest.
It is written last and atomically, so its presence also says that the
checkpoint is complete.
"""

import hashlib
import json
from concurrent import futures

from etils import epath

from vitok import files as files_lib

NAME = 'manifest.json'
_CHUNK = 2**24  # Bytes; object stores want large reads.
_THREADS = 8  # hashlib releases the interpreter lock.


class Damaged(Exception):
  """A directory is not what its manifest says; the message is the reason."""


def write(directory: epath.PathLike) -> None:
  """Writes the manifest of `directory`, which must be complete by now."""
  directory = epath.Path(directory)
  names = sorted(_files(directory))
  with futures.ThreadPoolExecutor(_THREADS) as pool:
    digests = list(pool.map(lambda name: _digest(directory / name), names))
  files = {name: dict(bytes=size, sha256=digest)
           for name, (size, digest) in zip(names, digests, strict=True)}
  text = json.dumps(dict(files=files), indent=1)
  files_lib.write_text(directory / NAME, text)


def verify(directory: epath.PathLike, parts: tuple[str, ...] = ()) -> None:
  """Reads every file of `directory` and compares it with the manifest.

  Args:
    directory: of one checkpoint.
    parts: the subdirectories to read beside the files at the top; (): all. A
      reader of the parameters need not read the optimizer.

  Raises:
    Damaged: no manifest, an unreadable one, or the first file that differs.
  """
  directory = epath.Path(directory)
  try:
    files = json.loads((directory / NAME).read_text())['files']
    files = {name: (entry['bytes'], entry['sha256'])
             for name, entry in files.items()
             if not parts or name.split('/')[0] in (name, *parts)}
  except FileNotFoundError:
    raise Damaged('it has no manifest') from None
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise Damaged(f'its manifest is unreadable ({error!r})') from error

  def compare(name):
    size, digest = files[name]
    try:
      found, found_digest = _digest(directory / name)
    except OSError as error:
      return f'{name} cannot be read ({error.strerror or error})'
    if found != size:
      return f'{name} has {found} bytes, not {size}'
    return None if found_digest == digest else f'{name} has changed'

  with futures.ThreadPoolExecutor(_THREADS) as pool:
    reasons = [reason for reason in pool.map(compare, sorted(files)) if reason]
  if reasons:
    raise Damaged(reasons[0])


def _files(directory):
  """Names of all files below `directory`, with '/' between the levels."""
  for path in directory.iterdir():
    if path.is_dir():
      yield from (f'{path.name}/{name}' for name in _files(path))
    elif path.name != NAME and not path.name.startswith(f'.{NAME}'):
      yield path.name


def _digest(path):
  """(bytes, SHA-256) of a file."""
  sha, size = hashlib.sha256(), 0
  with path.open('rb') as file:
    while chunk := file.read(_CHUNK):
      sha.update(chunk)
      size += len(chunk)
  return size, sha.hexdigest()
