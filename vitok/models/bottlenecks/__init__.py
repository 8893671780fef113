"""Bottlenecks by name: a new one is a file here and a line below."""

from vitok.models.bottlenecks.base import Bottleneck, Code
from vitok.models.bottlenecks.binary import BSQ, LFQ
from vitok.models.bottlenecks.deterministic import Deterministic
from vitok.models.bottlenecks.fsq import FSQ
from vitok.models.bottlenecks.gaussian import Gaussian
from vitok.models.bottlenecks.layernorm import LayerNorm
from vitok.models.bottlenecks.vq import VQ

__all__ = ('BOTTLENECKS', 'Bottleneck', 'Code')

BOTTLENECKS = {
    'gaussian': Gaussian,
    'deterministic': Deterministic,
    'layernorm': LayerNorm,
    'vq': VQ,
    'fsq': FSQ,
    'lfq': LFQ,
    'bsq': BSQ,
}
