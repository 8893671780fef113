"""Names and layouts of the public ViTok-v2 weights, both ways.

A release is two files, `encoder.safetensors` and `decoder.safetensors`, of
PyTorch's tensors (out, in). Ours stack the blocks on a leading axis, hold
kernels as (in, out), order the columns of 'qkv' by head first, and split
`fc1` into value and gate:

  patch_embed                       encoder/embed
  encoder_blocks.N.norm1.weight     encoder/blocks/norm1/scale
    attn.qkv_proj.weight              attention/qkv/kernel
    attn.norm_q.weight, norm_k        attention/norm_q/scale, norm_k
    attn.out_proj.weight              attention/out/kernel
    ffn.fc1.weight                    mlp/value/kernel over mlp/gate/kernel
    ffn.fc2.weight                    mlp/down/kernel
    layer_scale.gamma                 layer_scale1
  to_code                           bottleneck/down
  decoder_embed                     bottleneck_up
  decoder_blocks.N...               decoder/blocks...
  to_pixels                         decoder/unembed

The release's patches are flattened colour, row, column (`PATCH_ORDERS`; not
yet checked against its published outputs), ours row, column, colour.

Letters: N blocks, W width, H heads, K head dimension, F hidden units, P
numbers of a patch, c channels of the code.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

from vitok import errors, sizes
from vitok.interop import weights

# What `config.model` must say for these weights.
MODEL = dict(
    mlp='swiglu', norm='rmsnorm', positions='rope2d', block='parallel',
    layer_scale=1e-4, qk_norm=True, bias=False, sub_norm=False,
    final_norm=False, cls=False, bottleneck='layernorm', projection='linear',
    head='linear')
PATCH_ORDERS = ('colour_first', 'colour_last')
PARTS = ('encoder', 'decoder')
_OUTER = {  # Linear maps of each file, with bias: ours.
    'encoder': {'patch_embed': 'encoder/embed', 'to_code': 'bottleneck/down'},
    'decoder': {'decoder_embed': 'bottleneck_up',
                'to_pixels': 'decoder/unembed'},
}
_BLOCK = {  # Of a block: ours, but for what `_split` and `_join` rearrange.
    'norm1.weight': 'norm1/scale',
    'attn.qkv_proj.weight': 'attention/qkv/kernel',
    'attn.norm_q.weight': 'attention/norm_q/scale',
    'attn.norm_k.weight': 'attention/norm_k/scale',
    'attn.out_proj.weight': 'attention/out/kernel',
    'ffn.fc1.weight': 'mlp/fc1',
    'ffn.fc2.weight': 'mlp/down/kernel',
    'layer_scale.gamma': 'layer_scale1',
}
_KERNELS = {'mlp/fc1': ('mlp/value/kernel', 'mlp/gate/kernel')}
Tensors = Mapping[str, np.ndarray]


def size_of(encoder: Tensors, decoder: Tensors) -> sizes.Size:
  """What the shapes of the tensors say of the model.

  Raises:
    InputError: those that say it are missing or contradict each other.
  """
  channels, _ = _shape(encoder, 'encoder', 'to_code.weight', 2)
  _, numbers = _shape(encoder, 'encoder', 'patch_embed.weight', 2)
  patch = math.isqrt(numbers // 3)
  if numbers != 3 * patch**2:
    raise errors.InputError('encoder: patch_embed.weight', (numbers,),
                            'is not the width of a square RGB patch')
  return sizes.Size(_tower(encoder, 'encoder', 'patch_embed.weight'),
                    _tower(decoder, 'decoder', 'decoder_embed.weight'),
                    1, patch, channels)


def from_published(encoder: Tensors, decoder: Tensors,
                   patch_order: str = PATCH_ORDERS[0]) -> dict:
  """Our parameters, a nested dict, of the two files' tensors.

  Raises:
    InputError: a tensor is missing, unknown or of the wrong shape.
  """
  size = size_of(encoder, decoder)
  flat = {}
  for part, tensors in zip(PARTS, (encoder, decoder), strict=True):
    tower = getattr(size, part)
    _check(part, tensors, shapes(size, part))
    for theirs, ours in _OUTER[part].items():
      flat[f'{ours}/kernel'] = tensors[f'{theirs}.weight'].T
      flat[f'{ours}/bias'] = tensors[f'{theirs}.bias']
    for theirs, ours in _BLOCK.items():
      blocks = [tensors[f'{part}_blocks.{n}.{theirs}']
                for n in range(tower.depth)]
      stacked = np.stack([x.T for x in blocks])
      for name, x in _split(ours, stacked, tower.heads).items():
        flat[f'{part}/blocks/{name}'] = x
  _reorder(flat, size.patch, patch_order, inverse=False)
  return weights.nest(
      {name: np.ascontiguousarray(x) for name, x in flat.items()})


def to_published(params: Mapping, size: sizes.Size,
                 patch_order: str = PATCH_ORDERS[0]
                 ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Tensors of the two files, encoder and decoder, of our parameters.

  Raises:
    InputError: a parameter is missing, has no place in the files or another
      shape than there, or tubelets are of several frames.
  """
  if size.tubelet != 1:
    raise errors.InputError('config.model.name', str(size), 'has tubelets of '
                            f'{size.tubelet} frames, the files of ViTok-v2 '
                            'hold patches of one')
  flat = weights.flatten(params)
  places = {f'{ours}/{leaf}' for part in PARTS
            for ours in _OUTER[part].values() for leaf in ('kernel', 'bias')}
  places |= {f'{part}/blocks/{name}' for part in PARTS
             for ours in _BLOCK.values()
             for name in _KERNELS.get(ours, (ours,))}
  wrong = sorted(places ^ set(flat))
  if wrong:
    raise errors.InputError(
        'params', wrong[0], 'has no place in the files of ViTok-v2'
        if wrong[0] in flat else 'is missing')
  _reorder(flat, size.patch, patch_order, inverse=True)
  files = []
  for part in PARTS:
    tower, tensors = getattr(size, part), {}
    for theirs, ours in _OUTER[part].items():
      tensors[f'{theirs}.weight'] = flat[f'{ours}/kernel'].T
      tensors[f'{theirs}.bias'] = flat[f'{ours}/bias']
    for theirs, ours in _BLOCK.items():
      stacked = _join(ours, flat, f'{part}/blocks', tower.heads)
      for n, x in enumerate(stacked):
        tensors[f'{part}_blocks.{n}.{theirs}'] = x.T
    tensors = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
    _check(part, tensors, shapes(size, part))
    files.append(tensors)
  return tuple(files)


