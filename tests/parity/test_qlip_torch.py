"""QLIP's visual model equals a PyTorch model of its published names, to 1e-5.

The twin computes in float64. Differences are relative to the largest number
of each array.
"""

import pathlib

import jax
import numpy as np
import pytest
from flax import linen as nn

from vitok import config as config_lib
from vitok import models

torch = pytest.importorskip('torch', reason='parity tests need torch')

from tests.parity import torch_qlip  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]
NAME = 'Aw64d2h2f90-Aw48d3h3f70/1x4x28'  # Heads of 32 and 16.
RESOLUTION = 20  # A grid of 5, so that positions are 3.2 apart.


def linear(ours):
  """Tensors of a linear map."""
  return {'weight': ours['kernel'].T,
          **({'bias': ours['bias']} if 'bias' in ours else {})}


def norm(ours):
  return {'weight': ours['scale'], 'bias': ours['bias']}


def layer(ours, heads):
  """Tensors by name of one block."""
  attention, mlp = ours['attention'], ours['mlp']
  kernel = attention['qkv']['kernel']
  q, k, v = (x.reshape(len(kernel), -1).T for x in np.moveaxis(
      kernel.reshape(len(kernel), heads, 3, -1), 2, 0))
  return {
      'layer_norm1': norm(ours['norm1']), 'layer_norm2': norm(ours['norm2']),
      'self_attn.q_proj': {'weight': q, 'bias': attention['q_bias']},
      'self_attn.k_proj': {'weight': k},
      'self_attn.v_proj': {'weight': v, 'bias': attention['v_bias']},
      'self_attn.inner_attn_ln': norm(attention['sub_norm']),
      'self_attn.out_proj': linear(attention['out']),
      'mlp.w1': linear(mlp['gate']), 'mlp.w2': linear(mlp['value']),
      'mlp.ffn_ln': norm(mlp['sub_norm']), 'mlp.w3': linear(mlp['down'])}


def published(params, size):
  """{published name: tensor} of our parameters."""
  encoder, decoder = params['encoder'], params['decoder']
  p = size.patch
  embed = encoder['embed']
  # Ours are ordered row, column, colour, and these colour, row, column.
  conv = {'weight': embed['kernel'].reshape(p, p, 3, -1).transpose(3, 2, 0, 1),
          'bias': embed['bias']}
  last = {'weight': decoder['unembed']['kernel'].T, 'bias': decoder[
      'unembed']['bias']}
  last = {name: np.moveaxis(x.reshape(p, p, 3, -1), 2, 0).reshape(x.shape)
          for name, x in last.items()}
  groups = {
      'vision_model.embeddings.patch_embedding': conv,
      'vision_model.embeddings.position_embedding': {
          'weight': encoder['positions']},
      'vision_model.post_layernorm': norm(encoder['norm']),
      'vision_model.quant_embed.c_fc': linear(
          params['bottleneck']['down_hidden']),
      'vision_model.quant_embed.c_proj': linear(params['bottleneck']['down']),
      'vision_model.quant_embed_post.c_fc': linear(
          params['bottleneck_up_hidden']),
      'vision_model.quant_embed_post.c_proj': linear(params['bottleneck_up']),
      'vision_decoder.norm': norm(decoder['norm']),
      'vision_decoder.ffn.0': linear(decoder['unembed_hidden']),
      'vision_decoder.conv_out': last}
  for part, tower, ours in (('vision_model', size.encoder, encoder),
                            ('vision_decoder', size.decoder, decoder)):
    for i in range(tower.depth):
      block = jax.tree.map(lambda x, i=i: x[i], ours['blocks'])
      groups |= {f'{part}.encoder.layers.{i}.{name}': tensors
                 for name, tensors in layer(block, tower.heads).items()}
  flat = {f'{name}.{leaf}': x for name, group in groups.items()
          for leaf, x in group.items()}
  return flat | {
      'vision_model.embeddings.class_embedding': encoder['cls'],
      'vision_decoder.position_embeddings': decoder['positions'][None]}


def close(a, b, what):
  b = b.detach().numpy()
  scale = np.abs(b).max()
  np.testing.assert_allclose(np.asarray(a) / scale, b / scale, rtol=0,
                             atol=1e-5, err_msg=what)


def test_cls_every_layer_the_bits_and_the_pixels_equal_pytorch():
  conf = config_lib.load(f'{ROOT}/configs/qlip.py:F/4').model
  conf.name = NAME
  model = models.build(conf, frames=1, resolution=RESOLUTION)
  size, rng = model.size, np.random.default_rng(0)
  image = rng.uniform(-1, 1, (2, 1, RESOLUTION, RESOLUTION, 3)).astype(
      np.float32)
  variables = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), image))
  params = jax.tree.map(  # Nothing is zero or one: that would hide mistakes.
      lambda p: (rng.standard_normal(p.shape) / 5).astype(p.dtype),
      variables['params'])
  variables = variables | {'params': params, 'stats': jax.tree.map(
      lambda x: np.ones(x.shape, x.dtype), variables['stats'])}
  taps = {part: range(getattr(size, part).depth)
          for part in ('encoder', 'decoder')}
  y, out = jax.jit(lambda *args: model.apply(*args, taps=taps))(
      variables, image)

  twin = torch_qlip.QLIP(size, model.grid[1])
  tensors = published(params, size)
  twin.load_state_dict({name: torch.tensor(np.asarray(x))
                        for name, x in tensors.items()})  # All and no more.
  twin.double()
  pixels = torch.tensor(image[:, 0]).permute(0, 3, 1, 2).double()
  made = twin.vision_model(pixels)
  reconstruction, decoded = twin.vision_decoder(made['post'])
  for part, states in (('encoder', made['states']), ('decoder', decoded)):
    assert len(states) == len(out['taps'][part]) > 1
    for k, state in enumerate(states):
      close(out['taps'][part][k], state, f'{part} block {k}')
  close(out['cls'], made['cls'], 'cls')
  close(out['encoder'], made['states'][-1][:, 1:], 'tokens of the code')
  close(out['code'].z, made['code'], 'code')
  close(y[:, 0], reconstruction.permute(0, 2, 3, 1), 'pixels')
