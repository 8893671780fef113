"""Finding 4: a larger decoder reconstructs better, but E counts for more.

Reproduces the reconstruction half of figures 8 and 9 of ViTok (arXiv
2501.09755, section 4.2): PSNR and SSIM against the decoder's parameters. In
the paper a doubling of the decoder is worth +.14 dB, one of E about 2 dB.

Varied: the decoder, at least four sizes (three at `:paper`, which are all the
paper has). Held: the encoder, patch, channels and so E, data, batch, steps,
losses. Four seeds for each size.

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
        sizes={'P': 4.6e-3, 'N': 4.6e-3, 'T': 3.3e-3, 'Pd8': 2.3e-3},
        model='P-{}/8'),
    'gpu1': dict(
        sizes={'M': 8e-4, 'S': 4e-4, 'B': 4e-4, 'L': 3e-4},
        model='S-{}/8'),
    'gpu': dict(
        sizes={'Sd3': 4e-4, 'S': 4e-4, 'B': 4e-4, 'L': 3e-4},
        model='S-{}/16'),
    'paper': dict(
        sizes={'S': 4e-4, 'B': 4e-4, 'L': 4e-4},
        model='S-{}/16', layers={'model.remat': 'full'}),
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
  yield from sweeps.tower_sizes('dec', preset, **PRESETS[preset])
