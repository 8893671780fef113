"""A folder of video files, and the index of their frames.

To know how many frames a file has, all its packets are read, once: the index
of a folder is kept in `$VITOK_CACHE/videos`, or `~/.cache/vitok/videos`, with
its SHA-256. A file whose size or date has changed is read again, and one that
could not be read is tried again.
"""

import fractions
import hashlib
import json
import os
import pathlib

import numpy as np
from absl import logging

from vitok import files as files_lib
from vitok.data import folders, video_file

_FORMAT = 1  # Of the stored index.


class Videos(folders.Files):
  """Video files of any format that FFmpeg decodes, a record each.

  One is readable if all of it can be read and its first frame decoded.
  """
  kind, medium = 'videos', 'video'
  moving = timed = True

  def endings(self):
    return video_file.ENDINGS

  def scan(self, root, files):
    """{file: (bytes, its timeline)}."""
    def stat(path):
      found = os.stat(path)
      return found.st_size, found.st_mtime_ns
    path = _folder() / f'{folders.hash_of(root)[:32]}.json'
    dated, stored = folders.in_threads(stat, root, files), _load(path)
    index = {file: stored[file] for file in dated
             if file in stored and stored[file][0] == dated[file]}
    new = [file for file in dated if file not in index]
    times = folders.in_threads(video_file.timeline, root, new)
    index |= {file: (dated[file], times[file]) for file in times}
    if times:
      _store(path, index)
    return {file: (date[0], times) for file, (date, times) in index.items()}

  def read(self, index, rng, choose=None):
    del rng
    times = self._read[index][1]
    numbers = (np.arange(len(times)) if choose is None
               else choose(len(times), times.seconds))
    return np.stack(list(video_file.frames(
        self.name(index), times, numbers.tolist()))), self._labels[index]


def _folder():
  given = os.environ.get('VITOK_CACHE')
  return pathlib.Path(given or '~/.cache/vitok', 'videos').expanduser()


def _load(path):
  """{file: ((bytes, date), timeline)}; {} if it is absent or damaged."""
  if not path.exists():
    return {}
  try:
    content = json.loads(path.read_text())
    if content['sha256'] != _sha256(content['index']):
      raise ValueError('its SHA-256 is another')
    if content['format'] != _FORMAT:
      return {}
    return {file: (tuple(date), video_file.Timeline(
        _numbers(stamps), _numbers(keys), fractions.Fraction(*unit), counted))
        for file, (date, stamps, keys, unit, counted)
        in content['index'].items()}
  except (OSError, ValueError, KeyError, TypeError) as error:
    logging.warning('%s: the index is made anew: %s', path, error)
    return {}


def _store(path, index):
  index = {file: (date, _listed(times.stamps), _listed(times.keys),
                  times.unit.as_integer_ratio(), times.counted)
           for file, (date, times) in index.items()}
  content = {'format': _FORMAT, 'sha256': _sha256(index), 'index': index}
  try:
    files_lib.write_text(path, json.dumps(content))
  except OSError as error:  # A read-only home: it works, slower.
    logging.warning('the index is not kept: %s', error)


def _listed(numbers):
  regular = isinstance(numbers, range)
  return {'regular': [numbers.start, numbers.stop, numbers.step]
          } if regular else list(numbers)


def _numbers(listed):
  return (range(*listed['regular']) if isinstance(listed, dict)
          else tuple(listed))


def _sha256(index):
  return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()
