"""Integers of discrete codes as bytes, and as one number a token.

A code is integers below known radices (`Bottleneck.radices`), K a token. Here
they are exact whatever their product: 28 or 36 bits do not fit the 24 of a
float32, nor 36 an int32. Numbers are read most significant integer first, as
BSQ's bits are. Only NumPy: nothing here needs a device.

Dimensions: ... any leading axes, K integers of a token.
"""

import math
from collections.abc import Sequence

import numpy as np


def pack(ids: np.ndarray, radices: Sequence[int]) -> bytes:
  """Integers as bytes: each takes the bits that its radix needs.

  Args:
    ids: (..., K) integers, 0 <= ids[..., k] < radices[k].
    radices: K of them.

  Returns:
    ceil(tokens * sum of bits / 8) bytes, the most significant bit first.

  Raises:
    ValueError: an integer is out of its range.
  """
  ids, widths = _checked(ids, radices), _widths(radices)
  flat = ids.reshape(-1, len(radices))
  bits = [(flat[:, k, None] >> np.arange(width - 1, -1, -1)) & 1
          for k, width in enumerate(widths)]
  return np.packbits(np.concatenate(bits, 1).astype(np.uint8)).tobytes()


def unpack(packed: bytes, shape: Sequence[int],
           radices: Sequence[int]) -> np.ndarray:
  """Inverse of `pack`.

  Args:
    packed: bytes.
    shape: of the tokens, without the last axis K.
    radices: as they were packed with.

  Returns:
    int32 (*shape, K).

  Raises:
    ValueError: another number of bytes, or an integer out of its range.
  """
  widths, tokens = _widths(radices), math.prod(shape)
  needed = -(-tokens * sum(widths) // 8)
  if len(packed) != needed:
    raise ValueError(f'{len(packed)} bytes where {tokens} tokens of '
                     f'{sum(widths)} bits are {needed}')
  bits = np.unpackbits(np.frombuffer(packed, np.uint8),
                       count=tokens * sum(widths)
                       ).reshape(tokens, sum(widths))
  ends = np.cumsum(widths)
  ids = np.stack([
      bits[:, end - width:end].astype(np.int64)
      @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))
      for end, width in zip(ends, widths, strict=True)], -1)
  return _checked(ids, radices).reshape(*shape, len(widths)).astype(np.int32)


def join(ids: np.ndarray, radices: Sequence[int]) -> np.ndarray:
  """One number below the product of the radices: uint64 (...) of (..., K).

  Raises:
    ValueError: that needs more than 64 bits, or an integer is out of its
      range.
  """
  _check_product(radices)
  ids, number = _checked(ids, radices).astype(np.uint64), np.uint64(0)
  for k, radix in enumerate(radices):
    number = number * np.uint64(radix) + ids[..., k]
  return number


def split(numbers: np.ndarray, radices: Sequence[int]) -> np.ndarray:
  """Inverse of `join`: int32 (..., K).

  Raises:
    ValueError: a number is not below the product of the radices.
  """
  _check_product(radices)
  numbers, digits = np.asarray(numbers), []
  if not np.issubdtype(numbers.dtype, np.integer):
    raise ValueError(f'{numbers.dtype} are no integers')
  rest = numbers.astype(np.uint64)
  for radix in reversed(radices):
    digits.append(rest % np.uint64(radix))
    rest = rest // np.uint64(radix)
  if rest.any():
    raise ValueError('a number is not below the product of the radices')
  return np.stack(digits[::-1], -1).astype(np.int32)


def _widths(radices):
  return [max(1, (int(radix) - 1).bit_length()) for radix in radices]


def _check_product(radices):
  product = math.prod(map(int, radices))
  if product > 2**64:
    raise ValueError(f'a token of {math.log2(product):.1f} bits is no number '
                     'of 64')


def _checked(ids, radices):
  """int64 (..., K), all in range."""
  ids = np.asarray(ids)
  if ids.shape[-1:] != (len(radices),) or not np.issubdtype(
      ids.dtype, np.integer):
    raise ValueError(f'{ids.dtype} {ids.shape} are no integers of '
                     f'{len(radices)} a token')
  ids = ids.astype(np.int64)
  wrong = (ids < 0) | (ids >= np.array(radices))
  if wrong.any():
    token = tuple(map(int, np.argwhere(wrong)[0]))
    raise ValueError(f'ids{list(token)} is {ids[token]}, not below '
                     f'{radices[token[-1]]}')
  return ids
