"""The one training loop.

Order at state n, a contract: evaluate n, save n, take the batch of step n,
update, then log the metrics of update n while update n + 1 runs. The line
`step: n` of metrics.jsonl holds the metrics of the update that made state n
and the evaluation of state n. Nothing in the loop waits for the device, except
to evaluate, to save, and at a logging step for the update before.
"""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from vitok import config as config_lib
from vitok import data, files, tasks, validation
from vitok.interop import saved
from vitok.training import checkpoints as checkpoints_lib
from vitok.training import clock as clock_lib
from vitok.training import divergence, provenance, starting, watchdog, writers
from vitok.training import preemption as preemption_lib
from vitok.training import program as program_lib

DONE = 'DONE'


class _Preempted(Exception):
  """A stop was asked for in the middle of an evaluation."""


def train(config: Any, workdir: Any, *, extend: bool = False,
          programs: dict[str, program_lib.Program] | None = None,
          say: Callable[[str], None] | None = None, label: str = ''
          ) -> dict[str, Any]:
  """Trains, or goes on training, the run of `workdir`.

  Args:
    config: the run's config (`vitok.config`).
    workdir: where everything is written; local or `gs://`.
    extend: whether `config.total_steps` may exceed that of the stored run.
    programs: compiled programs by signature, filled here: hand the same
      dictionary to several runs and they share what they can.
    say: receives lines of progress; stderr by default.
    label: printed in front of them.

  Returns:
    What `DONE` holds: {'step', 'metrics', 'seconds'}; or, if a stop was asked
    for, {'step', 'preempted': True}.

  Raises:
    errors.InputError: before a device is touched, for an unfit config.
    divergence.DivergedError: training diverged.
    data.UnreadableError: a record cannot be read.
    saved.CheckpointError, checkpoints.TreeMismatchError: see there.
  """
  clock = clock_lib.Clock()
  workdir = epath.Path(workdir)
  validation.check(config)
  config = config.copy_and_resolve_references()
  for group, key in ((config, 'init_from'), (config.tokenizer, 'workdir')):
    if group[key]:  # To go on from another folder is to go on.
      group[key] = str(saved.absolute(group[key]))
  validation.check_workdir(workdir, config, extend=extend)
  done = _read_done(workdir)
  if done is not None and done['step'] >= config.total_steps:
    return done
  with contextlib.ExitStack() as stack:
    preemption = stack.enter_context(preemption_lib.Preemption())
    run = _Run(config, workdir, programs if programs is not None else {},
               clock, preemption, say, label, stack)
    return run.loop()


