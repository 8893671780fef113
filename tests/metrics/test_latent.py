"""Entropy-coded bits of a code."""

import math

import numpy as np
import pytest

from vitok.metrics import latent


def _one_by_one(symbols):
  """The adaptive coder, literally: a probability for each symbol in turn."""
  bits = 0.0
  for channel in np.moveaxis(symbols, -1, 0):
    counts = np.full(channel.max() - channel.min() + 1, 0.5)
    for symbol in channel.ravel() - channel.min():
      bits -= math.log2(counts[symbol] / counts.sum())
      counts[symbol] += 1
  return bits + 32 * symbols.shape[-1]


def test_length_is_that_of_coding_symbol_by_symbol():
  symbols = np.random.default_rng(0).binomial(9, .3, (6, 5, 3)) - 4
  np.testing.assert_allclose(latent.adaptive_bits(symbols),
                             _one_by_one(symbols), rtol=1e-12)


def test_length_approaches_the_entropy():
  rng = np.random.default_rng(0)
  probability = np.array([.5, .25, .125, .125])  # 1.75 bits.
  symbols = rng.choice(4, (4000, 16, 1), p=probability)
  np.testing.assert_allclose(
      latent.adaptive_bits(symbols) / symbols.size, 1.75, rtol=5e-3)


def test_a_constant_channel_costs_only_its_range():
  assert latent.adaptive_bits(np.full((50, 4, 3), 7)) == pytest.approx(96)


def _decoder(means, noise=.1):
  """A codec whose MSE is `noise`^2 plus that of rounding the means."""
  def function(batch):
    step, here = float(batch['step']), means[batch['index']]
    away = here - batch['offset']
    symbols = np.round(away / step) if step else here
    error = (symbols * step - away if step else 0 * here) ** 2
    return {'psnr': -10 * np.log10(noise**2 + error.mean((1, 2))),
            'symbols': symbols}
  return function


def _batches(count, size):
  for start in range(0, count, size):
    index = np.arange(start, start + size)
    yield {'mask': index < count, 'index': np.minimum(index, count - 1)}


def test_step_is_the_largest_that_keeps_the_tolerance():
  """Rounding adds step^2 / 12 to the MSE: 0.1 dB allow step = .53 noise."""
  means = np.random.default_rng(0).normal(size=(64, 32, 4))
  coded = latent.coded_bits(_decoder(means), _batches(64, 16))
  allowed = math.sqrt(12 * .1**2 * (10**.01 - 1))
  assert allowed * 2**(-1 / 16) * .99 < coded.step < allowed * 1.01
  assert 0 < coded.lost <= latent.TOLERANCE_DB
  assert coded.count == 64
  # Entropy of a unit Gaussian at that step, and the cost of learning it.
  entropy = .5 * math.log2(2 * math.pi * math.e) - math.log2(coded.step)
  assert entropy < coded.bits / (32 * 4) < 1.05 * entropy


def test_bits_do_not_depend_on_batch_size_or_padding():
  means = np.random.default_rng(0).normal(size=(20, 8, 2))
  coded = [latent.coded_bits(_decoder(means), _batches(20, size))
           for size in (1, 7, 64)]
  assert coded[0] == coded[1] == coded[2]


def test_only_the_first_examples_are_coded():
  means = np.random.default_rng(0).normal(size=(20, 8, 2))
  part = latent.coded_bits(_decoder(means), _batches(20, 8), count=10)
  alone = latent.coded_bits(_decoder(means[:10]), _batches(10, 5))
  assert part == alone and part.count == 10


def test_collapsed_channels_cost_their_description_only():
  """Whatever their average, tiny means round to it."""
  means = np.random.default_rng(0).normal(size=(64, 32, 4))
  wide = np.concatenate([means, 7.77 + 1e-4 * means], -1)
  # The mean error over twice the channels is half: keep it the same.
  narrow = latent.coded_bits(_decoder(means), _batches(64, 64))
  coded = latent.coded_bits(_decoder(wide, noise=.1 / 2**.5),
                            _batches(64, 64))
  # The step is found between multiples of another start: 0.06 bits a float.
  allowed = 1 / 16 * 32 * 4
  assert coded.bits == pytest.approx(narrow.bits + 4 * 64 / 64, abs=allowed)


def test_a_constant_code_takes_its_description_only():
  coded = latent.coded_bits(_decoder(np.full((4, 8, 2), .3)), _batches(4, 4))
  assert coded.bits == 2 * 64 / 4 and coded.lost < 1e-9


def test_discrete_codes_are_coded_without_rounding():
  ids = np.random.default_rng(0).integers(0, 8, (64, 16, 1))

  def function(batch):
    return {'psnr': np.ones(len(batch['index'])),
            'symbols': ids[batch['index']]}
  coded = latent.coded_bits(function, _batches(64, 64))
  assert (coded.step, coded.lost) == (0, 0)
  assert coded.bits == latent.adaptive_bits(ids) / 64


def test_a_broken_model_is_an_error_and_not_a_number():
  def function(batch):
    return {'psnr': np.full(len(batch['index']), np.nan),
            'symbols': np.ones((len(batch['index']), 2, 2))}
  with pytest.raises(ValueError, match='no step'):
    latent.coded_bits(function, _batches(4, 4))
  with pytest.raises(ValueError, match='no example'):
    latent.coded_bits(function, [])
