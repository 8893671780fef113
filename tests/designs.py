"""The experiments of the project and their prices, each worked out once."""

import functools
import pathlib

from vitok import sweeps
from vitok.sweeps import price as price_lib

FOLDER = pathlib.Path(__file__).parents[1] / 'experiments'
DEVICES = {'gpu': 8, 'paper': 8}  # Of a preset's machine; others have one.


@functools.cache
def load(name: str, preset: str = 'cpu', **overrides: str) -> sweeps.Experiment:
  """An experiment by the name of its file; it is shared: do not change it."""
  return sweeps.load(f'{FOLDER / name}.py:{preset}', {
      key.replace('__', '.'): value for key, value in overrides.items()})


@functools.cache
def price(name: str, preset: str) -> dict:
  """Its price on the H100s of the preset's machine."""
  return price_lib.price(load(name, preset), device='h100',
                         count=DEVICES.get(preset, 1))
