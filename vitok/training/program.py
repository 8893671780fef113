"""What is compiled for a config on a mesh: init, step, evaluation.

Built once and shared by every run whose config differs only in seed, length,
learning rate and bookkeeping: those are arguments of the step (`step.Run`).
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from vitok import config as config_lib
from vitok import errors, sizes, tasks
from vitok.interop import weights
from vitok.tasks import base
from vitok.training import mesh as mesh_lib
from vitok.training import step as step_lib

PyTree = Any

# Fields that no compiled program depends on: a task's traced functions may not
# read them, or a run would get the values of the one that was compiled.
_FREE = ('seed', 'total_steps', 'optimizer.learning_rate', 'checkpoint.',
         'logging.', 'profile.', 'evaluation.every', 'init_from',
         'init_subtree', 'data.workers', 'data.prefetch', 'divergence.')


def signature(config: Any) -> str:
  """Text that two configs share exactly if they can share a program."""
  leaves = config_lib.flatten(config)
  return json.dumps({key: value for key, value in sorted(leaves.items())
                     if not key.startswith(_FREE)})


@functools.lru_cache(maxsize=8)
def _placed(ref: base.WeightRef, sharding: jax.sharding.Sharding) -> PyTree:
  """Weights on the devices; the units of a sweep share them."""
  return jax.device_put(ref.load(), sharding)


def check_same_weights(refs: Mapping[str, base.WeightRef]) -> None:
  """Refuses processes that found other networks in their caches.

  Which numbers are measured depends on them: the processes would run different
  programs, and wait for each other for ever. All of them call this.

  Raises:
    InputError: names a process whose networks are not those of process 0.
  """
  if jax.process_count() == 1:
    return
  found = {name: ref.content for name, ref in sorted(refs.items())}
  digest = hashlib.sha256(json.dumps(found).encode()).digest()
  digests = np.asarray(multihost_utils.process_allgather(
      np.frombuffer(digest, np.uint8)))
  others = (digests != digests[0]).any(1).nonzero()[0]
  if len(others):
    raise errors.InputError(
        weights.CACHE_VARIABLE, None,
        f'process {others[0]} has other network weights than process 0 '
        f'(process {jax.process_index()} has {", ".join(found) or "none"})',
        'the same files in this folder of every process')


class Program:
  """Compiled functions of one config, on one mesh.

  Attributes:
    task: the objective (`base.Task`).
    mesh: the devices.
    abstract: the state as shapes with shardings, for compiling and restoring.
    batch_sharding: of each array of a batch, along its first axis.
    frozen: weights of the task's frozen networks, on the mesh.
  """

  def __init__(self, config: Any, devices: Any = None, part: str = 'all'):
    """Loads the frozen networks; compiles nothing yet.

    Args:
      config: of the run.
      devices: those of the mesh; all by default.
      part: 'evaluation' loads what evaluators need, and not what only a
        training loss does.

    Raises:
      InputError: networks or mesh that do not fit, see `check_same_weights`.
    """
    self._config = config
    self.task: base.Task = tasks.build(config)
    step_lib.check_accumulation(self.task, config.optimizer.accumulate)
    refs = (self.task.evaluation_weights if part == 'evaluation'
            else self.task.weights)
    check_same_weights(refs)
    self.mesh = mesh_lib.make_mesh(config.mesh, devices)
    sizes.from_config(config.model).check_tensor(self.mesh.shape['tensor'])
    self.batch_sharding = mesh_lib.batch_sharding(self.mesh)
    self.replicated = mesh_lib.replicated(self.mesh)
    with jax.set_mesh(self.mesh):
      boxed = jax.eval_shape(
          functools.partial(step_lib.init, self.task, config), self._run_spec)
      shardings = mesh_lib.state_shardings(boxed, self.mesh, config.sharding)
      self.abstract = jax.tree.map(
          lambda leaf, sharding: jax.ShapeDtypeStruct(
              leaf.shape, leaf.dtype, sharding=sharding),
          mesh_lib.unbox(boxed), shardings)
      self._shardings = shardings
      self.frozen = {name: _placed(ref, self.replicated)
                     for name, ref in refs.items()}
    self._compiled: dict[str, Any] = {}

  def check_batch(self):
    """Refuses a training batch that the mesh does not divide; none is padded.

    Raises:
      errors.InputError: with the nearest batch size.
    """
    parts = self._config.optimizer.accumulate
    batch_size = self._config.batch_size
    try:
      mesh_lib.batch_sharding(self.mesh, batch_size // parts)
    except errors.InputError as error:
      raise errors.InputError(
          'config.batch_size', batch_size, error.reason + (
              f', in {parts} micro-batches' if parts > 1 else ''),
          parts * error.nearest) from error

  @property
  def _run_spec(self) -> step_lib.Run:
    return jax.eval_shape(lambda: step_lib.Run(
        key=jax.random.key(0), total_steps=jnp.float32(0),
        learning_rate=jnp.float32(0)))

  def run_arguments(self, config: Any, rewinds: int = 0) -> step_lib.Run:
    """The arguments by which `config` differs from others of the program.

    Args:
      config: of the run.
      rewinds: how often the run went back; steps have other noise each time.
    """
    key = jax.random.key(config.seed)
    if rewinds:  # Stream 3 of the run's key; `step` says what the others are.
      key = jax.random.fold_in(jax.random.fold_in(key, 3), rewinds)
    # As NumPy: an array of one process cannot be put on the devices of all.
    data = np.asarray(jax.random.key_data(key))
    data, total_steps, learning_rate = jax.device_put(
        (data, np.float32(config.total_steps),
         np.float32(config.optimizer.learning_rate)), self.replicated)
    return step_lib.Run(jax.random.wrap_key_data(data), total_steps,
                        learning_rate)

  def init(self, run: step_lib.Run) -> base.State:
    """The state of step 0, each device making its own part."""
    if 'init' not in self._compiled:
      function = lambda run: mesh_lib.unbox(
          step_lib.init(self.task, self._config, run))
      self._compiled['init'] = jax.jit(function,
                                       out_shardings=self._shardings)
    with jax.set_mesh(self.mesh):
      return self._compiled['init'](run)

  def compile_step(self, batch: base.Batch, run: step_lib.Run) -> Any:
    """The compiled step: `(state, batch, frozen, run) -> (state, metrics)`.

    The state is donated. `batch` may be abstract.
    """
    if 'step' not in self._compiled:
      jitted = jax.jit(step_lib.make(self.task, self._config),
                       donate_argnums=0,
                       out_shardings=(self._shardings, self.replicated))
      with jax.set_mesh(self.mesh):
        self._compiled['step'] = jitted.lower(
            self.abstract, batch, self.frozen, run).compile()
    return self._compiled['step']

  def evaluation_functions(self, evaluator: base.Evaluator,
                           state: base.State, run: step_lib.Run
                           ) -> dict[str, Any]:
    """The evaluator's functions bound to a state: `batch -> numpy pytree`."""
    key = jax.random.fold_in(run.key, 2)

    def bind(name, function):
      # By name: another run's evaluator computes the same with its own state.
      label = f'{evaluator.name}/{name}'
      if label not in self._compiled:
        self._compiled[label] = jax.jit(function,
                                        out_shardings=self.replicated)
      compiled = self._compiled[label]

      def call(batch):
        with jax.set_mesh(self.mesh):
          return jax.device_get(compiled(state, self.frozen, batch, key))
      return call

    return {name: bind(name, function)
            for name, function in evaluator.functions.items()}
