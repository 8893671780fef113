"""Appendix A.3: patches, latent tokens or a code that may be cut, at equal E.

Reproduces the comparison in appendix A.3 of ViTok (arXiv 2501.09755) without
its rFID and its DiTs: a latent code, of 1-D tokens that the encoder learns
to fill, is said to be slightly worse than patches in rFID and sometimes better
in PSNR; a code whose tail is dropped in training can be evaluated at every
length.

Varied: the kind of code (`latent`: 1 for patches, 2 for latent tokens; `cut`: 1
for whole codes, 2 for codes that are cut to a random length in training), at
two values of E each. Held: towers, patch size, data, batch, steps, losses, and
positions, which are the index in the sequence (`rope1d`), as in the released
code. Equal E is not equal compute: latents work beside the patches, which makes
a step dearer.

Judged: at equal E, latents and patches differ by less than 0.5 dB, and so do
codes that may be cut, read as a whole, and codes that may not (equivalence).
All configurations have two seeds; they are also trained three times as long,
since latents learn slowly, and those of the larger E at three learning rates.
What a code is worth when it is cut is not judged: columns `psnr@32` of the
table have it.
"""

from vitok import sizes, sweeps

CONFIG = 'configs/vitok.py'

# codes: for each E, channels of the patches' tokens, then number and channels
# of the latents; keep: lengths, the last one is the number of patches.
PRESETS = {
    'cpu': dict(
        model='F-F/1x8', codes=((1, 8, 2), (2, 8, 4)), keep=(4, 8, 16),
        rate=4e-3, multiples=(0.4, 2.5),
        # 400 steps leave latents below the PCA of their size.
        layers={'model.scan': False, 'total_steps': 600}),
    'gpu1': dict(
        model='S-B/1x8', codes=((4, 32, 8), (16, 32, 32)),
        keep=(8, 16, 32, 64), rate=4e-4, multiples=(0.5, 2.0), layers={}),
    'gpu': dict(
        model='S-B/1x16', codes=((4, 128, 8), (16, 128, 32)),
        keep=(32, 64, 128, 256), rate=4e-4, multiples=(0.5, 2.0), layers={}),
    'paper': dict(
        model='S-B/1x16', codes=((4, 128, 8), (16, 128, 32), (64, 128, 128)),
        keep=(32, 64, 128, 256), rate=4e-4, multiples=(0.5, 2.0),
        layers={'model.remat': 'full'}),
}

_SHARED = dict(
    rule='no_slope', adjust=['code_floats'], margin=0.5, distinct=2,
    # All have one patch size: narrow towers are narrow for all.
    requires=['complete', 'convergence', 'rates', 'seeds', 'null'])

CLAIMS = (
    dict(_SHARED, name='latents_equal_patches', x='latent', where={'cut': 1},
         text='At equal E, 1-D latent tokens and patches reconstruct equally '
         'well, within 0.5 dB.'),
    dict(_SHARED, name='cutting_costs_little', x='cut', where={'latent': 1},
         text='A code that may be cut is, as a whole, worth within 0.5 dB what '
         'a code is that may not.'),
)


def units(preset):
  """The runs of a preset.

  Args:
    preset: key of `PRESETS`.

  Yields:
    `sweeps.Unit`s, those that share a compiled step side by side.
  """
  numbers, keep = PRESETS[preset], PRESETS[preset]['keep']
  points = []
  for channels, latents, wide in numbers['codes']:
    for kind, code, more in (
        ('patches', f'{channels}', {}), ('latents', f'{wide}+{latents}', {}),
        ('cut', f'{channels}', {'model.keep': keep})):
      name = str(sizes.parse(f'{numbers["model"]}x{code}'))
      points.append(sweeps.Point(
          f'{kind}{channels * keep[-1]}',
          {**sweeps.SCALES[preset], **numbers['layers'], **more,
           'model.name': name, 'model.positions': 'rope1d'}, numbers['rate'],
          {'latent': 1 + (kind == 'latents'), 'cut': 1 + (kind == 'cut')}))
  names = [point.name for point in points]
  yield from sweeps.expand(points, seeds=2, longer=names, tuned=names[-3:],
                           multiples=numbers['multiples'])
