"""Data: sources -> transforms -> Grain pipeline -> sharded batches."""

from vitok.data import photographs, records
from vitok.data.examples import UnreadableError
from vitok.data.pipeline import eval_batches, host_batch, train_batches
from vitok.data.selection import check, fingerprint

__all__ = [
    'UnreadableError', 'check', 'eval_batches', 'fingerprint', 'host_batch',
    'photographs', 'records', 'train_batches',
]
