"""An experiment of small units on the embedded photographs, for tests.

Two seeds share a compiled step; the third unit has another code.
"""

from vitok import sweeps

PRESETS = {'cpu': dict(steps=2, points=2), 'gpu1': dict(steps=4, points=2),
           'gpu': dict(steps=2, points=1)}

CLAIMS = (dict(
    name='code_size_sets_quality', rule='slope_above', x='code_floats',
    margin=1.0, text='A doubling of E is worth more than 1 dB.'),)

COMMON = {
    'model.decoder.depth': 1, 'model.encoder.width': 48,
    'model.decoder.width': 48, 'data.resolution': 16, 'batch_size': 4,
    'evaluation.batch_size': 8, 'evaluation.count': 12, 'evaluation.every': 0,
    'evaluation.grid': 2, 'evaluation.coded': 0, 'logging.every': 1,
    'logging.tensorboard': False,
}


def units(preset):
  numbers = PRESETS[preset]
  points = [sweeps.Point(f'p8c{c}', {
      'model.name': f'A-A/1x8x{c}', 'total_steps': numbers['steps'], **COMMON},
      1e-3) for c in (4, 8)[:numbers['points']]]
  yield from sweeps.expand(points, seeds={'p8c4': 2})
