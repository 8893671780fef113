"""Finding 4: a larger decoder reconstructs better, but E counts for more.

Reproduces the reconstruction half of figures 8 and 9 of ViTok (arXiv
2501.09755, section 4.2): PSNR and SSIM against the decoder's parameters. In
the paper a doubling of the decoder is worth +.14 dB, one of E about 2 dB.

Varied: the decoder, at least four sizes (three at `:paper`, which are all the
paper has). Held: the encoder, patch, channels and so E, data, batch, steps,
losses. Three seeds for each size.

Judged: the slope of PSNR over log2 of the decoder's parameters is above
0.05 dB per doubling, the margin within which the encoder is said to have no
effect; and it is within 0.5 dB, a quarter of what the paper gets from a
doubling of E. The smallest and the largest decoder are also trained three
times as long and at three learning rates, since the effect is about as large
as that of a learning rate that is wrong by a factor of two.
"""

from vitok import sweeps

CONFIG = 'configs/vitok.py'

# sizes: {decoder: peak learning rate}. At `:cpu` depth alone varies, since a
# narrower tower than a patch's 192 numbers would be a second bottleneck.
PRESETS = {
    'cpu': dict(
        sizes={'P': 2.3e-3, 'N': 2.3e-3, 'T': 2.3e-3, 'Pd8': 2.3e-3},
        model='P-{}/8', steps=400, seeds=3, multiples=(0.5, 2.0),
        remat='none',
        # Windows are random already, and enlarged crops blur 32 pixels.
        data=dict(sources=('photographs',), resolution=32, crop='center'),
        batch_size=32,
        evaluation=dict(every=200, split='test',
                        batch_size=64, count=512, coded=64),
        logging=dict(every=50, tensorboard=False), dtype='float32'),
    'gpu1': dict(
        sizes={'M': 8e-4, 'S': 4e-4, 'B': 4e-4, 'L': 3e-4},
        model='S-{}/8', steps=10_000, seeds=3, multiples=(0.5, 2.0),
        remat='none',
        data=dict(sources=('tfds:imagenet_resized/64x64',), resolution=64),
        batch_size=256,
        evaluation=dict(every=2500, split='validation',
                        batch_size=500, count=5_000),
        logging=dict(every=100, tensorboard=True), dtype='bfloat16'),
    'gpu': dict(
        sizes={'Sd3': 4e-4, 'S': 4e-4, 'B': 4e-4, 'L': 3e-4},
        model='S-{}/16', steps=25_000, seeds=3, multiples=(0.5, 2.0),
        remat='none',
        data=dict(sources=('tfds:imagenet2012',), resolution=256),
        batch_size=512,
        evaluation=dict(every=5000, split='validation',
                        batch_size=512, count=0),
        logging=dict(every=100, tensorboard=True), dtype='bfloat16'),
    'paper': dict(
        sizes={'S': 4e-4, 'B': 4e-4, 'L': 4e-4},
        model='S-{}/16', steps=100_000, seeds=3, multiples=(0.5, 2.0),
        remat='full',
        data=dict(sources=('tfds:imagenet2012',), resolution=256),
        batch_size=1024,
        evaluation=dict(every=20_000, split='validation',
                        batch_size=512, count=0),
        logging=dict(every=100, tensorboard=True), dtype='bfloat16'),
}

CLAIMS = (
    dict(name='decoder_has_an_effect', rule='slope_above',
         x='decoder_parameters', margin=0.05,
         convergence=dict(absolute=0.025),
         text='A doubling of the decoder is worth more than 0.05 dB of '
         'PSNR.'),
    dict(name='decoder_counts_less_than_code', rule='no_slope',
         x='decoder_parameters', margin=0.5,
         convergence=dict(absolute=0.025),
         text='A doubling of the decoder changes PSNR by less than 0.5 dB, a '
         'quarter of what the paper gets from a doubling of E.'),
)


def units(preset):
  """The runs of a preset.

  Args:
    preset: key of `PRESETS`.

  Yields:
    `sweeps.Unit`s, those that share a compiled step side by side.
  """
  numbers = PRESETS[preset]
  names = list(numbers['sizes'])
  ends = (f'dec{names[0]}', f'dec{names[-1]}')
  points = [
      sweeps.Point(f'dec{name}',
                   {'model.name': numbers['model'].format(name),
                    'model.remat': numbers['remat'],
                    **sweeps.common(numbers)}, rate)
      for name, rate in numbers['sizes'].items()]
  yield from sweeps.expand(
      points, steps=numbers['steps'], seeds=numbers['seeds'], longer=ends,
      tuned=ends, multiples=numbers['multiples'])
