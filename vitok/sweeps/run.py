"""Runs units one after the other in one process, and whatever ends a sweep.

One process, because compiling and importing cost more than training where
models are small: units that differ only in seed, steps and learning rate share
a compiled step. A unit that is done is skipped, one that was stopped resumes,
one that fails is reported and the next one starts, unless it is after one that
is not done.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence

import jax
from etils import epath

from vitok import files, validation
from vitok.scaling import forecast
from vitok.sweeps import nulls, status, text
from vitok.sweeps import price as price_lib
from vitok.sweeps.experiment import DONE, FAILED, Experiment, Unit, record

# Compiled programs that are kept, with the weights of their frozen networks:
# units that share one stand side by side.
_KEPT = 2


@dataclasses.dataclass
class Outcome:
  """What became of the units that were to run.

  Attributes:
    done: names of finished units, those that were skipped as done included.
    failed: {name: the error in one line}.
    stopped: name of the unit in which a stop was asked for, or ''.
  """
  done: list[str] = dataclasses.field(default_factory=list)
  failed: dict[str, str] = dataclasses.field(default_factory=dict)
  stopped: str = ''


def run_units(experiment: Experiment, workdir, *,
              indices: Iterable[int] | None = None, train: Callable,
              say: Callable[[str], None] = print) -> Outcome:
  """Trains units in their order, in this process.

  Args:
    experiment: what to run.
    workdir: of the sweep; each unit lies below it.
    indices: which units; all by default.
    train: `training.trainer.train`, or what stands for it in a test.
    say: receives lines of progress.

  Raises:
    InputError: before the first unit starts, for an unknown index, a config
      that cannot run, units without a null model in common or off their
      budget, or a workdir of another sweep.
  """
  units = experiment.select(indices)
  configs = _check(experiment, units, workdir)
  record(experiment, workdir)
  costs = price_lib.shares(price_lib.write(experiment, workdir, say))
  outcome, programs = Outcome(), {}
  progress = _Progress([costs[unit.name] for unit in units], say)
  for number, (unit, config) in enumerate(zip(units, configs, strict=True)):
    folder = epath.Path(workdir) / unit.name
    if (folder / DONE).exists():
      progress.skip(number)
      outcome.done.append(unit.name)
      continue
    if reason := waits(workdir, unit):
      outcome.failed[unit.name] = reason
      say(f'{unit.name}: {reason}')
      continue
    progress.start()
    for signature in list(programs)[:-_KEPT]:
      del programs[signature]
    failures = _failures(folder)
    try:
      if unit.factors.get('role') == forecast.ROLE:
        forecast.write(workdir, unit.name, say)
      train(config, folder, programs=programs, say=progress.line,
            label=f'[{number + 1}/{len(units)} {unit.name}] ')
    except Exception as error:  # One unit's error must not stop the sweep.
      outcome.failed[unit.name] = _fail(folder, error, failures + 1)
      say(f'{unit.name} failed: {outcome.failed[unit.name]}')
      if jax.process_count() > 1:
        raise  # The other processes wait for this one: end the job.
      continue
    if not (folder / DONE).exists():  # It was asked to stop, and has saved.
      outcome.stopped = unit.name
      break
    (folder / FAILED).unlink(missing_ok=True)
    progress.end(number)
    outcome.done.append(unit.name)
  return outcome


def run_processes(experiment: Experiment, workdir, jobs: int,
                  command: Sequence[str],
                  say: Callable[[str], None] = print) -> dict[int, int]:
  """Shares the units out among `jobs` processes and waits for them.

  What is after other units starts when all of those have ended. Units are dealt
  out by price, the dearest first; those that share a compiled step go to one
  process together, if they are no more than its share. Where
  CUDA_VISIBLE_DEVICES lists at least as many devices as there are processes,
  each gets its share of them, and on Linux its share of the cores: a small
  model gains little from a second core, and XLA would start threads for all of
  them in every process. SIGTERM is passed on.

  Args:
    experiment: what to run.
    workdir: of the sweep.
    jobs: number of processes.
    command: that of one process, without `--index`.
    say: receives the lines that they print.

  Returns:
    {number of a process: its exit code} of those that did not end well; 1 may
    mean that a unit failed, which its own files say.
  """
  _check(experiment, experiment.units, workdir)
  record(experiment, workdir)
  costs = price_lib.shares(price_lib.write(experiment, workdir, say))
  lost, stopped = {}, threading.Event()
  for wave in experiment.waves():
    # SIGTERM kills a process that has not yet come to where it is handled.
    lost |= {number: code for number, code in enumerate(_run_wave(
        _deal(experiment, wave, costs, jobs), command, say, stopped))
             if code not in (0, -signal.SIGTERM)}
    if stopped.is_set():
      break
  return lost


def _run_wave(shares, command, say, stopped):
  """Exit codes of the processes that run one share of the units each."""
  processes, threads, count = [], [], len(shares)
  with _terminate_with_us(processes, stopped):
    for number, share in enumerate(shares):
      indices = ','.join(map(str, share))
      process = subprocess.Popen(
          [*command, f'--index={indices}'], stdout=subprocess.PIPE,
          stderr=subprocess.STDOUT, text=True, env=_environment(number, count))
      _give_cores(process.pid, number, count)
      processes.append(process)
      threads.append(threading.Thread(target=_pass_on,
                                      args=(process, number, say)))
      threads[-1].start()
    for thread in threads:
      thread.join()
    return [process.wait() for process in processes]


def waits(workdir, unit: Unit) -> str:
  """Why this unit cannot start yet, '' if all that it is after is done."""
  for name in unit.after:
    folder = epath.Path(workdir) / name
    if not (folder / DONE).exists():
      return f'is after {name}, which ' + (
          'has failed' if (folder / FAILED).exists() else 'is not done')
  return ''


def outcome_on_disk(experiment: Experiment, workdir) -> Outcome:
  """What became of all units, whoever ran them."""
  outcome = Outcome()
  for one in status.read(experiment, workdir):
    if one.state == 'done':
      outcome.done.append(one.unit)
    elif one.state == 'failed':
      outcome.failed[one.unit] = one.error
    else:
      outcome.stopped = outcome.stopped or one.unit
  return outcome


@contextlib.contextmanager
def exits_on_sigterm():
  """Between units nothing is unsaved: SIGTERM there ends the process with 0.

  The trainer puts its own handler in place while a unit trains.
  """
  before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


class _Progress:
  """Puts the time that the whole sweep still needs behind each line.

  The rate is what the units that this process finished were priced at over
  their time, with compiling and evaluating; before the first one nothing is
  promised.
  """

  def __init__(self, costs, say):
    self._costs, self._say = costs, say
    self._left = set(range(len(costs)))
    self._spent, self._bought, self._began = 0.0, 0.0, time.monotonic()

  def skip(self, number):
    self._left.discard(number)

  def start(self):
    self._began = time.monotonic()

  def end(self, number):
    self._spent += time.monotonic() - self._began
    self._bought += self._costs[number]
    self._left.discard(number)
    self._began = time.monotonic()

  def line(self, line):
    if self._bought and self._spent:
      rest = sum(self._costs[number] for number in self._left)
      seconds = rest * self._spent / self._bought
      seconds = max(0.0, seconds - (time.monotonic() - self._began))
      line += f' | sweep: {text.duration(seconds)} left'
    self._say(line)


def _check(experiment, units, workdir):
  """Configs of the units; refuses what would only fail when it runs."""
  nulls.check([experiment.resolve(unit) for unit in experiment.units])
  price_lib.check_budgets(experiment)
  configs = [experiment.resolve(unit, workdir) for unit in units]
  for unit in units:  # What it is after has yet to be made.
    validation.check(experiment.resolve(unit))
  return configs


def _failures(folder):
  """How often a unit has failed."""
  path = folder / FAILED
  return json.loads(path.read_text())['failures'] if path.exists() else 0


def _fail(folder, error, failures):
  """Writes FAILED beside the unit's files; returns the error in one line."""
  line = ' '.join(f'{type(error).__name__}: {error}'.split())
  print(traceback.format_exc(), file=sys.stderr, flush=True)
  with contextlib.suppress(OSError):  # The unit's folder may be what is wrong.
    files.write_text(folder / FAILED, json.dumps(
        {'error': line, 'failures': failures,
         'traceback': traceback.format_exc()}, indent=1) + '\n')
  return line


