"""Sweeps: units of an experiment, their price, their execution, their state.

Importing this package is cheap (no JAX): experiment files, `list`, `status`
and `emit` need nothing more.
"""

from vitok.sweeps.design import Point, common, expand
from vitok.sweeps.experiment import Experiment, Unit, load, record

__all__ = ['Experiment', 'Point', 'Unit', 'common', 'expand', 'load', 'record']
