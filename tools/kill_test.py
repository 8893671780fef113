"""Kills training on purpose and asks whether anything was lost.

  python tools/kill_test.py --kills=30 [--stage=2] [--seed=0] [--workdir=DIR]

With `--stage=2` the run is a decoder against a discriminator, started from a
stage-1 run that is trained first.

Trains a small run without interruption. Then trains it again and again in real
processes (`python -m vitok.train`), SIGKILLs each at a random moment of a phase
that was chosen beforehand, restarts until the run is DONE, and compares with
the first: SHA-256 of parameters, optimizer, moving average and statistics,
every line of metrics.jsonl but its `clock/` keys, and per-image evaluations.
When a run is DONE before the kills are spent, another round begins.

Prints one line of JSON: kills by phase (none of the five may be zero), rounds,
hashes, and `equal`. Exit code 0 only if all agree and no phase was spared.

The phase is what the trainer writes into $VITOK_PHASE_FILE, but `mid-save` is
what the disk shows after the kill: a checkpoint that is half written or half
deleted. `report` is the end of a run: flushing, DONE, closing. The trainer is
held at the beginning of the phase aimed at until this program has seen it: a
busy machine makes it late, not blind.
"""

import collections
import hashlib
import json
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from vitok import errors
from vitok.interop import saved

DONE = 'DONE'
REQUIRED = ('compile', 'step', 'evaluation', 'mid-save', 'report')
_NAMES = dict(data='step', eval='evaluation')  # Of the trainer's clock.
_BUCKETS = dict(evaluation='eval')
_FIELDS = ('step', 'params', 'opt', 'ema', 'stats')
_POLL = 0.001  # Seconds.
_SHORT = 0.1  # Seconds; a phase as short is killed at its beginning.
_PATIENCE = 300  # Seconds until a silent process counts as hung.
CONFIG = {
    'seed': 3, 'total_steps': 48, 'batch_size': 4, 'ema_decay': 0.9,
    'data.resolution': 16, 'checkpoint.every': 8, 'evaluation.every': 14,
    'evaluation.count': 12, 'evaluation.batch_size': 6, 'evaluation.grid': 2,
    'evaluation.coded': 0,
    'logging.every': 1, 'logging.tensorboard': False,
    'optimizer.reference_batch': 0, 'optimizer.learning_rate': 1e-3,
}
# On top of it, with `init_from`.
STAGE2 = {
    'task': 'adversarial',
    'optimizer.groups': ({'match': '(encoder|bottleneck)/.*', 'frozen': True},),
    'adversarial.width': 1 / 64, 'adversarial.schedule.start': 10,
    'adversarial.schedule.ramp': 20, 'adversarial.r1': 1.0,
    'adversarial.lecam': 0.01, 'adversarial.optimizer.reference_batch': 0,
}


class Trainer:
  """Starts `vitok.train` on one workdir, watches and kills it."""

  def __init__(self, workdir, cache, changes):
    self.workdir, self._cache, self._changes = workdir, cache, changes
    self._phase_file = workdir.with_suffix('.phase')
    self._log = workdir.with_suffix('.log')
    self._stale = set()
    self.starts = 0

  def run(self, durations, target=None, visit=0, where=0.0):
    """Runs once, to the end or to its death.

    Args:
      durations: {phase: [seconds]}, filled with what is seen on the way.
      target: the phase in which to kill; None: never.
      visit: how many visits of that phase to let pass.
      where: in [0, 1), the moment, as a share of the phase's usual duration;
        0: at its very beginning.

    Returns:
      The phase in which it died, or None if it ended by itself.

    Raises:
      RuntimeError: it failed by itself, or hangs.
    """
    self.starts += 1
    self._stale = set(self._half())  # Of the last kill; not yet cleaned up.
    self._phase_file.unlink(missing_ok=True)
    hold = self._phase_file.with_name(
        f'{self._phase_file.name}.hold-{_BUCKETS.get(target, target)}')
    if target and visit == 0:
      hold.touch()
    env = dict(os.environ, JAX_PLATFORMS='cpu',
               VITOK_PHASE_FILE=str(self._phase_file),
               JAX_COMPILATION_CACHE_DIR=str(self._cache),
               JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
               JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES='-1')
    if target == 'compile':  # A real compilation, not a read from the cache.
      env['JAX_ENABLE_COMPILATION_CACHE'] = 'false'
    with self._log.open('w') as log:
      process = subprocess.Popen(
          [sys.executable, '-m', 'vitok.train', f'--workdir={self.workdir}',
           '--config=configs/vitok.py:A-A/8',
           *(f'--config.{key}={value}'
             for key, value in (CONFIG | self._changes).items())],
          env=env, stdout=log, stderr=log, start_new_session=True,
          cwd=pathlib.Path(__file__).parents[1])
    try:
      self._watch(process, durations, target, visit, where, hold)
    finally:
      if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
      process.wait()
      hold.unlink(missing_ok=True)
    if process.returncode == -signal.SIGKILL:
      return self._phase()
    if process.returncode or not (self.workdir / DONE).exists():
      raise RuntimeError(f'exit code {process.returncode}: '
                         f'{self._log.read_text()[-3000:]}')
    return None

  def _watch(self, process, durations, target, visit, where, hold):
    phase, since = 'start', time.monotonic()
    while process.poll() is None:
      now, before = time.monotonic(), phase
      phase = self._phase()
      if phase != before:
        durations[before].append(now - since)
        since = now
        if phase == target:
          if visit == 0:
            usual = statistics.median(durations[phase] or [0.05])
            if where and usual > _SHORT:  # Or it is over when we wake up.
              hold.unlink(missing_ok=True)
              time.sleep(where * usual)
            return
          visit -= 1
      if now - since > _PATIENCE:
        raise RuntimeError(f'{self.workdir} hangs in phase {phase}')
      time.sleep(_POLL)
    durations[phase].append(time.monotonic() - since)

  def _half(self):
    """(name, time of change) of each incomplete checkpoint on disk."""
    directory = self.workdir / saved.DIRECTORY
    try:
      return [(name, (directory / name).stat().st_mtime_ns)
              for name in saved.unfinished(directory)]
    except FileNotFoundError:
      return []  # Nothing yet, or renamed while we looked.

  def _phase(self):
    if set(self._half()) - self._stale:
      return 'mid-save'
    try:
      phase = self._phase_file.read_text()
    except FileNotFoundError:
      return 'start'
    return _NAMES.get(phase, phase)