def _deal(experiment, wave, costs, jobs):
  """Indices of a wave for each process: those of one program together, unless
  they are more than its share, when the others would wait for it."""
  groups = {}
  for index in wave:
    unit = experiment.units[index]
    shared = {key: value for key, value in unit.overrides.items() if key not in
              ('seed', 'total_steps', 'optimizer.learning_rate')}
    groups.setdefault(json.dumps(shared, sort_keys=True), []).append(index)

  def cost(indices):
    return sum(costs[experiment.units[index].name] for index in indices)

  parts = []
  for group in groups.values():
    parts += ([group] if cost(group) <= cost(wave) / jobs
              else [[index] for index in group])
  shares = [[] for _ in range(min(jobs, len(parts)))]
  for part in sorted(parts, key=cost, reverse=True):
    min(shares, key=cost).extend(part)
  return [sorted(share) for share in shares]


def _environment(number, count):
  visible = [device for device in
             os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',') if device]
  if len(visible) < count:
    return None
  return os.environ | {'CUDA_VISIBLE_DEVICES': ','.join(visible[number::count])}


def _give_cores(pid, number, count):
  if not hasattr(os, 'sched_setaffinity'):
    return
  share = sorted(os.sched_getaffinity(0))[number::count]
  with contextlib.suppress(ProcessLookupError):  # It may have ended already.
    if share:
      os.sched_setaffinity(pid, share)


def _pass_on(process, number, say):
  for line in process.stdout:
    say(f'({number}) {line.rstrip()}')


@contextlib.contextmanager
def _terminate_with_us(processes, stopped):
  def pass_on(*_):
    stopped.set()
    for process in processes:
      process.terminate()
  before = signal.signal(signal.SIGTERM, pass_on)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)
