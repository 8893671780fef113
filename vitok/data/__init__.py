"""Data: sources -> transforms -> Grain pipeline -> sharded batches."""

from vitok.data import photographs, records
from vitok.data.pipeline import (
    UnreadableError,
    check,
    eval_batches,
    fingerprint,
    host_batch,
    train_batches,
)

__all__ = [
    'UnreadableError', 'check', 'eval_batches', 'fingerprint', 'host_batch',
    'photographs', 'records', 'train_batches',
]
