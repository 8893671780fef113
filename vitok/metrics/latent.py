"""How many bits a code really takes, for any bottleneck.

Floats are not bits: a latent of E floats can be stored with few bits each. The
rule, stated once: round the latent means, less their average in each channel,
to multiples of one step, the same for all channels; take the largest step whose
reconstructions lose at most `TOLERANCE_DB` of mean PSNR (found by halving, then
bisection); code the integers with an adaptive arithmetic coder that keeps one
histogram a channel; divide by the number of examples. One step for all channels
and independent tokens make this an upper bound on what a better coder would
need. Discrete codes are coded likewise, without loss.

N: examples, L: tokens, c: channels.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from scipy import special

TOLERANCE_DB = 0.1
_RANGE_BITS = 32  # Lowest and highest symbol of a channel, 16 bits each.
_OFFSET_BITS = 32  # Average of a channel, a float32.
_HALVINGS = 30  # From all-zero down to 1e-9 of the largest mean.
_BISECTIONS = 4  # The step is within 2^(1/16), 0.06 bits a float, of the best.


@dataclasses.dataclass(frozen=True)
class CodedBits:
  """Entropy-coded size of a code.

  Attributes:
    bits: per example, mean over the examples coded.
    step: quantisation step in units of the latent; 0 for discrete codes.
    lost: dB of mean PSNR lost by rounding.
    count: examples coded.
  """
  bits: float
  step: float
  lost: float
  count: int


def adaptive_bits(symbols_NxLxc: np.ndarray) -> float:
  """Length of all symbols under an adaptive coder with a histogram a channel.

  The coder of a channel starts from half a count for each integer between the
  channel's lowest and highest symbol and counts what it has seen (Krichevsky
  and Trofimov 1981). Its length does not depend on the order, includes what
  it pays for learning the histogram (the entropy of the final histogram would
  leave that out and be too low for few examples), and can be decoded.

  Args:
    symbols_NxLxc: integers.

  Returns:
    Bits for all N examples together.
  """
  total = 0.0
  for symbols in np.moveaxis(np.asarray(symbols_NxLxc), -1, 0):
    low, high = int(symbols.min()), int(symbols.max())
    _, counts = np.unique(symbols, return_counts=True)
    levels = high - low + 1
    nats = (special.gammaln(symbols.size + levels / 2)
            - special.gammaln(levels / 2)
            - np.sum(special.gammaln(counts + 0.5) - special.gammaln(0.5)))
    total += nats / math.log(2) + _RANGE_BITS
  return float(total)


def coded_bits(function: Callable[[Mapping], Mapping],
               batches: Iterable[Mapping], count: int = 256,
               tolerance: float = TOLERANCE_DB) -> CodedBits:
  """Entropy-coded bits per example at a loss of at most `tolerance` dB.

  Args:
    function: `reconstruction.quantised`, bound to a model's variables: takes a
      batch with 'step' and 'offset' (c,), returns numpy 'psnr' (B,) and
      'symbols' (B, L, c); step 0 does not round and gives the means (or ids).
    batches: in evaluation order; as many as hold `count` examples are kept.
    count: examples to code; about ten reconstructions of each are made.
    tolerance: dB of mean PSNR.

  Returns:
    What the code takes.

  Raises:
    ValueError: no example, or no step keeps the tolerance.
  """
  kept, rows = [], 0
  for batch in batches:
    mask = np.array(batch['mask'], bool)
    mask &= rows + np.cumsum(mask) <= count
    kept.append((batch, mask))
    rows += int(mask.sum())
    if rows >= count:
      break
  if not rows:
    raise ValueError('no example to code')

  def run(step: float, offset_c: np.ndarray) -> tuple[float, np.ndarray]:
    psnr, symbols = [], []
    for batch, mask in kept:
      values = function(dict(batch, step=np.float32(step), offset=offset_c))
      psnr.append(np.asarray(values['psnr'])[mask])
      symbols.append(np.asarray(values['symbols'])[mask])
    return float(np.concatenate(psnr).mean(dtype=np.float64)
                 ), np.concatenate(symbols)

  best_psnr, means = run(0.0, np.zeros(1, np.float32))
  if np.issubdtype(means.dtype, np.integer):
    return CodedBits(adaptive_bits(means) / rows, 0.0, 0.0, rows)

  # Without it, a channel that hardly varies would be moved as a whole to the
  # nearest multiple, and the loss would jump up and down with the step.
  offset_c = means.mean((0, 1), dtype=np.float64).astype(np.float32)
  # Every mean rounds to 0.
  step = 2.5 * float(np.abs(means - offset_c).max())
  good = None
  for _ in range(_HALVINGS):
    psnr, symbols = run(step, offset_c)
    if best_psnr - psnr <= tolerance:
      good = (step, psnr, symbols)
      break
    step /= 2
  if good is None:
    raise ValueError(f'no step loses less than {tolerance} dB')
  low, high = step, 2 * step
  for _ in range(_BISECTIONS):
    step = math.sqrt(low * high)
    psnr, symbols = run(step, offset_c)
    if best_psnr - psnr <= tolerance:
      low, good = step, (step, psnr, symbols)
    else:
      high = step
  step, psnr, symbols = good
  bits = (adaptive_bits(symbols.astype(np.int64))
          + _OFFSET_BITS * len(offset_c))
  return CodedBits(bits / rows, step, best_psnr - psnr, rows)
