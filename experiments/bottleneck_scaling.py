"""Finding 1: the number of floats in the code predicts reconstruction.

Reproduces figure 2 of ViTok (arXiv 2501.09755, section 4.1; numbers of its
appendix's figure 17): PSNR and SSIM against E = L c, the floats of the code.

Varied: patch size p (so the number of tokens L) and channels c, so that equal
E is reached in several ways. Held within a preset: data, resolution, batch,
steps and losses. At `:cpu` the compute of a step as well: its towers are
narrower where a smaller patch means more tokens (4.4 and 4.65 GFLOP); beyond,
towers are held as in the paper, and a smaller patch costs more. Towers are
at least as wide as a patch has numbers (3 p^2), or the patch embedding would
be a second bottleneck; `:paper` is the exception, since there p = 32 meets
width 768. What that costs is asked by its arm `wide` and by the arm `narrow` of
`:gpu1` (at equal FLOPs) and `:gpu` (the paper's towers), narrower than a patch:
if these alone show the paper's exception at p = 32, c = 64, it is theirs.

Judged: quality rises with E; tokens and channels are worth the same per
doubling (equivalence within 0.25 dB); the law is straight in log E; and it
predicts the values of E, and the patch size, that it was not fitted to. Units
below their own patch PCA are left out as limited by optimisation. A second
seed on some units gives the pure error, ends are trained three times as long
(convergence) and at three learning rates (at `:cpu` not all ends: ten minutes
do not pay for them). Arm `per_nat`, beyond `:cpu`: squared errors summed plus a
constant price for each nat of the code, since the paper's mean over tokens and
channels makes a nat cheaper the larger the code. `:cpu20` is `:cpu` with that
arm, and with LPIPS and the kernel distance of Inception features (rKID) where
their networks have been fetched: twenty minutes. `:paper` alone trains with the
paper's LPIPS as well, the others on pixels. Arm `float32`, in `:gpu` and
`:paper`: what bfloat16 costs. (The paper's 512 pixels are a sweep of their own,
`--config.data.resolution=512`: numbers of other images are not compared.)
"""

from vitok import sizes, sweeps

CONFIG = 'configs/vitok.py'

REMAT = {'model.remat': 'full'}
FLAT = {'model.scan': False}  # For two blocks a loop costs more than it saves.

# E from 32 to 512 floats for 3072 numbers: beyond, 400 steps leave a unit below
# its own PCA. The smallest code of patch 8 wants a lower rate than the others.
TWO_CORES = dict(
    grid=(('P-N', 8, (2,), 1.5e-3, FLAT),
          ('P-N', 8, (4, 8, 16), 2.3e-3, FLAT),
          ('A-F', 4, (1, 2, 4, 8), 4.6e-3, FLAT)),
    repeated=('p8c2', 'p8c16', 'p4c8'),
    longer=('p8c2', 'p8c16', 'p4c8'), tuned=('p8c2', 'p4c8'),
    multiples=(0.4, 2.5), equal_price=256)

# Rows of a grid: towers of the encoder and decoder, patch, channels, the peak
# learning rate of those towers, and how their layers are computed: remat where
# a step would not fit 80 GB a device. between: trained longer beside the ends,
# which have two values of E alone, too few to tell whether a law is straight.
PRESETS = {
    'cpu': dict(TWO_CORES, arms={}),
    'cpu20': dict(
        TWO_CORES, arms={'per_nat': ('p8c2', 'p8c16', 'p4c8')}),
    'gpu1': dict(
        grid=(('S-B', 16, (16, 32, 64, 128, 256), 4e-4, {}),
              ('S-B', 8, (4, 8, 16, 32, 64), 4e-4, {}),
              ('S-B', 4, (1, 2, 4, 8, 16), 4e-4, REMAT)),
        repeated=('p16c16', 'p16c256', 'p8c16', 'p4c1', 'p4c16'),
        between=('p16c32', 'p8c16', 'p4c8'),
        multiples=(0.5, 2.0), arms={'per_nat': 'all', 'narrow': 'p16'},
        equal_price=1024),
    # The p = 32 towers are wide and shallow: 768 numbers a token would not
    # hold a patch of 3072.
    'gpu': dict(
        grid=(('Sw3072d2h48-Bw3072d4h48', 32, (16, 32, 64, 128, 256), 2e-4,
               {}),
              ('S-B', 16, (4, 8, 16, 32, 64), 4e-4, {}),
              ('S-B', 8, (1, 2, 4, 8, 16), 4e-4, REMAT)),
        repeated=('p32c16', 'p32c256', 'p16c16', 'p8c1', 'p8c16'),
        between=('p32c32', 'p16c16', 'p8c8'),
        multiples=(0.5, 2.0), arms={'per_nat': 'ends', 'narrow': 'p32',
                                    'float32': ('p16c16',)},
        equal_price=4096),
    # The paper's fifteen points and rate (1e-4 per 256 images).
    'paper': dict(
        grid=(('S-B', 32, (4, 8, 16, 32, 64), 4e-4, {}),
              ('S-B', 16, (4, 8, 16, 32, 64), 4e-4, {}),
              ('S-B', 8, (4, 8, 16, 32, 64), 4e-4, REMAT)),
        repeated=('p32c4', 'p32c64', 'p16c16', 'p8c4', 'p8c64'),
        multiples=(0.5, 2.0), arms={'per_nat': 'ends', 'wide': 'p32',
                                    'float32': ('p16c16',)},
        equal_price=4096),
}

