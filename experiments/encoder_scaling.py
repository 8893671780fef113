"""Finding 3: a larger encoder does not reconstruct better.

Reproduces the reconstruction half of figures 6 and 7 of ViTok (arXiv
2501.09755, section 4.2): PSNR and SSIM against the encoder's parameters. The
paper's R2 is at most .07, from seven runs of one seed each.

Varied: the encoder, at least four sizes (three at `:paper`, which are all the
paper has). Held: the decoder, patch, channels and so E, data, batch, steps,
losses. Three seeds for each size, since what is claimed is an absence.

Judged: "no effect" is an equivalence, not an interval that includes 0: the
slope of PSNR over log2 of the encoder's parameters lies within 0.05 dB per
doubling with 90% confidence. The smallest and the largest encoder are also
trained three times as long and at three learning rates: a large tower that is
under-trained or badly tuned would look like a useless one.
"""

from vitok import sweeps

CONFIG = 'configs/vitok.py'

# sizes: {encoder: peak learning rate}. At `:cpu` depth alone varies, since a
# narrower tower than a patch's 192 numbers would be a second bottleneck.
PRESETS = {
    'cpu': dict(
        sizes={'P': 2.3e-3, 'N': 2.3e-3, 'T': 2.3e-3, 'Pd8': 2.3e-3},
        model='{}-N/8', steps=400, seeds=3, multiples=(0.5, 2.0),
        remat='none',
        # Windows are random already, and enlarged crops blur 32 pixels.
        data=dict(sources=('photographs',), resolution=32, crop='center'),
        batch_size=32,
        evaluation=dict(every=200, split='test',
                        batch_size=64, count=512, coded=64),
        logging=dict(every=50, tensorboard=False), dtype='float32'),
    'gpu1': dict(
        sizes={'M': 8e-4, 'S': 4e-4, 'B': 4e-4, 'L': 3e-4},
        model='{}-B/8', steps=10_000, seeds=3, multiples=(0.5, 2.0),
        remat='none',
        data=dict(sources=('tfds:imagenet_resized/64x64',), resolution=64),
        batch_size=256,
        evaluation=dict(every=2500, split='validation',
                        batch_size=500, count=5_000),
        logging=dict(every=100, tensorboard=True), dtype='bfloat16'),
    'gpu': dict(
        sizes={'Sd3': 4e-4, 'S': 4e-4, 'B': 4e-4, 'L': 3e-4},
        model='{}-B/16', steps=25_000, seeds=3, multiples=(0.5, 2.0),
        remat='none',
        data=dict(sources=('tfds:imagenet2012',), resolution=256),
        batch_size=512,
        evaluation=dict(every=5000, split='validation',
                        batch_size=512, count=0),
        logging=dict(every=100, tensorboard=True), dtype='bfloat16'),
    'paper': dict(
        sizes={'S': 4e-4, 'B': 4e-4, 'L': 4e-4},
        model='{}-B/16', steps=100_000, seeds=3, multiples=(0.5, 2.0),
        remat='full',
        data=dict(sources=('tfds:imagenet2012',), resolution=256),
        batch_size=1024,
        evaluation=dict(every=20_000, split='validation',
                        batch_size=512, count=0),
        logging=dict(every=100, tensorboard=True), dtype='bfloat16'),
}

CLAIMS = (
    dict(name='encoder_has_no_effect', rule='no_slope',
         x='encoder_parameters', margin=0.05,
         convergence=dict(absolute=0.025),
         text='A doubling of the encoder changes PSNR by less than '
         '0.05 dB.'),
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
  ends = (f'enc{names[0]}', f'enc{names[-1]}')
  points = [
      sweeps.Point(f'enc{name}',
                   {'model.name': numbers['model'].format(name),
                    'model.remat': numbers['remat'],
                    **sweeps.common(numbers)}, rate)
      for name, rate in numbers['sizes'].items()]
  yield from sweeps.expand(
      points, steps=numbers['steps'], seeds=numbers['seeds'], longer=ends,
      tuned=ends, multiples=numbers['multiples'])
