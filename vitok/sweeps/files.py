"""Small files of a sweep's workdir: written whole or not at all."""

import os

from etils import epath

from vitok import errors


def write_text(path, text: str, key: str = '') -> None:
  """Writes a file that no reader sees half of, locally and on `gs://`.

  Args:
    path: of the file; its folder is made.
    text: what it holds.
    key: flag to blame if the file cannot be written.

  Raises:
    InputError: the folder or the file cannot be written.
  """
  path = epath.Path(path)
  part = path.parent / f'.{path.name}.{os.getpid()}'
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    if str(path).startswith('gs://'):  # An object appears when it is whole.
      path.write_text(text)
      return
    part.write_text(text)
    part.replace(path)
  except OSError as error:
    raise errors.InputError(
        key or str(path), str(path.parent),
        f'cannot be written: {error.strerror or error}') from error
