"""The log of a run: metrics.jsonl, TensorBoard events, a line of progress."""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from vitok import errors, files

_FLUSH_SECONDS = 10.0


def to_stderr(line: str):
  print(line, file=sys.stderr, flush=True)


class MetricLog:
  """metrics.jsonl: one JSON object a line, each step once, in order.

  The file is rewritten whole at each flush: nothing is appended, so it may
  lie in an object store, and a killed run leaves whole lines only.

  Args:
    workdir: of the run.
    writes: whether this process writes the file; all of them keep the lines.
  """

  def __init__(self, workdir: epath.Path, writes: bool = True):
    self._writes = writes
    self.path = epath.Path(workdir) / 'metrics.jsonl'
    self.lines: list[dict[str, Any]] = []
    self._flushed_at, self._dirty = time.monotonic(), False
    if self.path.exists():
      self._read(self.path.read_bytes().splitlines())

  def _read(self, lines):
    """Keeps all lines but a last one that was cut off."""
    for number, line in enumerate(lines, 1):
      try:
        line = json.loads(line)
        int(line['step'])
      except (ValueError, KeyError, TypeError):
        if number < len(lines):
          raise errors.InputError(str(self.path), None, f'line {number} of '
                                  f'{len(lines)} is not of a log') from None
        self._dirty = True
        return
      self.lines.append(line)

  def drop_after(self, step: int):
    """Forgets the lines of steps after `step` (-1: all of them)."""
    kept = [line for line in self.lines if line['step'] <= step]
    self._dirty |= len(kept) < len(self.lines)
    self.lines = kept
    self.flush()

  def write(self, step: int, values: Mapping[str, float]):
    """Adds the line of `step`; flushed every few seconds."""
    if self.lines and self.lines[-1]['step'] >= step:
      raise ValueError(f'step {step} after step {self.lines[-1]["step"]}')
    self.lines.append({'step': step, **values})
    self._dirty = True
    if time.monotonic() - self._flushed_at > _FLUSH_SECONDS:
      self.flush()

  def flush(self):
    if self._dirty and self._writes:
      files.write_text(self.path, ''.join(
          json.dumps(line) + '\n' for line in self.lines))
    self._flushed_at, self._dirty = time.monotonic(), False


class TensorBoard:
  """clu's event writer. Imports TensorFlow, so it is made late and once."""

  def __init__(self, workdir: epath.Path):
    import tensorflow as tf  # Seconds: only runs that want events pay.
    tf.config.set_visible_devices([], 'GPU')  # Else it takes their memory.
    from clu import metric_writers
    self._writer = metric_writers.SummaryWriter(str(workdir))

  def write(self, step: int, values: Mapping[str, float]):
    self._writer.write_scalars(
        step, {k: v for k, v in values.items() if isinstance(v, int | float)})

  def close(self):
    self._writer.close()


class Progress:
  """A line on stderr now and then: step, loss, rate, time left, cost.

  Args:
    total: steps of the run.
    examples: examples per step.
    flops: of one step, by accounting.
    devices: among which the work is split.
    label: printed in front.
  """

  def __init__(self, total: int, examples: int, flops: float, devices: int,
               label: str = '', say: Callable[[str], None] = to_stderr):
    self._total, self._examples, self._flops = total, examples, flops
    self._devices, self._label, self._say = devices, label, say
    self._shown_at = -math.inf
    self._start: tuple[int, float] | None = None

  def __call__(self, step: int, values: Mapping[str, float],
               seconds: Mapping[str, float]):
    """Shows `step` if it is the last, or some seconds have passed."""
    now = time.monotonic()
    # Evaluation and saving are not part of the rate of training.
    busy = seconds['step'] + seconds['data']
    if self._start is None:
      self._start = (step, busy)
    if now - self._shown_at < 5 and step < self._total:
      return
    self._shown_at = now
    steps, spent = step - self._start[0], busy - self._start[1]
    rate = steps / spent if steps and spent > 0 else None
    parts = [f'{self._label}step {step}/{self._total}']
    for key, name, form in (('train/loss', 'loss', '.5f'),
                            ('train/autoencoder/loss', 'loss', '.5f'),
                            ('eval/psnr', 'PSNR', '.2f')):
      if key in values:
        parts.append(f'{name} {values[key]:{form}}')
    if rate:
      parts.append(f'{rate * self._examples:.0f} examples/s')
      parts.append(f'{duration((self._total - step) / rate)} left')
    spent_hours = sum(seconds.values()) * self._devices / 3600
    parts.append(f'{self._flops * step:.3g} FLOP in '
                 f'{spent_hours:.2g} device-hours')
    self._say(', '.join(parts))


def duration(seconds: float) -> str:
  """3725 -> '1h02m'."""
  seconds = round(seconds)
  if seconds < 60:
    return f'{seconds}s'
  if seconds < 3600:
    return f'{seconds // 60}m{seconds % 60:02d}s'
  return f'{seconds // 3600}h{seconds % 3600 // 60:02d}m'
