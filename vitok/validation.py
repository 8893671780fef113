"""Refuses impossible configs before a device is touched.

`check` raises `errors.InputError` with the dotted key, the value, the reason
and the nearest valid choice. It reads files (does the source exist?) but
starts no JAX backend, so a mistake costs seconds and not a pod's time.
"""

import itertools
import math

import jax
import jax.numpy as jnp
from etils import epath

from vitok import config as config_lib
from vitok import data, errors, files, sizes, tasks
from vitok.interop import saved
from vitok.tasks import adversarial, native
from vitok.training import divergence, mesh, optimizers, step

_MOST = 2**31 - 1  # Of what devices count in int32.

# key -> (lowest, highest) that are allowed, both included.
_RANGES = {
    'seed': (0, _MOST),
    'total_steps': (1, _MOST),
    'batch_size': (1, _MOST),
    'ema_decay': (0, 1 - 1e-9),
    'model.layer_scale': (0, 1e3),
    'model.quantizer.decay': (0, 1 - 1e-9),
    'model.quantizer.restart': (0, 0.9),
    'model.quantizer.temperature': (1e-6, 1e9),
    'loss.kl_weight': (0, 1e9),
    'loss.commitment_weight': (0, 1e9),
    'loss.codebook_weight': (0, 1e9),
    'loss.entropy_weight': (0, 1e9),
    'loss.ssim_weight': (0, 1e9),
    'loss.lpips_weight': (0, 1e9),
    'loss.feature_weight': (0, 1e9),
    'loss.feature_tile': (0, 2**14),
    'adversarial.r1': (0, 1e9),
    'adversarial.r1_every': (1, _MOST),
    'adversarial.lecam': (0, 1e9),
    'adversarial.lecam_decay': (0, 1 - 1e-9),
    'tokenizer.checkpoint': (0, _MOST),
    'diffusion.shift': (0, 1e6),
    'diffusion.classes': (0, 2**20),
    'diffusion.label_dropout': (0, 1),
    'generation.count': (1, _MOST),
    'generation.batch_size': (1, _MOST),
    'data.resolution': (1, 2**14),
    'data.frames': (1, 2**14),
    'data.stride': (1, 2**14),
    'data.frame_rate': (0, 1000),
    'data.workers': (0, 1024),
    'data.prefetch': (1, 1024),
    'evaluation.every': (0, _MOST),
    'evaluation.batch_size': (1, _MOST),
    'evaluation.count': (0, _MOST),
    'evaluation.clips': (1, 2**14),
    'evaluation.grid': (1, 256),
    'evaluation.coded': (0, _MOST),
    'evaluation.numbers_every': (0, _MOST),
    'evaluation.features': (0, _MOST),
    'optimizer.accumulate': (1, _MOST),
    **{f'{optimizer}.{field}': limits
       for optimizer in ('optimizer', 'adversarial.optimizer')
       for field, limits in {
           'learning_rate': (1e-12, 1e3),
           'reference_batch': (0, _MOST),
           'min_learning_rate': (0, 1e3),
           'warmup': (0, 1),
           'b1': (0, 1 - 1e-9),
           'b2': (0, 1 - 1e-9),
           'weight_decay': (0, 1e9),
           'clip': (0, 1e9)}.items()},
    'sharding.fsdp_min_size': (0, _MOST),
    'checkpoint.every': (1, _MOST),
    'checkpoint.keep': (1, _MOST),
    'checkpoint.keep_every': (0, _MOST),
    'divergence.limit': (0, _MOST),
    'divergence.above': (-1e30, 1e30),
    'divergence.patience': (1, _MOST),
    'logging.every': (1, _MOST),
    'logging.watchdog': (0, _MOST),
    'profile.first': (0, _MOST),
    'profile.steps': (0, 1000),
}

# Fields that may be at odds with the shapes of the state: unless they are the
# default's, it is traced, for a fifth of a second.
_OF_STATE = ('task', 'init_subtree', 'optimizer.groups', 'mesh.tensor',
             'sharding.rules')


