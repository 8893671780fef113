"""Whether the model of a config is that of the run whose parameters it takes.

Names and shapes of parameters do not tell: other positions, other heads and
other norms have the same ones.
"""

import dataclasses
from collections.abc import Collection
from typing import Any

from vitok import config as config_lib
from vitok import errors, sizes

# How a model is computed, not what.
_FREE = ('model.attention', 'model.remat', 'model.scan', 'model.dtype')
# What leaves the code as it is, which `keep` cuts only once it is made.
_DECODER = ('model.decoder', 'model.keep')
_NAME = 'model.name'


def check(config: Any, own: Any, whose: str, *, decoder: bool = True,
          also: Collection[str] = ()) -> None:
  """Refuses a config that describes another model.

  Args:
    config: of the run that takes parameters.
    own: config of the run that they are of.
    whose: what that run is, for the message.
    decoder: whether the decoder must be its, too, or only what makes the code.
    also: keys that must be equal beside `model`'s.

  Raises:
    InputError: with the first field that differs, its value and the run's.
  """
  free = _FREE if decoder else _FREE + _DECODER
  theirs = config_lib.flatten(own)
  for key, value in config_lib.flatten(config).items():
    if not (key.startswith('model.') or key in also) or any(
        f'{key}.'.startswith(f'{other}.') for other in free):
      continue
    if value == theirs[key] or key == _NAME and not decoder and (
        _encoder(value) == _encoder(theirs[key])):
      continue
    raise errors.InputError(f'config.{key}', value, f'is not that of {whose}',
                            theirs[key])


def _encoder(name):
  return dataclasses.replace(sizes.parse(name), decoder=None)
