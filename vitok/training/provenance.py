"""What made a run: code, versions, devices, shape of its parameter tree."""

import functools
import hashlib
import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

import jax

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain',
             'numpy')


def describe(abstract_state: Any) -> dict[str, Any]:
  """JSON values: 'git', 'versions', 'devices', 'tree'.

  Args:
    abstract_state: anything with the state's paths, shapes and types; 'tree'
      is a hash of them, so two checkpoints can be exchanged if it is equal.
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(abstract_state)
  tree = '\n'.join(f'{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}'
                   for path, leaf in leaves)
  devices = jax.devices()
  return {
      **_machine(),
      'devices': {'count': len(devices), 'kind': devices[0].device_kind,
                  'processes': jax.process_count()},
      'tree': hashlib.sha256(tree.encode()).hexdigest()[:12],
  }


@functools.cache
def _machine():
  versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
  return {'git': _git(), 'versions': versions | {
      'python': platform.python_version()}}


def _git():
  """{'commit', 'dirty'} of the checkout that the package runs from, or None."""
  folder = pathlib.Path(__file__).parents[2]

  def git(*arguments):
    return subprocess.run(['git', '-C', str(folder), *arguments], check=True,
                          capture_output=True, text=True,
                          timeout=10).stdout.strip()
  try:
    # An installed copy may lie inside somebody else's repository.
    if pathlib.Path(git('rev-parse', '--show-toplevel')) != folder.resolve():
      return None
    return {'commit': git('rev-parse', 'HEAD'),
            'dirty': bool(git('status', '--porcelain'))}
  except (OSError, subprocess.SubprocessError):
    return None
