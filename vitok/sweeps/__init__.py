"""Sweeps: units of an experiment, their price, their execution, their state.

Importing this package is cheap (no JAX): experiment files, `list`, `status`
and `emit` need nothing more.
"""

from vitok.sweeps.design import (
    Point,
    expand,
    generators,
    price_per_nat,
    tower_sizes,
)
from vitok.sweeps.experiment import Experiment, Unit, load, record
from vitok.sweeps.scales import GENERATORS, SCALES

__all__ = ['GENERATORS', 'SCALES', 'Experiment', 'Point', 'Unit', 'expand',
           'generators', 'load', 'price_per_nat', 'record', 'tower_sizes']
