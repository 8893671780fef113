"""Refuses impossible configs before a device is touched.

`check` raises `errors.InputError` with the dotted key, the value, the reason
and the nearest valid choice. It reads files (does the source exist?) but
starts no JAX backend, so a mistake costs seconds and not a pod's time.
"""

import math
import os
import re

import jax
from etils import epath

from vitok import config as config_lib
from vitok import data, errors, models, sizes, tasks
from vitok.training import optimizers, step

# key -> (lowest, highest) that are allowed, both included.
_RANGES = {
    'seed': (0, 2**31 - 1),
    'total_steps': (1, math.inf),
    'batch_size': (1, math.inf),
    'ema_decay': (0, 1 - 1e-9),
    'loss.kl_weight': (0, math.inf),
    'data.resolution': (1, 2**14),
    'data.frames': (1, 2**14),
    'data.workers': (0, 1024),
    'data.prefetch': (1, 1024),
    'evaluation.every': (0, math.inf),
    'evaluation.batch_size': (1, math.inf),
    'evaluation.count': (0, math.inf),
    'evaluation.grid': (1, 256),
    'evaluation.coded': (0, math.inf),
    'optimizer.learning_rate': (1e-12, 1e3),
    'optimizer.reference_batch': (0, math.inf),
    'optimizer.min_learning_rate': (0, 1e3),
    'optimizer.warmup': (0, 1),
    'optimizer.b1': (0, 1 - 1e-9),
    'optimizer.b2': (0, 1 - 1e-9),
    'optimizer.weight_decay': (0, math.inf),
    'optimizer.clip': (0, math.inf),
    'optimizer.accumulate': (1, math.inf),
    'sharding.fsdp_min_size': (0, math.inf),
    'checkpoint.every': (1, math.inf),
    'checkpoint.keep': (1, math.inf),
    'checkpoint.keep_every': (0, math.inf),
    'logging.every': (1, math.inf),
    'logging.watchdog': (0, math.inf),
    'profile.first': (0, math.inf),
    'profile.steps': (0, 1000),
}

_CHOICES = {
    'model.dtype': ('float32', 'bfloat16'),
    'loss.pixel': ('l2', 'l1', 'charbonnier'),
    'loss.kl_reduction': ('mean', 'sum'),
    'optimizer.schedule': ('cosine', 'constant'),
}


def check(config):
  """Refuses a config that cannot run.

  Raises:
    errors.InputError: for the first field at fault.
  """
  leaves = config_lib.flatten(config)
  for key, (low, high) in _RANGES.items():
    value = leaves[key]
    if not low <= value <= high:  # NaN fails too.
      raise errors.InputError(
          f'config.{key}', value, f'is outside {low} to {high}',
          low if not value > high else high)
  for key, choices in _CHOICES.items():
    errors.one_of(f'config.{key}', leaves[key], choices)
  tasks.check(config)
  size = sizes.from_config(config.model)
  models.build(config.model, frames=config.data.frames,
               resolution=config.data.resolution)
  _check_fit(config, size)
  _check_optimizer(config)
  _check_mesh(config, size)
  if config.init_from and not epath.Path(config.init_from).is_dir():
    raise errors.InputError('config.init_from', config.init_from,
                            'is no workdir: there is no such folder')
  data.check(config)


def check_workdir(workdir, config, *, extend=False):
  """Refuses a workdir that cannot be written or holds another run.

  Args:
    workdir: path, local or `gs://`; made if it does not exist.
    config: the config of this session.
    extend: whether `total_steps` may differ from the stored run's.

  Raises:
    errors.InputError: with the file or the field at fault.
  """
  workdir = epath.Path(workdir)
  probe = workdir / f'.write_test_{os.getpid()}'
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    probe.write_text('')
    probe.unlink()
  except OSError as error:
    raise errors.InputError(
        '--workdir', str(workdir),
        f'cannot be written: {error.strerror or error}',
        f'runs/{workdir.name}') from error
  stored = workdir / 'config.json'
  if not stored.exists():
    others = sorted(p.name for p in workdir.iterdir()
                    if not p.name.startswith('.'))
    if 'sweep.json' in others:
      raise errors.InputError('--workdir', str(workdir),
                              'holds a sweep, not a run', workdir / 'run')
    return
  old = config_lib.from_json(stored.read_text(), str(stored))
  changed = config_lib.difference(old, config)
  if extend:
    changed.pop('total_steps', None)
  if changed:
    key, (before, now) = next(iter(changed.items()))
    more = f' (and {len(changed) - 1} more fields)' if len(changed) > 1 else ''
    hint = ('--extend to train longer' if key == 'total_steps'
            else f'--config.{key}={before}, or another --workdir')
    raise errors.InputError(
        f'config.{key}', now,
        f'{workdir} holds a run with {before!r}{more}', hint)


