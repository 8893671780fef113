"""Folders of files as splits: images, and what `videos` shares with them."""

import concurrent.futures
import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import tqdm
from absl import logging
from PIL import Image

from vitok import errors
from vitok.data.records import NO_LABEL

# A folder with a subfolder of one of these names is split by its subfolders.
_SPLITS = ('train', 'test', 'validation', 'valid', 'val')
# Formats that Pillow recognises but does not decode by itself.
_STUBS = {'BUFR', 'EPS', 'GRIB', 'HDF5', 'MPEG', 'WMF'}


class Files:
  """Files of one medium below a folder, in the order of their paths.

  If the folder has a subfolder named as the split, that is the split. If it
  has none of the usual names, all its files are the split 'train', to be
  sliced: `train[:90%]` and `train[90%:]`. Files that cannot be read are left
  out of the index, counted and named, or refused.

  Subfolders of a split are its classes, numbered in the order of their names;
  a file in a subfolder's subfolder is of the outer one's class. A class that
  only another split has (of the usual names) is counted too, so that a class
  has one number in all of them.

  Attributes:
    fingerprint: hash of the index, and of the classes that it lacks.
    classes: number of subfolders with files; 0 if this split has none.
    unreadable: paths of the files left out.
  """
  kind = medium = ''  # Of source, and what its files hold: 'folder', 'image'.

  def __init__(self, where, split, resolution, skip_unreadable):
    del resolution
    kind, medium = self.kind, self.medium
    root = os.path.abspath(os.path.expanduser(where))
    if not os.path.isdir(root):
      raise errors.InputError('source', f'{kind}:{where}', 'no such folder',
                              nearest_path(kind, root))
    folders = sorted(e.name for e in os.scandir(root) if e.is_dir())
    named = [name for name in folders if name in _SPLITS]
    elsewhere = ()
    if split in folders:
      elsewhere = [os.path.join(root, name) for name in named if name != split]
      root = os.path.join(root, split)
    elif named or split != 'train':
      raise errors.InputError(
          'split', split, f'{kind}:{where} has no subfolder of that name; '
          f'found {listed("subfolder", folders)}',
          errors.nearest(split, named) if named
          else "'train[90%:]', with config.data.split='train[:90%]'")
    files, others = _walk(root, self.endings())
    if not files:
      raise errors.InputError('source', f'{kind}:{root}',
                              f'holds no {medium}; found '
                              + listed('other file', others))
    read = self.scan(root, files)
    self.unreadable = tuple(f for f in files if f not in read)
    self._root, self._files = root, [f for f in files if f in read]
    if self.unreadable and not (skip_unreadable and read):
      raise errors.InputError(
          'source', f'{kind}:{root}', f'of {len(files)} {medium}s cannot be '
          'read: ' + listed('file', self.unreadable),
          '--config.data.skip_unreadable=True' if read else None)
    for file in self.unreadable:
      logging.warning('unreadable, left out: %s', os.path.join(root, file))
    if self.unreadable:
      logging.warning('%d of %d %ss in %s are left out', len(self.unreadable),
                      len(files), medium, root)
    self._read = [read[file] for file in self._files]
    own = {_outer(file) for file in files} - {''}
    lacking = _lacking(own, elsewhere, self.endings()) if own else []
    numbers = {name: i for i, name in enumerate(sorted([*own, *lacking]))}
    self._labels = [numbers.get(_outer(file), NO_LABEL)
                    for file in self._files]
    self.classes = len(numbers)
    self.fingerprint = hash_of(*zip(self._files, self._read, strict=True),
                               *lacking)

  def endings(self) -> Collection[str]:
    """Of the names of files that hold the medium, lower case."""
    raise NotImplementedError

  def scan(self, root: str, files: Sequence[str]) -> dict[str, Any]:
    """{file: what the index says of it}, of those that can be read."""
    raise NotImplementedError

  def __len__(self):
    return len(self._files)

  def name(self, index):
    return os.path.join(self._root, self._files[index])

  def group(self, index):
    return index


class Images(Files):
  """Image files; one is readable if its header is."""
  kind, medium = 'folder', 'image'
  moving = timed = False

  def endings(self):
    Image.init()
    return {ending for ending, form in Image.EXTENSION.items()
            if form in Image.OPEN and form not in _STUBS}

  def scan(self, root, files):
    def size(path):
      with Image.open(path):
        return os.path.getsize(path)
    return in_threads(size, root, files)

  def read(self, index, rng, choose=None):
    del rng, choose
    with open(self.name(index), 'rb') as file:
      return file.read(), self._labels[index]


def in_threads(function: Callable[[str], Any], root: str,
               files: Iterable[str]) -> dict[str, Any]:
  """{file: function(its path)} of the files for which it does not fail."""
  def attempt(file):
    try:
      return function(os.path.join(root, file))
    except Exception:  # Whatever is wrong with it, it is unreadable.
      return None

  files = list(files)
  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    results = list(tqdm.tqdm(pool.map(attempt, files), f'index of {root}',
                             len(files), unit=' files', delay=2))
  return {file: result for file, result in zip(files, results, strict=True)
          if result is not None}


def hash_of(*parts: Any) -> str:
  """SHA-256 of what `repr` shows of them."""
  digest = hashlib.sha256()
  for part in parts:
    digest.update(repr(part).encode())
  return digest.hexdigest()


def listed(what: str, names: Sequence[str]) -> str:
  """'3 files (a, b, c)', shortened; 'no file'."""
  if not names:
    return f'no {what}'
  plural = what if len(names) == 1 else what.removesuffix('y') + (
      'ies' if what.endswith('y') else 's')
  more = ', ...' if len(names) > 5 else ''
  return f'{len(names)} {plural} ({", ".join(names[:5])}{more})'


def nearest_path(kind: str, path: str) -> str | None:
  """The entry most like a path, in the deepest folder of it that exists."""
  while not os.path.isdir(parent := os.path.dirname(path)):
    if parent == path:
      return None
    path = parent
  others = sorted(entry.name for entry in os.scandir(parent)
                  if entry.path != path
                  and (kind == 'array_record' or entry.is_dir()))
  near = errors.nearest(os.path.basename(path), others)
  return near and f'{kind}:{os.path.join(parent, near)}'


def _outer(file):
  """The outermost folder of a path, its class; '' if it is in none."""
  return file.rpartition(os.sep)[0].partition(os.sep)[0]


def _lacking(own, splits, endings):
  """Classes of other splits, the paths of folders, that are not among these."""
  return sorted({
      entry.name for split in splits for entry in os.scandir(split)
      if entry.is_dir() and entry.name not in own
      and _walk(entry.path, endings)[0]})


def _walk(root, endings):
  """Paths of such files below `root` in a fixed order, and of the others."""
  files, others, seen = [], [], {os.path.realpath(root)}
  for parent, folders, names in os.walk(root, followlinks=True):
    # A link may lead back to where it lies, or to what was read already.
    new = {os.path.realpath(os.path.join(parent, name)): name
           for name in sorted(folders, reverse=True)}
    folders[:] = sorted(new[path] for path in new.keys() - seen)
    seen |= new.keys()
    for name in sorted(names):
      known = os.path.splitext(name)[1].lower() in endings
      (files if known else others).append(
          os.path.relpath(os.path.join(parent, name), root))
  return files, others
