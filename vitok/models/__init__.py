"""Networks: `build` makes the auto-encoder that a config describes."""

from vitok import errors, sizes
from vitok.models import attention, layers, positions, stack
from vitok.models.autoencoder import AutoEncoder
from vitok.models.bottlenecks import BOTTLENECKS, Code

__all__ = ('AutoEncoder', 'BOTTLENECKS', 'Code', 'build')

_CHOICES = {
    'mlp': layers.MLPS,
    'norm': layers.NORMS,
    'positions': positions.NAMES,
    'bottleneck': BOTTLENECKS,
    'attention': attention.IMPLEMENTATIONS,
    'remat': stack.REMAT,
    'dtype': layers.DTYPES,
}


def build(model, *, frames: int, resolution: int) -> AutoEncoder:
  """The auto-encoder of `config.model`.

  Args:
    model: `config.model`.
    frames: of a clip; 1 for images.
    resolution: height and width in pixels.

  Raises:
    InputError: an unknown name or an impossible size.
  """
  for key, choices in _CHOICES.items():
    errors.one_of(f'config.model.{key}', model[key], tuple(choices))
  size = sizes.from_config(model)
  options = ('mlp', 'norm', 'positions', 'attention', 'scan', 'remat')
  return AutoEncoder(
      size=size, grid=size.grid(frames, resolution),
      trunk={key: model[key] for key in options},
      bottleneck_name=model.bottleneck, dtype=layers.DTYPES[model.dtype])
