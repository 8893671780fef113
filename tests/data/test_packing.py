"""Integers of codes as bytes and as numbers, exact at any size."""

import math

import numpy as np
import pytest

from vitok.data import packing

RADICES = {
    'bits_28': (2,) * 28, 'bits_36': (2,) * 36, 'two_of_14': (2**14, 2**14),
    'vq': (1000,), 'fsq': (1000, 1000, 7), 'alone': (1,), 'bits_64': (2,) * 64}


def drawn(radices, shape=(3, 5), seed=0):
  random = np.random.default_rng(seed)
  return np.stack([random.integers(0, radix, shape) for radix in radices],
                  -1).astype(np.int32)


@pytest.mark.parametrize('name', RADICES)
def test_bytes_hold_every_integer_exactly(name):
  radices = RADICES[name]
  ids = drawn(radices)
  ids[0, 0], ids[0, 1] = 0, np.array(radices) - 1
  packed = packing.pack(ids, radices)
  bits = sum(max(1, math.ceil(math.log2(radix))) for radix in radices)
  assert len(packed) == math.ceil(15 * bits / 8)
  back = packing.unpack(packed, (3, 5), radices)
  assert back.dtype == np.int32
  np.testing.assert_array_equal(back, ids)


@pytest.mark.parametrize('name', RADICES)
def test_a_token_is_one_number_and_back(name):
  radices = RADICES[name]
  ids = drawn(radices)
  numbers = packing.join(ids, radices)
  for number, token in zip(numbers.ravel(), ids.reshape(-1, len(radices)),
                           strict=True):
    expected = 0  # Of any size, in Python.
    for radix, digit in zip(radices, token.tolist(), strict=True):
      expected = expected * radix + digit
    assert int(number) == expected
  np.testing.assert_array_equal(packing.split(numbers, radices), ids)


def test_the_first_bit_is_the_most_significant():
  assert packing.join(np.array([[1, 0, 0, 1]]), (2,) * 4)[0] == 9
  assert packing.pack(np.array([[1, 0, 0, 1]]), (2,) * 4) == bytes([0b10010000])


@pytest.mark.parametrize('wrong, message', [
    (lambda: packing.pack(np.array([[3]]), (3,)), 'is 3, not below 3'),
    (lambda: packing.pack(np.array([[-1]]), (3,)), 'is -1'),
    (lambda: packing.pack(np.array([[1.0]]), (3,)), 'no integers'),
    (lambda: packing.pack(np.array([[1, 1]]), (3,)), 'no integers of 1'),
    (lambda: packing.unpack(b'ab', (1,), (3,)), '2 bytes where'),
    (lambda: packing.unpack(b'\xff', (1,), (3,)), 'is 3, not below 3'),
    (lambda: packing.join(np.zeros((1, 65), int), (2,) * 65), '65.0 bits'),
    (lambda: packing.split(np.array([9]), (3, 3)), 'is not below the'),
    (lambda: packing.split(np.float32([2**28]), (2,) * 29), 'no integers'),
])
def test_what_is_no_code_is_refused(wrong, message):
  with pytest.raises(ValueError, match=message):
    wrong()
