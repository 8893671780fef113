"""Finding 4: a larger decoder reconstructs better, but E counts for more.

Reproduces figures 8 and 9 of ViTok (arXiv 2501.09755, section 4.2): PSNR and
SSIM against the decoder's parameters, and gFID of a DiT on the codes. In the
paper a doubling of the decoder is worth +.14 dB, one of E about 2 dB, and
gFID hardly moves.

Varied: the decoder, at least four sizes (three at `:paper`, which are all the
paper has), at two or three values of E by the channels, where the paper has
one: a decoder that has less to go by may have more to make up. Held: the
encoder, patch, data, batch, steps, losses; and the price of a nat, which the
paper's mean over the code would make the cheaper the larger E (at 16
channels, the paper's, both forms of the loss are equal).

Judged: the slope of PSNR over log2 of the decoder's parameters is above
0.05 dB per doubling, the margin within which the encoder is said to have no
effect; it is within 0.5 dB, a quarter of what the paper gets from a doubling
of E; and it changes by less than 0.1 dB from one E to the double. The
smallest and the largest decoder are also trained three times as long and at
three learning rates, since the effect is about as large as that of a learning
rate that is wrong by a factor of two. Beyond `:cpu` two seeds of a DiT (arm
`generator`) are trained on the codes of each size at 16 channels, of one seed:
the slope of log2 gFID is within 0.1 per doubling. Their steps and rate are
those of `generation_scaling`, which probes them. `:cpu20` is `:cpu` with LPIPS
and the kernel distance of Inception features (rKID) where their networks have
been fetched: half an hour.
"""

from vitok import sizes, sweeps

CONFIG = 'configs/vitok.py'

# towers: {decoder: peak learning rate}, for each of the channels; tuned: the
# channels at which the ends are trained at other rates; generated: those whose
# codes a DiT is trained on. At `:cpu` depth alone varies, since a tower that is
# narrower than a patch's 192 numbers would be a second bottleneck.
TWO_CORES = dict(
    towers={'P': 4.6e-3, 'N': 4.6e-3, 'T': 3.3e-3, 'Pd6': 2.8e-3},
    model='P-{}/1x8x{}', channels=(4, 16), tuned=(16,), seeds=2)
PRESETS = {
    'cpu': TWO_CORES,
    'cpu20': TWO_CORES,
    'gpu1': dict(
        towers={'M': 8e-4, 'S': 4e-4, 'B': 4e-4, 'L': 3e-4},
        model='S-{}/1x8x{}', channels=(4, 16, 64), tuned=(4, 64), seeds=2,
        generated=(16,)),
    'gpu': dict(
        towers={'Sd3': 4e-4, 'S': 4e-4, 'B': 4e-4, 'L': 3e-4},
        model='S-{}/1x16x{}', channels=(16, 64), tuned=(16, 64), seeds=2,
        generated=(16,)),
    'paper': dict(
        towers={'S': 4e-4, 'B': 4e-4, 'L': 4e-4},
        model='S-{}/1x16x{}', channels=(4, 16, 64), tuned=(16,), seeds=2,
        layers={'model.remat': 'full'}, generated=(16,)),
}

CLAIMS = (
    dict(name='decoder_has_an_effect', rule='slope_above',
         x='decoder_parameters', adjust=['code_floats'], margin=0.05,
         convergence=dict(absolute=0.025),
         text='A doubling of the decoder is worth more than 0.05 dB of '
         'PSNR.'),
    dict(name='decoder_counts_less_than_code', rule='no_slope',
         x='decoder_parameters', adjust=['code_floats'], margin=0.5,
         text='A doubling of the decoder changes PSNR by less than 0.5 dB, a '
         'quarter of what the paper gets from a doubling of E.'),
    dict(name='decoder_is_worth_the_same_at_every_code', rule='parallel',
         x=['decoder_parameters', 'code_floats'], margin=0.1,
         convergence=dict(absolute=0.05),
         text='What a doubling of the decoder is worth changes by less than '
         '0.1 dB from one E to the double.'),
    dict(name='decoder_counts_little_for_generation', rule='no_slope',
         x='decoder_parameters', y='log2_gfid', margin=0.1,
         where={'generated': 1}, arms=['generator'], seed_sd=0.05,
         requires=['complete', 'seeds'],
         text='A doubling of the decoder changes gFID by less than 7%.'),
)


def units(preset):
  """The runs of a preset.

  Args:
    preset: key of `PRESETS`.

  Yields:
    `sweeps.Unit`s, those that share a compiled step side by side.
  """
  numbers, scale = PRESETS[preset], sweeps.SCALES[preset]
  names, channels = list(numbers['towers']), numbers['channels']
  equal = sizes.parse(numbers['model'].format(names[0], 16)).code_floats(
      1, scale['data.resolution'])
  points = {(name, c): sweeps.Point(
      f'dec{name}-c{c}', {
          **scale, **sweeps.price_per_nat(scale, equal),
          **numbers.get('layers', {}),
          'model.name': str(sizes.parse(numbers['model'].format(name, c)))},
      rate, {'generated': 0})
      for name, rate in numbers['towers'].items() for c in channels}
  ends = {c: [points[name, c].name for name in (names[0], names[-1])]
          for c in channels}
  yield from sweeps.expand(
      points.values(), seeds=numbers['seeds'],
      longer=[name for c in (channels[0], channels[-1]) for name in ends[c]],
      tuned=[name for c in numbers['tuned'] for name in ends[c]])
  if 'generated' in numbers:
    yield from sweeps.generators(
        [points[name, c] for c in numbers['generated'] for name in names],
        preset)
