"""Finding 3: a larger encoder does not reconstruct better.

Reproduces the reconstruction half of figures 6 and 7 of ViTok (arXiv
2501.09755, section 4.2): PSNR and SSIM against the encoder's parameters. The
paper's R2 is at most .07, from seven runs of one seed each.

Varied: the encoder, at least four sizes (three at `:paper`, which are all the
paper has). Held: the decoder, patch, channels and so E, data, batch, steps,
losses. Four seeds for each size, since what is claimed is an absence.

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
        sizes={'P': 4.6e-3, 'N': 4.6e-3, 'T': 4.6e-3, 'Pd8': 4.6e-3},
        model='{}-N/8'),
    'gpu1': dict(
        sizes={'M': 8e-4, 'S': 4e-4, 'B': 4e-4, 'L': 3e-4},
        model='{}-B/8'),
    'gpu': dict(
        sizes={'Sd3': 4e-4, 'S': 4e-4, 'B': 4e-4, 'L': 3e-4},
        model='{}-B/16'),
    'paper': dict(
        sizes={'S': 4e-4, 'B': 4e-4, 'L': 4e-4},
        model='{}-B/16', layers={'model.remat': 'full'}),
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
  yield from sweeps.tower_sizes('enc', preset, **PRESETS[preset])
