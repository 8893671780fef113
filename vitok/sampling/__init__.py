"""Pure loops that generate codes, and the paths they follow."""

from vitok.sampling.guidance import guided
from vitok.sampling.samplers import sample
from vitok.sampling.schedules import Schedule, dimension_shift

__all__ = ('Schedule', 'dimension_shift', 'guided', 'sample')
