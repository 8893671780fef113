"""A number's name means one rule and one network."""

import numpy as np
import pytest

from vitok import errors
from vitok.interop import weights
from vitok.metrics import networks, numbers

SHA = '0' * 64


def _define(name, **fields):
  _, network, reference = numbers.NUMBERS[name]
  given = {'weights': SHA if network else ''}
  if reference == 'given':
    given['reference'] = '0123456789ab'
  return numbers.define(name, **given | fields)


@pytest.mark.parametrize('name', numbers.NUMBERS)
def test_every_number_can_be_defined(name):
  made = _define(name)
  assert made.rule and bool(made.network) == bool(made.resize)
  assert bool(made.network) == bool(made.weights)


def test_networks_are_those_that_can_be_fetched():
  known = networks.DISTANCES | networks.FEATURES
  assert set(numbers.NETWORKS) == {'', *known}
  assert {file for network in known.values() for file in network.files} <= set(
      weights.NAMES)


def test_reconstructions_are_compared_with_their_originals_alone():
  assert _define('rfid').reference == 'originals'
  with pytest.raises(ValueError, match='reference'):
    _define('rfid', reference='0123456789ab')


def test_released_variants_are_never_equal_to_the_standard_number():
  for name in ('rfid', 'ris'):
    ours, released = _define(name), _define(f'released_{name}')
    assert ours.network != released.network and ours.resize != released.resize


@pytest.mark.parametrize('name, fields', [
    ('rfid', {'weights': ''}), ('released_psnr', {'weights': SHA}),
    ('gfid', {'reference': ''}), ('ris', {'reference': '0123456789ab'}),
    ('rkid', {'reference': '0123456789ab'})])
def test_definitions_that_say_too_little_or_too_much_are_errors(name, fields):
  with pytest.raises(ValueError, match=name):
    _define(name, **fields)


def test_an_unknown_number_is_refused():
  with pytest.raises(errors.InputError, match="nearest valid choice: rfid$"):
    numbers.define('fid', weights=SHA)


def test_pooled_psnr_is_lower_and_depends_on_the_batch():
  mse = 10 ** -np.random.default_rng(0).uniform(2, 4, 100)
  each = np.mean(-10 * np.log10(mse))
  pooled = [numbers.pooled_psnr(mse, batch) for batch in (1, 4, 16, 100)]
  np.testing.assert_allclose(pooled[0], each, rtol=1e-12)
  assert pooled == sorted(pooled, reverse=True) and pooled[-1] < each - 1
  np.testing.assert_allclose(pooled[-1], -10 * np.log10(mse.mean()),
                             rtol=1e-12)