def check(config, part='all'):
  """Refuses a config that cannot run.

  Args:
    config: of a run.
    part: 'evaluation' asks nothing that only training needs: its data, the
      run it started from.

  Raises:
    errors.InputError: for the first field at fault.
  """
  leaves = config_lib.flatten(config)
  config_lib.override(config_lib.default(), leaves)  # Has every field its type?
  for key, (low, high) in _RANGES.items():
    value = leaves[key]
    if not low <= value <= high:
      raise errors.InputError(
          f'config.{key}', value, f'is outside {low} to {high}',
          low if value < low else high)
  errors.one_of('config.loss.kl_reduction', config.loss.kl_reduction,
                ('mean', 'sum'))
  task = tasks.build(config)  # Refuses what the model and the loss do not know.
  native.check(config)
  _check_mesh(config)
  _check_cadence(config.evaluation)
  if part == 'all':
    _check_optimizer(config)
    step.check_accumulation(task, config.optimizer.accumulate)
    _check_rows(config)
    _check_profile(config)
    divergence.check(config.divergence)
    tuple(task.weights)  # Refuses what is not there.
    if config.init_subtree and not config.init_from:
      raise errors.InputError('config.init_subtree', config.init_subtree,
                              'is a part of config.init_from, which is empty')
    _check_source(config)
  usual = config_lib.flatten(config_lib.default())
  _check_adversarial(config, leaves, usual)
  if any(leaves[key] != usual[key] for key in _OF_STATE):
    _check_state(config, task)
  data.check(config, part)
  if part == 'all' and config.divergence.metric:
    _check_guard(config, task)


def check_workdir(workdir, config, *, extend=False):
  """Refuses a workdir that cannot be written, holds another run, or would
  start from a run that is not there or, in stage 2, of another encoder.

  Args:
    workdir: path, local or `gs://`; made if it does not exist.
    config: of the run that is about to start or go on.
    extend: whether `total_steps` may exceed the stored run's.

  Raises:
    errors.InputError: with the file or the field at fault.
  """
  workdir = epath.Path(workdir)
  probe = files.own_name(workdir / 'write_test')
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    probe.write_text('')
    probe.unlink(missing_ok=True)
  except OSError as error:
    raise errors.InputError(
        '--workdir', str(workdir),
        f'cannot be written: {error.strerror or error}',
        f'runs/{workdir.name}') from error
  # A run that goes on needs its source no more.
  if config.init_from and not saved.exist(workdir):
    if not saved.exist(config.init_from):
      raise errors.InputError('config.init_from', config.init_from,
                              'holds no checkpoint')
    adversarial.check_source(config)
  stored = workdir / 'config.json'
  if not stored.exists():
    others = sorted(p.name for p in workdir.iterdir()
                    if not p.name.startswith('.'))
    if 'sweep.json' in others:
      raise errors.InputError('--workdir', str(workdir),
                              'holds a sweep, not a run', workdir / 'run')
    return
  old = config_lib.read(stored)
  changed = config_lib.difference(old, config)
  if extend and config.total_steps > old.total_steps:
    changed.pop('total_steps', None)
  if changed:
    key, (before, now) = next(iter(changed.items()))
    more = f' (and {len(changed) - 1} more fields)' if len(changed) > 1 else ''
    if key == 'total_steps' and now < before:
      more += '; a run can be extended, never shortened'
      hint = before
    elif key == 'total_steps':
      hint = '--extend to train longer'
    else:
      hint = f'--config.{key}={before}, or another --workdir'
    raise errors.InputError(
        f'config.{key}', now,
        f'{workdir} holds a run with {before!r}{more}', hint)


def _check_optimizer(config):
  optimizer = config.optimizer
  optimizers.schedule(optimizer, config.batch_size, config.total_steps)
  if config.batch_size % optimizer.accumulate:
    raise errors.InputError(
        'config.optimizer.accumulate', optimizer.accumulate,
        f'does not divide config.batch_size={config.batch_size}',
        math.gcd(config.batch_size, optimizer.accumulate))