def shapes(size: sizes.Size, part: str) -> dict[str, tuple[int, ...]]:
  """Shape of every published tensor of 'encoder' or 'decoder'."""
  tower = getattr(size, part)
  w, f, c = tower.width, tower.hidden('swiglu'), size.channels
  numbers = 3 * size.patch**2
  outer = {'encoder': {'patch_embed': (w, numbers), 'to_code': (c, w)},
           'decoder': {'decoder_embed': (w, c),
                       'to_pixels': (numbers, w)}}[part]
  found = {}
  for name, shape in outer.items():
    found |= {f'{name}.weight': shape, f'{name}.bias': shape[:1]}
  block = {
      'norm1.weight': (w,), 'attn.qkv_proj.weight': (3 * w, w),
      'attn.norm_q.weight': (tower.head_dim,),
      'attn.norm_k.weight': (tower.head_dim,),
      'attn.out_proj.weight': (w, w), 'ffn.fc1.weight': (2 * f, w),
      'ffn.fc2.weight': (w, f), 'layer_scale.gamma': (w,)}
  return found | {f'{part}_blocks.{n}.{name}': shape
                  for n in range(tower.depth) for name, shape in block.items()}


def _split(ours, x_Nx, heads):
  """Our arrays of one kind of published tensor, stacked and transposed."""
  if ours == 'mlp/fc1':
    return dict(zip(_KERNELS[ours], np.split(x_Nx, 2, -1), strict=True))
  if ours == 'attention/qkv/kernel':
    x_NxWx3xHxK = x_Nx.reshape(*x_Nx.shape[:2], 3, heads, -1)
    x_Nx = x_NxWx3xHxK.swapaxes(2, 3).reshape(x_Nx.shape)
  return {ours: x_Nx}


def _join(ours, flat, prefix, heads):
  """Inverse of `_split`."""
  if ours == 'mlp/fc1':
    return np.concatenate([flat[f'{prefix}/{name}']
                           for name in _KERNELS[ours]], -1)
  x_Nx = flat[f'{prefix}/{ours}']
  if ours == 'attention/qkv/kernel':
    x_NxWxHx3xK = x_Nx.reshape(*x_Nx.shape[:2], heads, 3, -1)
    x_Nx = x_NxWxHx3xK.swapaxes(2, 3).reshape(x_Nx.shape)
  return x_Nx


def _reorder(flat, patch, order, inverse):
  """Patches from the release's order of numbers to ours, in place."""
  errors.one_of('patch_order', order, PATCH_ORDERS)
  if order == 'colour_last':
    return
  theirs = np.arange(3 * patch**2).reshape(3, patch, patch)
  ours = theirs.transpose(1, 2, 0).ravel()  # Place in theirs of each of ours.
  index = np.argsort(ours) if inverse else ours
  flat['encoder/embed/kernel'] = flat['encoder/embed/kernel'][index]
  for leaf in ('kernel', 'bias'):
    name = f'decoder/unembed/{leaf}'
    flat[name] = flat[name][..., index]


def _tower(tensors, part, embed):
  width = _shape(tensors, part, embed, 2)[0]
  head, = _shape(tensors, part, f'{part}_blocks.0.attn.norm_q.weight', 1)
  _, hidden = _shape(tensors, part, f'{part}_blocks.0.ffn.fc2.weight', 2)
  numbers = [int(match[1]) for match in (
      re.match(rf'{part}_blocks\.(\d+)\.', name) for name in tensors) if match]
  if width % head or hidden % 16:
    raise errors.InputError(
        part, None, f'has heads of {head} in a width of {width} and {hidden} '
        'hidden units: not ViTok-v2')
  depth = max(numbers) + 1
  usual = sizes.Tower(width, depth, width // head, 4.005)
  if usual.hidden('swiglu') == hidden:
    return usual
  return sizes.Tower(width, depth, width // head,
                     round(3 * hidden / (2 * width), 6))


def _shape(tensors, part, name, rank):
  if name not in tensors:
    raise errors.InputError(part, None, f'has no tensor {name}',
                            errors.nearest(name, sorted(tensors)))
  shape = tensors[name].shape
  if len(shape) != rank:
    raise errors.InputError(f'{part}: {name}', shape, f'has not {rank} axes')
  return shape


def _check(part, tensors, expected):
  """Refuses tensors that are not those expected; names the first."""
  found = {name: tuple(x.shape) for name, x in tensors.items()}
  wrong = [name for name in sorted(found | expected)
           if found.get(name) != expected.get(name)]
  if wrong:
    name, more = wrong[0], len(wrong) - 1
    reason = (
        'is missing' if name not in found else
        'is not a tensor of ViTok-v2' if name not in expected else
        f'has shape {found[name]}, expected {expected[name]}')
    raise errors.InputError(
        f'{part}: {name}', None,
        reason + (f' (and {more} more are wrong)' if more else ''))