class _Run:
  """The loop's variables; made and used by `train` alone.

  Attributes:
    made: metrics of the update that made the present state: on the device,
      read back from a checkpoint, or None at step 0.
    values: evaluation of the present state, {} if it was not evaluated.
    rewinds: [{'from', 'to' (steps), 'skipped' (batches), 'reason'}], how often
      the run has gone back; see `divergence`.
  """

  def __init__(self, config, workdir, programs, clock, preemption, say, label,
               stack):
    self.config, self.workdir = config, workdir
    self.clock, self.preemption = clock, preemption
    self.first_process = jax.process_index() == 0
    self.say = say or writers.to_stderr
    if not self.first_process:
      self.say = lambda line: None
    clock.enter('compile')
    task = tasks.build(config)
    # A network that was fetched meanwhile is not in an older program.
    signature = program_lib.signature(config) + ''.join(
        ref.content for ref in task.weights.values())
    if signature not in programs:
      programs[signature] = program_lib.Program(config)
    self.program = programs[signature]
    self.program.check_batch()
    self.arguments = self.program.run_arguments(config)
    self.evaluators = task.evaluators()
    self.checkpoints = checkpoints_lib.Checkpoints(workdir, config.checkpoint)
    stack.callback(self.checkpoints.close)
    self.cost = self.program.task.cost(self.program.mesh.size)
    self.log = writers.MetricLog(workdir, writes=self.first_process)
    stack.callback(self.log.flush)
    self.progress = writers.Progress(
        config.total_steps, config.batch_size,
        self.cost['flops']['train_step'] * config.batch_size,
        self.program.mesh.size, label, self.say)
    self.step, self.made, self.values = 0, None, {}
    self.origin = None  # Where `init_from` came from.
    self.rewinds, self.guard = [], divergence.Guard(config.divergence)
    self.batches = None
    self._place()
    self.tensorboard = None
    if self.first_process:
      self._write_description()
      if config.logging.tensorboard:
        with clock.at('start'):
          self.tensorboard = writers.TensorBoard(workdir)
          stack.callback(self.tensorboard.close)
    self._open_batches()
    stack.callback(lambda: self.batches.close())
    self.tracing = False
    stack.callback(self._stop_trace)
    stack.enter_context(watchdog.Watchdog(
        workdir, config.logging.watchdog,
        lambda: (self.step, clock.bucket), self.say))

  def loop(self) -> dict[str, Any]:
    self.clock.enter('step')
    while True:
      try:
        return self._advance()
      except (divergence.DivergedError, data.UnreadableError) as error:
        self._go_back(error)

  def _advance(self):
    """The loop until the end, a stop, or an error."""
    total, step_function = self.config.total_steps, None
    while True:
      try:
        if self._evaluation_due():
          self._evaluate()
      except _Preempted:
        return self._leave()
      if self.preemption.preempted():
        return self._leave()
      if self.step >= total or self.checkpoints.should_save(self.step):
        self._save()
      if self.step >= total:
        return self._finish()
      with self.clock.at('data', hidden=self._device_is_busy):
        batch = next(self.batches)
      if step_function is None:
        with self.clock.at('compile'):
          step_function = self.program.compile_step(batch, self.arguments)
      self._profile()
      with jax.transfer_guard('disallow'):
        self.state, made = step_function(
            self.state, batch, self.program.frozen, self.noise)
      # The device is busy with the next update: now read the last one.
      self._write_line()
      self.step, self.made, self.values = self.step + 1, made, {}

  def _go_back(self, error):
    """Takes the run to its newest checkpoint, or raises the error."""
    policy = self.config.divergence
    # While an evaluation is due, no training record was asked for.
    if policy.action == 'stop' or isinstance(error, data.UnreadableError) and (
        jax.process_count() > 1 or self._evaluation_due()):
      raise error
    if len(self.rewinds) >= policy.limit:
      error.add_note(f'stopped after {len(self.rewinds)} rewinds')
      raise error
    broke, before = self.step, self.rewinds
    self.batches.close()
    self._place()
    one = {'from': broke, 'to': self.step, 'reason': str(error), 'skipped': 0}
    if policy.action == 'skip':  # With the one that could not be read.
      one['skipped'] = broke - self.step + isinstance(
          error, data.UnreadableError)
    self.rewinds = [*before, one]
    self._open_batches()
    self.say(f'{error}; rewind {len(self.rewinds)} of {policy.limit}: goes on '
             f'from step {self.step}' + (
                 f', past {one["skipped"]} batches' if one['skipped'] else ''))

  def _open_batches(self):
    """Opens the data at the present step, with the noise that belongs there."""
    self.noise = self.program.run_arguments(self.config, len(self.rewinds))
    with self.clock.at('data'):
      self.batches = data.train_batches(
          self.config, self.program.batch_sharding, start=self.step + sum(
              one['skipped'] for one in self.rewinds))

  def _device_is_busy(self) -> bool:
    """Whether the newest update is still being computed."""
    made = (self.made or {}).get('committed')
    return isinstance(made, jax.Array) and not made.is_ready()

  def _evaluation_due(self):
    every, step = self.config.evaluation.every, self.step
    due = step in (0, self.config.total_steps) or every and step % every == 0
    return due and not self.values and not self._is_logged()

  def _is_logged(self):
    return bool(self.log.lines) and self.log.lines[-1]['step'] == self.step

  def _evaluate(self):
    self._read_made()  # A state that is not finite is not worth measuring.
    with self.clock.at('eval'):
      values = {}
      for evaluator in self.evaluators:
        functions = {name: self._polled(function) for name, function in
                     self.program.evaluation_functions(
                         evaluator, self.state, self.arguments).items()}
        batches = data.eval_batches(self.config, self.program.batch_sharding)
        for name, value in evaluator.run(
            functions, batches, self.step,
            self.workdir if self.first_process else None,
            last=self.step == self.config.total_steps):
          values[f'{evaluator.name}/{name}'] = value
      self.values = values

  def _polled(self, function):
    """An evaluator's function, before whose calls a SIGTERM is seen: between
    two batches, be they of examples or of samples."""
    def call(batch):
      if self.preemption.preempted():
        raise _Preempted
      return function(batch)
    return call

  def _read_made(self) -> dict[str, float]:
    """Metrics of the update that made the state; raises if it is not finite."""
    if self.made is None or not isinstance(self.made.get('committed'),
                                           jax.Array):
      return self.made or {}
    made = {name: value.item() if value.ndim == 0 else value.tolist()
            for name, value in jax.device_get(self.made).items()}
    if made.pop('committed') != self.step:
      raise divergence.NonFiniteError(
          f'{self.workdir}: the gradient of an update up to step {self.step} '
          f'is not finite ({divergence.not_finite(made)}); nothing of it was '
          f'kept, the newest checkpoint is in {self.checkpoints.directory}')
    self.made = {f'train/{name}': value for name, value in made.items()}
    self.guard.read(self.step, self.made)
    return self.made

  def _write_line(self):
    """Logs the present step if it is due; waits for its update."""
    step, every = self.step, self.config.logging.every
    last = step == self.config.total_steps
    if self._is_logged() or not (
        self.values or last or step and step % every == 0):
      return
    seconds = self.clock.read()
    line = self._read_made() | self.values
    if self.rewinds:
      line['train/rewinds'] = len(self.rewinds)
    self.progress(step, line, seconds)
    line |= {f'clock/{name}': round(s, 3) for name, s in seconds.items()}
    self.log.write(step, line)
    if self.tensorboard:
      self.tensorboard.write(step, line)

  def _save(self, unfinished=False):
    """Saves the state; first the log, which may not lag behind it.

    Args:
      unfinished: whether the state is due to be evaluated after the restart;
        its metrics then travel in the checkpoint, not in the log.
    """
    made = self._read_made()
    if self.guard.above and self.step < self.config.total_steps:
      return  # Of a run that may be diverging: to go back there is no use.
    if not unfinished:
      self._write_line()
    self.log.flush()
    with self.clock.at('checkpoint'):
      self.checkpoints.save(self.step, self.state, {
          'config': config_lib.to_json(self.config),
          'examples': self.step * self.config.batch_size,
          'seconds': self.clock.read(),
          'made': made,
          'origin': self.origin,
          'rewinds': self.rewinds,
          'data': data.fingerprint(self.config),
          'provenance': provenance.describe(self.program.abstract),
          'frozen': {name: ref.content for name, ref in
                     self.program.task.weights.items()},
      })

  def _leave(self):
    """A stop was asked for: save what there is and return."""
    self._save(unfinished=self._evaluation_due())
    with self.clock.at('checkpoint'):
      self.checkpoints.wait()
    return {'step': self.step, 'preempted': True}

  def _finish(self):
    with self.clock.at('checkpoint'):
      self.checkpoints.wait()
    self.clock.enter('report')
    last = self.log.lines[-1]
    done = {'step': self.step, 'seconds': self.clock.read(),
            'metrics': {name: value for name, value in last.items()
                        if name.startswith('eval/')}}
    if self.rewinds:
      done['rewinds'] = self.rewinds
    if self.first_process:
      files.write_text(self.workdir / DONE, json.dumps(done, indent=2) + '\n')
    return done

  def _place(self):
    """Puts the run at its newest whole checkpoint, or at step 0."""
    self.state = None  # Its memory is needed.
    self.values, self.guard.above = {}, 0
    with self.clock.at('checkpoint'):
      restored = self.checkpoints.restore(self.program.abstract)
    if restored is None:
      self.step, self.made = 0, None
      self.state = self._start()
      return
    self.state, meta, self.step = restored
    if self.batches is None:  # A start; a rewind has its clock.
      self.clock.resume(meta['seconds'])
    self.made, self.origin = meta['made'] or None, meta['origin']
    self.rewinds = meta.get('rewinds', [])
    here = data.fingerprint(self.config)
    if meta['data'] != here:
      raise saved.CheckpointError(
          f'{self.workdir}: the data have changed since step {self.step}: '
          f'fingerprint {meta["data"]} then, {here} now')
    for name, ref in self.program.task.weights.items():
      # Older records hold the SHA-256 alone.
      if meta['frozen'].get(name, ref.content) not in (ref.content,
                                                       ref.sha256):
        raise saved.CheckpointError(
            f'{self.workdir}: {name} ({ref.source}) is another network than '
            f'at step {self.step}: SHA-256 {meta["frozen"][name]} then, '
            f'{ref.content} now')
    self.log.drop_after(self.step)

  def _start(self):
    """The state of step 0; from another run's parameters if configured."""
    if self.log.lines:
      self.say(f'{self.workdir}: no checkpoint, so its '
               f'{len(self.log.lines)} logged lines are dropped')
    self.log.drop_after(-1)
    state = self.program.init(self.arguments)
    if self.config.init_from:
      state, self.origin = starting.from_run(state, self.config, self.say)
    return state

  def _write_description(self):
    (self.workdir / DONE).unlink(missing_ok=True)
    files.write_text(self.workdir / 'config.json',
                     config_lib.to_json(self.config))
    described = self.cost | {
        'model': self.config.model.name,
        'train_flops': (self.cost['flops']['train_step']
                        * self.config.batch_size * self.config.total_steps),
        'origin': self.origin,
        'provenance': provenance.describe(self.program.abstract)}
    files.write_text(self.workdir / 'model.json',
                     json.dumps(described, indent=2) + '\n')

  def _profile(self):
    """Starts and stops the trace of `config.profile`."""
    first, steps = self.config.profile.first, self.config.profile.steps
    if steps and self.step == first and not self.tracing:
      jax.profiler.start_trace(str(self.workdir / 'profile'))
      self.tracing = True
    elif self.tracing and self.step >= first + steps:
      self._stop_trace()

  def _stop_trace(self):
    if self.tracing:
      jax.block_until_ready(self.state)
      jax.profiler.stop_trace()
      self.tracing = False


def _read_done(workdir):
  """What `DONE` holds; None if there is none, or one that was cut off."""
  with contextlib.suppress(FileNotFoundError, ValueError):
    return json.loads((workdir / DONE).read_text())