def _check_adversarial(config, leaves, usual):
  if config.task == 'adversarial':
    optimizers.schedule(config.adversarial.optimizer, config.batch_size,
                        config.total_steps, key='config.adversarial.optimizer')
    return
  for key, value in leaves.items():
    if key.startswith('adversarial.') and value != usual[key]:
      raise errors.InputError(f'config.{key}', value, 'is read by the task '
                              f'adversarial, not by {config.task}', usual[key])


def _check_source(config):
  if (config.task == 'adversarial' and config.adversarial.trained == 'decoder'
      and not config.init_from):
    raise errors.InputError(
        'config.init_from', '', 'names no run of stage 1: an encoder of random '
        'values would stay as it is', "config.adversarial.trained='all'")


def _check_state(config, task):
  """Groups, sharding and subtree must fit the state's shapes; no device."""
  state = jax.eval_shape(lambda: step.init(
      task, config, step.Run(jax.random.key(0), 1.0, 1.0)))
  # -1: when devices are known.
  axes = {axis: max(1, config.mesh[axis]) for axis in mesh.AXES}
  sizes.from_config(config.model).check_tensor(axes['tensor'])
  mesh.state_shardings(state, jax.sharding.AbstractMesh(
      tuple(axes.values()), tuple(axes)), config.sharding)
  subtree = config.init_subtree
  paths = {path for name in saved.flat(mesh.unbox(state.params))
           for path in itertools.accumulate(name.split('/'), '{}/{}'.format)}
  if subtree and subtree not in paths:
    raise errors.InputError('config.init_subtree', subtree,
                            'is no path of parameters of this model',
                            errors.nearest(subtree, sorted(paths)))


def _check_cadence(evaluation):
  every, numbers = evaluation.every, evaluation.numbers_every
  if numbers and (not every or numbers % every):
    raise errors.InputError(
        'config.evaluation.numbers_every', numbers,
        f'is no multiple of config.evaluation.every={every}',
        -(-numbers // every) * every if every else 0)


def _check_guard(config, task):
  """The guarded metric must be one of the update's; traced, no device."""
  run = jax.eval_shape(lambda: step.Run(jax.random.key(0), jnp.float32(1),
                                        jnp.float32(1)))
  state = mesh.unbox(jax.eval_shape(
      lambda run: step.init(task, config, run), run))
  batch = {name: jax.ShapeDtypeStruct((config.batch_size, *x.shape[1:]),
                                      x.dtype)
           for name, x in data.host_batch(config, 0, rows=[0]).items()}
  frozen = {name: ref.abstract() for name, ref in task.weights.items()}
  _, made = jax.eval_shape(step.make(task, config), state, batch, frozen, run)
  errors.one_of('config.divergence.metric', config.divergence.metric, tuple(
      f'train/{name}' for name, value in sorted(made.items())
      if value.shape == () and name != 'committed'))


def _check_mesh(config):
  axes = config.mesh.to_dict()
  for axis, ways in axes.items():
    if ways < 1 and ways != -1:
      raise errors.InputError(f'config.mesh.{axis}', ways,
                              'is neither positive nor -1 (the rest)', 1)
  free = [axis for axis, ways in axes.items() if ways == -1]
  if len(free) > 1:
    raise errors.InputError(f'config.mesh.{free[1]}', -1,
                            f'only one axis may be -1; {free[0]} is too', 1)


def _check_rows(config):
  ways = math.prod(max(1, config.mesh[axis]) for axis in mesh.BATCH_AXES)
  rows = config.batch_size // config.optimizer.accumulate
  if rows % ways:
    raise errors.InputError(
        'config.batch_size', config.batch_size,
        f'{rows} rows per micro-batch do not divide among {ways} devices '
        '(config.mesh.replica x config.mesh.fsdp)',
        max(1, round(rows / ways)) * ways * config.optimizer.accumulate)


def _check_profile(config):
  first, steps = config.profile.first, config.profile.steps
  if steps and first >= config.total_steps:
    raise errors.InputError(
        'config.profile.first', first,
        f'is after the last step of {config.total_steps}: no trace is taken',
        max(0, config.total_steps - steps))
