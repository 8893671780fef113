"""Finding 3: a larger encoder does not reconstruct better, and may harm.

Reproduces figures 6 and 7 of ViTok (arXiv 2501.09755, section 4.2): PSNR and
SSIM against the encoder's parameters, and gFID of a DiT on the codes. The
paper's R2 is at most .07 for reconstruction, from seven runs of one seed each;
its DiTs are the worse the larger the encoder.

Varied: the encoder, at least four sizes (three at `:paper`, which are all the
paper has). Held: the decoder, patch, channels and so E, data, batch, steps,
losses. Four seeds for each size, since what is claimed is an absence.

Judged: "no effect" is an equivalence, not an interval that includes 0: the
slope of PSNR over log2 of the encoder's parameters lies within 0.05 dB per
doubling with 90% confidence. The smallest and the largest encoder are also
trained three times as long and at three learning rates: a large tower that is
under-trained or badly tuned would look like a useless one. Beyond `:cpu`
two seeds of a DiT (arm `generator`) are trained on the codes of each size, of
one seed, and the slope of log2 gFID is above 0 if a larger encoder harms;
their steps and rate are those of `generation_scaling`, which probes them.
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
        model='{}-B/8', generated=True),
    'gpu': dict(
        sizes={'Sd3': 4e-4, 'S': 4e-4, 'B': 4e-4, 'L': 3e-4},
        model='{}-B/16', generated=True),
    'paper': dict(
        sizes={'S': 4e-4, 'B': 4e-4, 'L': 4e-4},
        model='{}-B/16', layers={'model.remat': 'full'}, generated=True),
}

CLAIMS = (
    dict(name='encoder_has_no_effect', rule='no_slope',
         x='encoder_parameters', margin=0.05,
         convergence=dict(absolute=0.025),
         text='A doubling of the encoder changes PSNR by less than '
         '0.05 dB.'),
    dict(name='encoder_harms_generation', rule='slope_above',
         x='encoder_parameters', y='log2_gfid', margin=0.0,
         where={'generated': 1}, arms=['generator'], seed_sd=0.05,
         requires=['complete', 'seeds'],
         text='A doubling of the encoder raises gFID.'),
)


def units(preset):
  """The runs of a preset.

  Args:
    preset: key of `PRESETS`.

  Yields:
    `sweeps.Unit`s, those that share a compiled step side by side.
  """
  yield from sweeps.tower_sizes('enc', preset, **PRESETS[preset])
