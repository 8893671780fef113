"""Published weights for tests: used where the cache has them."""

import pytest

from vitok.interop import weights


def load(name):
  """Parameters of a network, or a skip that says what is not checked."""
  if not weights.is_cached(name):
    pytest.skip(f'NOT CHECKED on the real weights of {weights.NAMES[name]}: '
                f'they are not in {weights.cache_dir()}; get them with '
                f'`{weights.command(name)}`')
  return weights.load(name)
