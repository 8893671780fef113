"""Imports point down: what a module may know is what stands below it."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1] / 'vitok'
# From what knows nothing to what knows all; a line may import itself.
LAYERS = (
    ('errors', 'fields', 'files', 'process'),
    ('config', 'sizes'),
    ('accounting',),
    ('interop',),
    ('models', 'scaling'),
    ('data', 'losses', 'metrics', 'sampling'),
    ('tasks',),
    ('training', 'validation'),
    ('loading',),
    ('sweeps',),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
COMMANDS = len(LAYERS)  # train.py, evaluate.py, ... know everything.


def imported(path):
  """Names below `vitok` that a file imports."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module == 'vitok':
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
      top, _, rest = node.module.partition('.')
      if top == 'vitok':
        yield rest.split('.')[0]


def rank(name):
  return RANK.get(name, COMMANDS)


@pytest.mark.parametrize('layer', RANK)
def test_a_layer_knows_only_what_lies_below_it(layer):
  files = [path for path in (ROOT / f'{layer}.py', *(ROOT / layer).rglob(
      '*.py')) if path.is_file()]
  upward = {f'{path.relative_to(ROOT)} imports {name}' for path in files
            for name in imported(path) if rank(name) > rank(layer)}
  assert not upward


def test_layers_name_what_is_there():
  there = {path.stem for path in ROOT.iterdir()}
  assert RANK.keys() <= there