def _check_fit(config, size):
  frames, resolution = config.data.frames, config.data.resolution
  if resolution % size.patch:
    near = max(1, round(resolution / size.patch)) * size.patch
    raise errors.InputError(
        'config.data.resolution', resolution,
        f'is not a multiple of the patch of {config.model.name!r}, '
        f'{size.patch}', near)
  if frames % size.tubelet:
    near = max(1, round(frames / size.tubelet)) * size.tubelet
    raise errors.InputError(
        'config.data.frames', frames,
        f'is not a multiple of the tubelet of {config.model.name!r}, '
        f'{size.tubelet}', near)


def _check_optimizer(config):
  optimizer = config.optimizer
  optimizers.schedule(optimizer, config.batch_size, config.total_steps)
  if config.batch_size % optimizer.accumulate:
    raise errors.InputError(
        'config.optimizer.accumulate', optimizer.accumulate,
        f'does not divide config.batch_size={config.batch_size}',
        math.gcd(config.batch_size, optimizer.accumulate))
  fields = ('match', 'learning_rate', 'weight_decay', 'frozen', 'layer_decay')
  for group in optimizer.groups:
    key = 'config.optimizer.groups'
    if not hasattr(group, 'items') or 'match' not in group:
      raise errors.InputError(key, group, "is not a dict with 'match'",
                              "({'match': 'encoder/.*', 'frozen': True},)")
    for field in group:
      errors.one_of(key, field, fields)
    try:
      re.compile(group['match'])
    except (re.error, TypeError) as error:
      raise errors.InputError(key, group['match'],
                              f'is not a regular expression: {error}',
                              "'encoder/.*'") from error
  if optimizer.groups:  # Does each match a parameter? Abstract, no device.
    jax.eval_shape(lambda: step.init(
        tasks.build(config), config, step.Run(jax.random.key(0), 1.0, 1.0)))


def _check_mesh(config, size):
  axes = config.mesh.to_dict()
  for axis, ways in axes.items():
    if ways < 1 and ways != -1:
      raise errors.InputError(f'config.mesh.{axis}', ways,
                              'is neither positive nor -1 (the rest)', 1)
  free = [axis for axis, ways in axes.items() if ways == -1]
  if len(free) > 1:
    raise errors.InputError(f'config.mesh.{free[1]}', -1,
                            f'only one axis may be -1; {free[0]} is too', 1)
  ways = math.prod(max(1, axes[axis]) for axis in ('replica', 'fsdp'))
  rows = config.batch_size // config.optimizer.accumulate
  if rows % ways:
    raise errors.InputError(
        'config.batch_size', config.batch_size,
        f'{rows} rows per micro-batch do not divide among {ways} devices '
        '(config.mesh.replica x config.mesh.fsdp)',
        max(1, round(rows / ways)) * ways * config.optimizer.accumulate)
  for name, tower in (('encoder', size.encoder), ('decoder', size.decoder)):
    if tower.heads % max(1, axes['tensor']):
      raise errors.InputError(
          'config.mesh.tensor', axes['tensor'],
          f'does not divide the {tower.heads} heads of the {name}',
          math.gcd(tower.heads, axes['tensor']))
  for rule in config.sharding.rules:
    if not (isinstance(rule, tuple) and len(rule) == 2):
      raise errors.InputError('config.sharding.rules', rule,
                              'is not (logical axis, mesh axis)',
                              "('embed', 'fsdp')")
    errors.one_of('config.sharding.rules', rule[1],
                  ('replica', 'fsdp', 'tensor', None))
