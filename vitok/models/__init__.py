"""Networks: `build` makes the auto-encoder that a config describes."""

import math
from typing import Any

from vitok import accounting, errors, fields, sizes
from vitok.models import attention, autoencoder, layers, positions, stack
from vitok.models.autoencoder import AutoEncoder, Patches
from vitok.models.bottlenecks import BOTTLENECKS, Code

__all__ = ('AutoEncoder', 'BOTTLENECKS', 'Code', 'Patches', 'arithmetic',
           'build', 'radices', 'spec')

_CHOICES = {
    'mlp': layers.MLPS,
    'norm': layers.NORMS,
    'positions': positions.NAMES,
    'block': stack.BLOCKS,
    'bottleneck': BOTTLENECKS,
    'projection': autoencoder.PROJECTIONS,
    'head': autoencoder.HEADS,
    'attention': attention.IMPLEMENTATIONS,
    'remat': stack.REMAT,
    'dtype': layers.DTYPES,
}


def build(model, *, frames: int, resolution: int) -> AutoEncoder:
  """The auto-encoder of `config.model`; starts no device.

  Args:
    model: `config.model`.
    frames: of a clip; 1 for images.
    resolution: height and width in pixels.

  Raises:
    InputError: an unknown name, or sizes that do not fit each other.
  """
  for key, choices in _CHOICES.items():
    errors.one_of(f'config.model.{key}', model[key], tuple(choices))
  size = sizes.from_config(model)
  grid = size.grid(frames, resolution)
  _check_quantizer(model, size.channels)
  _check_window(model, grid[0], size.latents)
  if not (model.bias or model.key_bias):
    raise errors.InputError('config.model.key_bias', False,
                            'is not read by config.model.bias=False', True)
  for tower in (size.encoder, size.decoder):
    _check_tower(model, tower, (model.window or grid[0], *grid[1:]),
                 size.latents)
  _check_keep(model.keep, size.latents or math.prod(grid))
  options = ('mlp', 'norm', 'positions', 'block', 'layer_scale', 'qk_norm',
             'bias', 'key_bias', 'sub_norm', 'final_norm', 'attention',
             'window', 'scan', 'remat')
  return AutoEncoder(
      size=size, grid=grid, trunk={key: model[key] for key in options},
      bottleneck_name=model.bottleneck, quantizer=_options(model),
      keep=model.keep, cls=model.cls, projection=model.projection,
      head=model.head, dtype=layers.DTYPES[model.dtype])


def arithmetic(model) -> dict[str, Any]:
  """The fields of `accounting.Spec` that are of `config.model`."""
  return {name: model[name] for name in accounting.OPTIONS} | (
      BOTTLENECKS[model.bottleneck].arithmetic(
          sizes.from_config(model).channels, _options(model)))


def spec(model, frames: int, resolution: int) -> accounting.Spec:
  """What the accounting takes `config.model` for, on clips of such a shape."""
  return accounting.Spec(sizes.from_config(model), frames, resolution,
                         **arithmetic(model))


def radices(model) -> tuple[int, ...]:
  """How many values each of the integers of a token of `config.model`'s code
  has; () where the code is of floats."""
  return BOTTLENECKS[model.bottleneck].radices(
      sizes.from_config(model).channels, _options(model))


def _options(model):
  """Fields of `config.model.quantizer` that its bottleneck reads."""
  return {name: model.quantizer[name]
          for name in BOTTLENECKS[model.bottleneck].reads}


def _check_quantizer(model, channels):
  """Refuses what makes no code, and options that nothing would read."""
  kind = BOTTLENECKS[model.bottleneck]
  usual = fields.FIELDS['model']['quantizer']
  for name, value in model.quantizer.items():
    if name not in kind.reads and value != usual[name]:
      raise errors.InputError(
          f'config.model.quantizer.{name}', value, 'is not read by '
          f'config.model.bottleneck={model.bottleneck!r}', usual[name])
  kind.check(channels, _options(model))


def _check_window(model, steps, latents):
  """Refuses parts of a clip that are no clips of their own."""
  if not model.window:
    return
  if model.window < 0 or steps % model.window:
    raise errors.InputError(
        'config.model.window', model.window,
        f'does not divide the {steps} time steps of a clip',
        math.gcd(steps, model.window))
  if latents:
    raise errors.InputError('config.model.window', model.window,
                            'has no place for latent tokens', 0)
  if model.cls:
    raise errors.InputError('config.model.window', model.window,
                            'has no place for a CLS token', 0)
  if model.positions == 'sincos' or positions.has_table(model.positions):
    raise errors.InputError('config.model.positions', model.positions,
                            'differs between the parts of a clip that '
                            f'config.model.window={model.window} makes',
                            'rope3d')


def _check_keep(keep, tokens):
  """Refuses lengths that are not those of a code of so many tokens."""
  if not keep:
    return
  fitting = (*sorted({n for n in keep if 0 < n < tokens}), tokens)
  reason = ('has a length below 1' if min(keep) < 1 else
            f'is longer than the code of {tokens} tokens'
            if max(keep) > tokens else
            'does not rise' if list(keep) != sorted(set(keep)) else
            f'leaves the tail of the {tokens} tokens untrained: the last '
            'length is the whole code' if keep[-1] != tokens else None)
  if reason:
    raise errors.InputError('config.model.keep', keep, reason, fitting)


def _check_tower(model, tower, grid, latents):
  misfit = positions.misfit(model.positions, grid, tower, latents)
  if misfit:
    fitting = (name for name in positions.NAMES
               if not positions.misfit(name, grid, tower, latents))
    raise errors.InputError('config.model.positions', model.positions,
                            misfit, next(fitting, None))
  if model.attention != 'cudnn':
    return
  if tower.head_dim % 8 or tower.head_dim > 128:
    raise errors.InputError(
        'config.model.attention', 'cudnn', 'needs a head dimension of 8n, '
        f'at most 128, not {tower.head_dim}', 'xla')
  if model.dtype != 'bfloat16':
    raise errors.InputError('config.model.attention', 'cudnn',
                            f'cannot compute in {model.dtype}', 'xla')
