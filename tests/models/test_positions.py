"""Positions: rotary angles, their split over axes, fixed vectors."""

import numpy as np
import pytest

from vitok import sizes
from vitok.models import attention, positions


def turned(x_LxK, name, grid):
  """`attention.rotate` of one head of one example."""
  turn = positions.rotation(name, grid, x_LxK.shape[-1])
  return np.asarray(attention.rotate(x_LxK[None, :, None], turn))[0, :, 0]


@pytest.mark.parametrize('channels, axes, split', [
    (64, 1, (64,)), (64, 2, (32, 32)), (72, 2, (36, 36)),
    (64, 3, (16, 24, 24)), (72, 3, (24, 24, 24)), (32, 3, (8, 12, 12)),
])
def test_channels_split_over_axes(channels, axes, split):
  assert positions.axis_split(channels, axes) == split


@pytest.mark.parametrize('channels, axes', [(16, 3), (6, 2), (7, 1)])
def test_channels_that_do_not_split_are_refused(channels, axes):
  with pytest.raises(ValueError, match=f'{channels} channels do not split'):
    positions.axis_split(channels, axes)


@pytest.mark.parametrize('name, grid, head_dim', [
    ('rope1d', (1, 3, 4), 64), ('rope2d', (1, 3, 4), 64),
    ('rope3d', (2, 3, 4), 64), ('rope3d', (2, 3, 4), 72)])
def test_rope_turns_adjacent_pairs_by_the_published_angles(
    name, grid, head_dim):
  """Pair by pair, with complex numbers, from the definition."""
  blocks = {'rope1d': {64: (('index', 64),)},
            'rope2d': {64: (('row', 32), ('column', 32))},
            'rope3d': {64: (('time', 16), ('row', 24), ('column', 24)),
                       72: (('time', 24), ('row', 24), ('column', 24))}}
  t, h, w = grid
  x = np.random.default_rng(0).standard_normal((t * h * w, head_dim))
  expected = np.empty_like(x)
  for token in range(t * h * w):
    where = dict(index=token, time=token // (h * w), row=token // w % h,
                 column=token % w)
    channel = 0
    for axis, n in blocks[name][head_dim]:
      for i in range(n // 2):
        angle = where[axis] * 10000.0**(-2 * i / n)
        pair = complex(x[token, channel], x[token, channel + 1])
        pair *= np.exp(1j * angle)
        expected[token, channel:channel + 2] = pair.real, pair.imag
        channel += 2
  np.testing.assert_allclose(
      turned(x.astype(np.float32), name, grid), expected, atol=2e-6)


@pytest.mark.parametrize('name, grid', [
    ('rope1d', (1, 1, 12)), ('rope2d', (1, 4, 5)), ('rope3d', (3, 4, 5))])
def test_rope_scores_depend_on_relative_position_only(name, grid):
  length = np.prod(grid)
  vectors = np.random.default_rng(0).standard_normal((2, 64))
  q, k = (turned(np.tile(x.astype(np.float32), (length, 1)), name, grid)
          for x in vectors)
  where, by_offset = positions.coordinates(grid), {}
  for i, j in np.ndindex(length, length):
    by_offset.setdefault(tuple(where[j] - where[i]), []).append(q[i] @ k[j])
  assert max(np.ptp(scores) for scores in by_offset.values()) < 1e-4
  means = sorted(np.mean(scores) for scores in by_offset.values())
  assert np.diff(means).min() > 1e-6  # No two offsets look alike.


def test_rope_leaves_lengths_and_the_first_token_alone():
  x = np.random.default_rng(0).standard_normal((16, 64)).astype(np.float32)
  y = turned(x, 'rope2d', (1, 4, 4))
  np.testing.assert_array_equal(y[0], x[0])
  np.testing.assert_allclose(np.linalg.norm(y, axis=-1),
                             np.linalg.norm(x, axis=-1), rtol=1e-6)


@pytest.mark.parametrize('grid', [(1, 5, 3), (2, 32, 4), (1, 16, 16)])
def test_rescaled_rope_turns_as_on_a_grid_of_16_whatever_the_grid(grid):
  """Row i of h is at 16 i / h, and columns alike; QLIP's release."""
  x = np.random.default_rng(0).standard_normal((np.prod(grid), 32))
  expected = np.empty_like(x)
  for token, (_, row, column) in enumerate(np.ndindex(grid)):
    for axis, place in enumerate((row * 16 / grid[1], column * 16 / grid[2])):
      for i in range(8):
        channel = 16 * axis + 2 * i
        pair = complex(x[token, channel], x[token, channel + 1])
        pair *= np.exp(1j * place * 10000.0**(-2 * i / 16))
        expected[token, channel:channel + 2] = pair.real, pair.imag
  np.testing.assert_allclose(
      turned(x.astype(np.float32), 'rope2d_learned', grid), expected,
      atol=5e-6)


@pytest.mark.parametrize('name', ['rope1d', 'rope2d', 'rope2d_learned'])
def test_a_cls_token_is_not_turned_and_moves_no_other(name):
  with_cls = positions.rotation(name, (1, 3, 4), 32, 5, cls=True)
  np.testing.assert_array_equal(with_cls[:, 0], [16 * [1], 16 * [0]])
  np.testing.assert_array_equal(
      with_cls[:, 1:], positions.rotation(name, (1, 3, 4), 32, 5))


@pytest.mark.parametrize('grid', [(1, 4, 4), (4, 2, 2)])
def test_sincos_vectors_tell_all_tokens_apart(grid):
  vectors = positions.sincos(grid, 96)
  assert vectors.shape == (16, 96) and vectors.dtype == np.float32
  distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
  assert (distances + 9 * np.eye(16)).min() > 0.5


def test_rope2d_is_no_choice_for_clips():
  tower = sizes.TOWERS['S']
  assert positions.misfit('rope2d', (1, 4, 4), tower) is None
  assert 'time steps' in positions.misfit('rope2d', (2, 4, 4), tower)
  # A table tells them apart.
  assert positions.misfit('rope2d_learned', (2, 4, 4), tower) is None
