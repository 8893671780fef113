"""Tiny real runs for tests: photographs, one block a tower."""

import json

import numpy as np

from vitok import config as config_lib
from vitok import errors
from vitok.interop import saved

TINY = {
    'model.name': 'A-A/1x8x4', 'data.resolution': 16, 'batch_size': 8,
    'total_steps': 6, 'evaluation.every': 4, 'evaluation.batch_size': 16,
    'evaluation.count': 24, 'evaluation.grid': 2, 'evaluation.coded': 0,
    'checkpoint.every': 3, 'logging.every': 2, 'logging.tensorboard': False,
    'optimizer.learning_rate': 1e-3, 'optimizer.reference_batch': 0,
    'optimizer.warmup': 0.5, 'ema_decay': 0.9,
}


def tiny(**changes):
  """A config that trains in a second; `model__name='A-A/8'` overrides."""
  named = {key.replace('__', '.'): value for key, value in changes.items()}
  return config_lib.override(config_lib.default(), TINY | named)


def flags(changes=()):
  """The same as arguments of `vitok.train`."""
  return [f'--config.{key}={value}'
          for key, value in (TINY | dict(changes)).items()]


def lines(workdir, clock=False):
  """The lines of metrics.jsonl, without wall-clock keys."""
  text = (workdir / 'metrics.jsonl').read_text()
  return [{key: value for key, value in json.loads(line).items()
           if clock or not key.startswith('clock/')}
          for line in text.splitlines()]


def leaves(workdir, step=None):
  """{path: array} of what a checkpoint holds of the state."""
  found = {}

  def visit(prefix, tree):
    if isinstance(tree, dict):
      for name, value in tree.items():
        visit(f'{prefix}/{name}', value)
    else:
      found[prefix] = np.asarray(tree)
  for field in ('params', 'opt', 'ema', 'stats'):
    try:
      visit(field, saved.restore_params(
          workdir, step=step, field=field)[0])
    except errors.InputError:
      pass  # This task has none.
  return found


def assert_same(one, other):
  """The final states and logs of two runs are equal bit for bit."""
  a, b = leaves(one), leaves(other)
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)
  assert lines(one) == lines(other)
