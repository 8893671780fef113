"""Which bottleneck makes the most of its bits?

Reproduces no figure of a single paper: VQ (arXiv 1711.00937), FSQ (2309.15505),
LFQ (2310.05737), BSQ (2406.07548) and ViTok's Gaussian codes (2501.09755) were
each measured on other data, other towers and other bits. Here every kind is
trained in one auto-encoder by one protocol, at equal bits.

Varied: the kind, and the bits of a token, by the size of the codebook, by
levels, or by channels. 'residual' and 'product' are VQ in two stages and in two
parts, of half of the bits each. Held: towers, patch and so L, data, batch,
steps, learning rate, losses and their weights, which for codes are the
defaults; only FSQ has no such loss.

Bits. A discrete code has L log2(codes of a token), as it is stored without a
model of it. A Gaussian code is of floats, and has as many bits as one makes
of it. The rule (`vitok.metrics.latent`): the means are rounded to multiples of
one step, the largest that loses at most 0.1 dB of mean PSNR, and the integers
are coded by adaptive histograms. So it is what a file of such codes takes when
nothing that a figure shows is lost. Its PSNR is that of the means that are not
rounded, 0.1 dB too much at most; and its entropy coder is an advantage that
discrete codes are not given (columns `coded_bits` have what it would make of
them). Its channels are those whose bits come near.

Judged: quality rises with the bits of a kind; at equal bits kinds are within
0.5 dB of PSNR, and within 0.02 of LPIPS, rms over the units (equivalence,
beside bits: columns `vq`, `fsq`, ... are 2 for a kind and 1 for others). The
smallest and largest code of each kind is trained three times as long, the
middle one with a second seed; three learning rates are tried at the ends of
three kinds. A patch PCA has floats too, and is drawn for Gaussian codes alone.
"""

from vitok import sweeps

CONFIG = 'configs/vitok.py'

# bits: of a token; gaussian: channels of codes that come near them.
PRESETS = {
    'cpu': dict(
        scale='cpu20', model='Aw64h2-Aw64h2/1x4', bits=(4, 8, 12),
        gaussian=(1, 2, 3), rate=4.6e-3, multiples=(0.4, 2.5),
        layers={'model.scan': False}),
    'gpu1': dict(
        scale='gpu1', model='S-B/1x8', bits=(6, 10, 14), gaussian=(2, 3, 4),
        rate=4e-4, multiples=(0.5, 2.0), layers={}),
    'gpu': dict(
        scale='gpu', model='S-B/1x16', bits=(6, 10, 14), gaussian=(2, 3, 4),
        rate=4e-4, multiples=(0.5, 2.0), layers={}),
    'paper': dict(
        scale='paper', model='S-B/1x16', bits=(6, 10, 14), gaussian=(2, 3, 4),
        rate=4e-4, multiples=(0.5, 2.0), layers={'model.remat': 'full'}),
}

ENTRY = 8  # Channels of an entry of a codebook.
TUNED = ('gaussian', 'vq', 'bsq')


def codes(bits: int) -> dict[str, tuple[int, dict]]:
  """{discrete kind: (channels, overrides)} of so many bits a token."""
  quantizer = 'model.quantizer.'
  half = {f'{quantizer}size': 2**(bits // 2)}
  return {
      'vq': (ENTRY, {'model.bottleneck': 'vq', f'{quantizer}size': 2**bits}),
      'residual': (ENTRY, {'model.bottleneck': 'vq',
                           f'{quantizer}residual': 2, **half}),
      'product': (ENTRY, {'model.bottleneck': 'vq',
                          f'{quantizer}product': 2, **half}),
      'fsq': (bits // 2, {'model.bottleneck': 'fsq',
                          f'{quantizer}levels': (4,) * (bits // 2)}),
      'lfq': (bits, {'model.bottleneck': 'lfq'}),
      'bsq': (bits, {'model.bottleneck': 'bsq'}),
  }


KINDS = tuple(codes(2))  # Beside 'gaussian', which they are compared with.

_SHARED = dict(x='code_bits', adjust=list(KINDS), requires=[
    'complete', 'convergence', 'rates', 'seeds', 'width'])

CLAIMS = (
    dict(_SHARED, name='bits_set_quality', rule='slope_above', margin=1.0,
         text='A doubling of the bits of a code of one kind is worth more than '
         '1 dB of PSNR.'),
    dict(_SHARED, name='kinds_reconstruct_alike', rule='suffices', margin=0.5,
         text='At equal bits the kind of bottleneck moves PSNR by less than '
         '0.5 dB, rms over the units.'),
    dict(_SHARED, name='kinds_look_alike', rule='suffices', margin=0.02,
         y='lpips_alex',
         text='At equal bits the kind of bottleneck moves LPIPS by less than '
         '0.02, rms over the units.'),
)


def units(preset):
  """The runs of a preset.

  Args:
    preset: key of `PRESETS`.

  Yields:
    `sweeps.Unit`s, those that share a compiled step side by side.
  """
  numbers = PRESETS[preset]
  scale = {**sweeps.SCALES[numbers['scale']], **numbers['layers']}
  bits, points, ends = numbers['bits'], [], []
  for kind in ('gaussian', *KINDS):
    for number, width in enumerate(bits):
      channels, changes = (codes(width) | {'gaussian': (
          numbers['gaussian'][number], {})})[kind]
      points.append(sweeps.Point(
          f'{kind}{width}',
          {**scale, 'model.name': f'{numbers["model"]}x{channels}', **changes},
          numbers['rate'],
          {'kind': kind, **{other: 1 + (other == kind) for other in KINDS}}))
      if width in (bits[0], bits[-1]):
        ends.append(points[-1].name)
  yield from sweeps.expand(
      points, seeds={point.name: 2 for point in points
                     if point.name not in ends},
      longer=ends, multiples=numbers['multiples'],
      tuned=[name for name in ends if name.startswith(TUNED)])
