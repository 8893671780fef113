"""ViTok-v2 equals a PyTorch model of its published names, to 1e-5.

The twin computes in float64. Differences are relative to the largest number
of each array. LayerScale is drawn near 1: at 1e-4 no block would show.
"""

import jax
import numpy as np
import pytest

from vitok import config as config_lib
from vitok import models, sizes
from vitok.interop import vitok_v2

torch = pytest.importorskip('torch', reason='parity tests need torch')

from tests.parity import torch_vitok_v2 as twins  # noqa: E402

# G's heads of 72 and T's of 128 included; hidden rounds up and down.
NAMES = {'heads of 32': 'Bw96d2h3-Bw128d3h4/8',
         'heads of 72 and 128': 'Bw144d1h2-Bw256d2h2/1x4x6'}


def build(name, seed=0):
  """A model, its twins with random weights, and their tensors."""
  size = sizes.parse_v2(name)
  conf = config_lib.default().model
  conf.update(vitok_v2.MODEL, name=str(size))
  torch.manual_seed(seed)
  halves = [cls(tower.width, tower.depth, tower.heads, size.patch,
                size.channels) for cls, tower in (
      (twins.Encoder, size.encoder), (twins.Decoder, size.decoder))]
  for half in halves:
    for name_, p in half.named_parameters():
      near_one = 'norm' in name_ or 'gamma' in name_
      p.data = torch.randn_like(p) / 10 + near_one
  tensors = [{key: value.numpy() for key, value in half.state_dict().items()}
             for half in halves]
  return (models.build(conf, frames=1, resolution=4 * size.patch), halves,
          tensors)


def where(grid):
  rows, columns = np.meshgrid(*map(np.arange, grid), indexing='ij')
  return (torch.tensor(rows.ravel())[None], torch.tensor(columns.ravel())[None],
          torch.ones(1, rows.size, dtype=torch.bool))


def close(a, b, what):
  b = b.detach().numpy()
  scale = np.abs(b).max()
  np.testing.assert_allclose(np.asarray(a) / scale, b / scale, rtol=0,
                             atol=1e-5, err_msg=what)


@pytest.mark.parametrize('name', NAMES.values(), ids=NAMES)
def test_every_layer_and_the_pixels_equal_pytorch(name):
  model, (encoder, decoder), tensors = build(name)
  assert vitok_v2.size_of(*tensors) == model.size
  params = vitok_v2.from_published(*tensors)
  size, p = model.size, model.size.patch
  image = np.random.default_rng(0).uniform(-1, 1, (2, 1, 3 * p, 4 * p, 3))
  taps = {part: range(getattr(size, part).depth) for part in vitok_v2.PARTS}
  y, out = jax.jit(lambda *args: model.apply(*args, taps=taps))(
      {'params': params}, image.astype(np.float32))

  pixels = torch.tensor(image[:, 0]).permute(0, 3, 1, 2)
  places = where((3, 4))
  z, encoded = encoder.double()(twins.patches(pixels, p), *places)
  patches, decoded = decoder.double()(z, *places)
  for part, states in (('encoder', encoded), ('decoder', decoded)):
    assert len(states) == len(out['taps'][part]) >= 1
    for k, state in enumerate(states):
      close(out['taps'][part][k], state, f'{part} block {k}')
  close(out['code'].z, z, 'code')
  close(y[:, 0], twins.image(patches, 3 * p, 4 * p, p).permute(0, 2, 3, 1),
        'pixels')


def test_images_of_different_sizes_in_a_batch_equal_pytorch():
  model, (encoder, decoder), tensors = build(NAMES['heads of 32'])
  params, p = vitok_v2.from_published(*tensors), model.size.patch
  rng, grids, length = np.random.default_rng(1), ((2, 5), (4, 3), (1, 1)), 13
  strips = rng.uniform(-1, 1, (3, length, 3 * p * p))  # Padding is not zero.
  places, valid = np.zeros((3, length, 2), int), np.zeros((3, length), bool)
  for b, grid in enumerate(grids):
    n = grid[0] * grid[1]
    places[b, :n] = np.stack(np.indices(grid), -1).reshape(-1, 2)
    valid[b, :n] = True
  colours_last = strips.reshape(3, length, 3, p, p).transpose(0, 1, 3, 4, 2)
  image = colours_last.reshape(3, 1, length * p, p, 3).astype(np.float32)
  y, out = jax.jit(model.apply)({'params': params}, image,
                                patches=models.Patches(places, valid))
  at = (*torch.tensor(places).unbind(-1), torch.tensor(valid))
  z, _ = encoder.double()(torch.tensor(strips), *at)
  patches, _ = decoder.double()(z, *at)
  found = np.asarray(y).reshape(3, length, p, p, 3).transpose(0, 1, 4, 2, 3)
  close(out['code'].z[valid], z[at[2]], 'code')
  close(found.reshape(strips.shape)[valid], patches[at[2]], 'patches')


@pytest.mark.parametrize('order', vitok_v2.PATCH_ORDERS)
def test_our_parameters_become_the_published_tensors_again(order):
  model, _, tensors = build(NAMES['heads of 32'])
  params = vitok_v2.from_published(*tensors, order)
  expected = jax.eval_shape(model.init, jax.random.key(0),
                            np.zeros((1, 1, 32, 32, 3), np.float32))['params']
  assert jax.tree.map(np.shape, params) == jax.tree.map(
      lambda box: box.value.shape, expected,
      is_leaf=lambda x: hasattr(x, 'value'))
  for found, given in zip(vitok_v2.to_published(params, model.size, order),
                          tensors, strict=True):
    assert found.keys() == given.keys()
    for name, x in found.items():
      np.testing.assert_array_equal(x, given[name], name)