# Towers of patch 32 that are as wide as its 3072 numbers. They cost five times
# as much as the paper's: at equal FLOPs there would be one block.
WIDE = {
    'model.encoder.width': 3072, 'model.encoder.depth': 2,
    'model.encoder.heads': 48, 'model.decoder.width': 3072,
    'model.decoder.depth': 4, 'model.decoder.heads': 48,
    'optimizer.learning_rate': 2e-4,
}

# Towers that are narrower than a patch has numbers.
NARROW = {
    'p16': {  # 384 of 768, at the FLOPs of S-B.
        'model.encoder.width': 384, 'model.encoder.depth': 24,
        'model.encoder.heads': 6, 'model.decoder.width': 384,
        'model.decoder.depth': 48, 'model.decoder.heads': 6},
    'p32': {  # 768 of 3072, the paper's S-B.
        'model.encoder.width': 768, 'model.encoder.depth': 6,
        'model.encoder.heads': 12, 'model.decoder.width': 768,
        'model.decoder.depth': 12, 'model.decoder.heads': 12,
        'optimizer.learning_rate': 4e-4},
}

CLAIMS = (
    dict(name='code_size_sets_quality', rule='slope_above', x='code_floats',
         margin=1.0,
         text='A doubling of E, the floats of the code, is worth more than '
         '1 dB of PSNR.'),
    dict(name='tokens_equal_channels', rule='equal_slopes',
         x=['tokens', 'channels'], margin=0.25,
         text='E is what counts: a doubling of tokens and a doubling of '
         'channels are worth the same, within 0.25 dB.'),
    dict(name='tokens_add_little', rule='suffices', x='code_floats',
         adjust=['tokens'], margin=0.25,
         text='What tokens explain beyond E moves PSNR by less than 0.25 dB, '
         'rms over the units.'),
    dict(name='law_is_straight', rule='straight', x='code_floats', margin=0.1,
         text='PSNR is linear in log2 E: the slope changes by less than '
         '0.2 dB from one doubling to the next.'),
    dict(name='predicts_code_sizes', rule='predicts', x='code_floats',
         hold_out='code_floats', margin=0.5,
         text='Fitted without one value of E, the law predicts it to '
         '0.5 dB.'),
    dict(name='predicts_patches', rule='predicts', x='code_floats',
         hold_out='patch', margin=0.5,
         text='Fitted without one patch size, the law predicts its units to '
         '0.5 dB.'),
)


def units(preset):
  """The runs of a preset.

  Args:
    preset: key of `PRESETS`.

  Yields:
    `sweeps.Unit`s, those that share a compiled step side by side.
  """
  numbers, scale = PRESETS[preset], sweeps.SCALES[preset]
  points = [
      sweeps.Point(f'p{patch}c{c}',
                   {**scale, **layers, 'model.name': str(
                       sizes.parse(f'{towers}/1x{patch}x{c}'))}, rate)
      for towers, patch, channels, rate, layers in numbers['grid']
      for c in channels]
  ends = {f'p{patch}c{c}' for _, patch, channels, *_ in numbers['grid']
          for c in (channels[0], channels[-1])}
  arms = numbers['arms']
  changes = {'wide': WIDE, 'narrow': NARROW.get(arms.get('narrow')),
             'float32': {'model.dtype': 'float32'},
             'per_nat': sweeps.price_per_nat(scale, numbers['equal_price'])}
  chosen = {'ends': ends, 'all': {point.name for point in points},
            **{patch: {point.name for point in points if patch in point.name}
               for patch in ('p16', 'p32')}}
  yield from sweeps.expand(
      points, seeds={name: 2 for name in numbers['repeated']},
      longer=numbers.get('longer', {*ends, *numbers.get('between', ())}),
      tuned=numbers.get('tuned', ends), multiples=numbers['multiples'],
      arms={arm: (changes[arm], chosen.get(which, which))
            for arm, which in arms.items()})