def outcome(workdir):
  """What must not depend on kills: {'state': ..., 'metrics': ..., ...}."""
  state = {}
  for field in _FIELDS:
    try:
      tree, _, step = saved.restore_params(workdir, field=field)
    except errors.InputError:
      continue  # Nothing of this kind: no statistics, for one.
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
      sha.update(f'{path} {leaf.dtype} {leaf.shape}'.encode())
      sha.update(np.ascontiguousarray(leaf).tobytes())
    state[field] = sha.hexdigest()
  lines = [json.loads(line) for line in
           (workdir / 'metrics.jsonl').read_text().splitlines()]
  arrays = {}
  for path in sorted((workdir / 'evaluation').glob('*.npz')):
    with np.load(path) as file:
      arrays[path.name] = {
          name: hashlib.sha256(file[name].tobytes()).hexdigest()
          for name in file.files}
  done = json.loads((workdir / DONE).read_text())
  return dict(
      step=step, state=state, evaluations=arrays,
      metrics=[{key: value for key, value in line.items()
                if not key.startswith('clock/')} for line in lines],
      done={key: done[key] for key in ('step', 'metrics')},
      kept=sorted(path.name for path in
                  (workdir / saved.DIRECTORY).iterdir() if path.is_dir()))


def differences(expected, found):
  """Names of the parts of two outcomes that differ."""
  return [part for part in expected if expected[part] != found[part]]


def aim(counts, kills, rng):
  """The phase to kill in next; None when all kills are spent."""
  zero = [phase for phase in REQUIRED if not counts[phase]]
  left = kills - counts.total()
  if left > len(zero):
    return rng.choice(REQUIRED)
  return rng.choice(zero) if zero else None


def kill_until(kills, seed, workdir, say, stage=1):
  """Does it all; returns what is printed."""
  began = time.monotonic()
  rng = random.Random(seed)
  durations = collections.defaultdict(list)
  counts = collections.Counter(dict.fromkeys(REQUIRED, 0))
  cache, changes = workdir / 'cache', {}
  if stage == 2:
    source = Trainer(workdir / 'stage1', cache, {'total_steps': 8})
    source.run(collections.defaultdict(list))
    changes = STAGE2 | {'init_from': str(source.workdir)}
  first = Trainer(workdir / 'uninterrupted', cache, changes)
  first.run(durations)
  expected = outcome(first.workdir)
  say(f'uninterrupted: {time.monotonic() - began:.0f} s')
  starts, rounds, different, missed = 0, 0, {}, set()
  # The bound on rounds: a phase may be out of reach, and its zero is shown.
  while aim(counts, kills, rng) and rounds < kills + 2 * len(REQUIRED):
    trainer = Trainer(workdir / f'round{rounds}', cache, changes)
    while not (trainer.workdir / DONE).exists():
      target = aim(counts, kills, rng)
      visit = 0 if target in ('compile', 'report') else rng.randrange(2)
      # What was missed once may be shorter here than it was before.
      where = 0.0 if target in missed else rng.random()
      phase = trainer.run(durations, target, visit, where)
      if phase is None:
        missed.add(target)
      else:
        counts[phase] += 1
        say(f'round {rounds}: aimed at {target}, killed in {phase}')
    if bad := differences(expected, outcome(trainer.workdir)):
      different[f'round{rounds}'] = bad
    starts += trainer.starts
    rounds += 1
  return dict(
      equal=not different, kills=dict(counts), total=counts.total(),
      rounds=rounds, starts=starts, different=different,
      step=expected['step'], lines=len(expected['metrics']),
      state=expected['state'], seed=seed, stage=stage,
      seconds=round(time.monotonic() - began))


def main():
  parser = errors.Parser(prog='python tools/kill_test.py', description=__doc__)
  parser.add_argument('--kills', type=int, default=30)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--stage', type=int, default=1, choices=(1, 2))
  parser.add_argument('--workdir', type=pathlib.Path,
                      help='where to keep the runs; a temporary folder')
  with errors.exits_on_input_error():
    flags = parser.parse_args()

  def say(line):
    print(line, file=sys.stderr, flush=True)

  with tempfile.TemporaryDirectory() as temporary:
    workdir = (flags.workdir or pathlib.Path(temporary)).resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    result = kill_until(flags.kills, flags.seed, workdir, say, flags.stage)
  print(json.dumps(result))
  hit = all(result['kills'][phase] for phase in REQUIRED)
  return 0 if result['equal'] and hit else 1


if __name__ == '__main__':
  sys.exit(main())
