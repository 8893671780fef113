"""State of each unit of a sweep, read from its workdir alone.

Needs neither JAX nor the process that trains, so that it can look at a sweep
on a cluster through a shared folder or `gs://`.
"""

import dataclasses
import json
import time
from collections.abc import Iterable

from etils import epath

from vitok.sweeps.experiment import DONE, FAILED, Experiment, Unit

STATES = ('pending', 'running', 'done', 'failed')
# A running unit writes its log at least this often, in seconds, unless it
# compiles or evaluates for longer.
SILENT = 600
# Whatever starts units again does so until they have failed this often: a disk
# or a network recovers, a loss that is not finite does not.
TRIES = 3


@dataclasses.dataclass(frozen=True)
class State:
  """One unit.

  Attributes:
    state: one of `STATES`. A unit that was stopped is 'pending' with a step;
      one that is after a failed one has failed with it.
    step: of its newest line, 0 before the first.
    steps: of the whole run.
    loss: of the newest line that has one, or None.
    psnr: of the newest evaluation in dB, or None.
    eta: seconds left, None where the rate is not known.
    error: why it failed or what it waits for, or ''.
    failures: how often it has failed.
    waits: whether it is after a unit that is not done.
  """
  unit: str
  state: str
  step: int
  steps: int
  loss: float | None = None
  psnr: float | None = None
  eta: float | None = None
  error: str = ''
  failures: int = 0
  waits: bool = False

  @property
  def ended(self) -> bool:
    """Whether starting it again is of no use."""
    return self.state == 'done' or (
        self.state == 'failed' and self.failures >= TRIES)


def read(experiment: Experiment, workdir,
         indices: Iterable[int] | None = None,
         now: float | None = None) -> list[State]:
  """The state of units, in their order.

  Args:
    experiment: whose units.
    workdir: of the sweep; it need not exist yet.
    indices: which units; all by default.
    now: seconds since the epoch; the present by default.

  Raises:
    InputError: there is no unit with such an index.
  """
  now = time.time() if now is None else now
  known, units = {}, {unit.name: unit for unit in experiment.units}

  def state(unit):
    if unit.name not in known:
      known[unit.name] = _behind(
          _one(experiment, unit, epath.Path(workdir) / unit.name, now),
          [state(units[name]) for name in unit.after])
    return known[unit.name]
  return [state(unit) for unit in experiment.select(indices)]


def _behind(state: State, before: list[State]) -> State:
  """The state of a unit, given those of the units that it is after."""
  # What failed for good comes first: no other one is worth waiting for.
  for one in sorted(before, key=lambda one: (-one.failures, not one.ended)):
    if one.state != 'done' and state.state == 'pending':
      failed = one.state == 'failed'
      return dataclasses.replace(
          state, state='failed' if failed else 'pending', waits=True,
          failures=one.failures, error=f'is after {one.unit}, which ' + (
              'has failed' if failed else 'is not done'))
  return state


def _one(experiment: Experiment, unit: Unit, folder, now) -> State:
  steps = experiment.resolve(unit).total_steps
  lines, written = _log(folder / 'metrics.jsonl')
  newest = {key: value for line in lines for key, value in line.items()}
  step = lines[-1]['step'] if lines else 0
  state = State(unit.name, 'pending', step, steps,
                newest.get('train/loss'), newest.get('eval/psnr'))
  if (folder / DONE).exists():
    return dataclasses.replace(state, state='done', eta=0.0)
  # FAILED outlives the next start, which writes the log anew.
  if (failed := _time(folder / FAILED)) and failed >= (written or 0):
    failure = json.loads((folder / FAILED).read_text())
    return dataclasses.replace(state, state='failed', error=failure['error'],
                               failures=failure['failures'])
  started = written or _time(folder / 'config.json')
  if started is not None and now - started < SILENT:
    return dataclasses.replace(state, state='running',
                               eta=_eta(lines, steps))
  return state


def _eta(lines, steps):
  """Seconds left by the rate between the last two lines with a clock."""
  timed = [(line['step'], sum(value for key, value in line.items()
                              if key.startswith('clock/')))
           for line in lines if any(key.startswith('clock/') for key in line)]
  if len(timed) < 2:
    return None
  # From the second line on: the first one's time is mostly compiling.
  (first, start), (last, end) = timed[1 if len(timed) > 2 else 0], timed[-1]
  rate = (last - first) / (end - start) if end > start else 0
  return (steps - last) / rate if rate > 0 else None


def _log(path):
  """Whole lines of a metrics.jsonl, and when it was written."""
  lines = []
  if not path.exists():
    return lines, None
  for line in path.read_text().splitlines():
    try:
      lines.append(json.loads(line))
    except ValueError:
      break  # A line that was cut off: nothing after it counts.
  return lines, _time(path)


def _time(path):
  return path.stat().mtime if path.exists() else None
