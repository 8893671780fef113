"""Beyond the paper: a law that has never predicted anything is a curve.

Reproduces no figure of ViTok (arXiv 2501.09755), whose laws are all fitted to
runs that were already there. Five small sizes, a ladder on which compute
doubles, predict the quality and the hours of a run with ten times the compute
of the last rung. The prediction is written before that run starts, with 90%
intervals and a hash (`forecast.json`), and never rewritten: the run is after
all rungs, and is refused if it has been made already. It waits for no probe of
a rate, which may diverge: that rate is then the worse one.

Varied: training FLOPs. Width grows with their fourth root, so parameters and
images seen both with the square root; depth is held, steps spend the budget to
within 1%. Held: patch, channels and so E, data, batch, losses. Rates fall with
the square root of the width. Two seeds a rung, three rates at both ends.

Judged: what the run comes to lies in the interval, and the interval is within
1 dB of it; an interval that is wider decides nothing. The report scores every
number that was forecast, hours too, and asks the same rule for the top rung
from those below it.
"""

import dataclasses

from vitok import sweeps
from vitok.scaling import iso

CONFIG = 'configs/vitok.py'

RUNGS, TIMES = 5, 10

# compute: of the first rung; width: there, in multiples of `head`; depths: of
# encoder and decoder; rate: the peak at the first rung.
PRESETS = {
    'cpu': dict(compute=3e11, width=64, head=8, depths=(1, 2), patch=4,
                channels=4, rate=5e-3, multiples=(0.4, 2.5)),
    'gpu1': dict(compute=2e15, width=192, head=32, depths=(2, 4), patch=8,
                 channels=16, rate=1.2e-3, multiples=(0.5, 2.0)),
    'gpu': dict(compute=1e17, width=768, head=64, depths=(3, 6), patch=16,
                channels=16, rate=6e-4, multiples=(0.5, 2.0)),
    'paper': dict(compute=4e17, width=768, head=64, depths=(6, 12), patch=16,
                  channels=16, rate=4e-4, multiples=(0.5, 2.0),
                  layers={'model.remat': 'full'}),
}

CLAIMS = (
    dict(name='run_is_forecast', rule='forecasts', x='train_flops', margin=1.0,
         requires=['complete', 'rates', 'seeds'],
         text='The PSNR of a run with ten times the compute lies in an '
         'interval that was written before it and is within 1 dB of it.'),
)


def units(preset):
  """The runs of a preset.

  Args:
    preset: key of `PRESETS`.

  Yields:
    `sweeps.Unit`s: the ladder, then the run that it forecasts.
  """
  numbers = PRESETS[preset]
  ladder = [_point(f'rung{rung}', preset, 2**rung) for rung in range(RUNGS)]
  ends = ladder[0].name, ladder[-1].name
  rungs = list(sweeps.expand(ladder, seeds=2, tuned=ends,
                             multiples=numbers['multiples']))
  yield from rungs
  run = _point('run', preset, TIMES * 2**(RUNGS - 1))
  yield dataclasses.replace(run.unit('seed0', {'role': 'forecast'}),
                            after=tuple(unit.name for unit in rungs
                                        if unit.factors['role'] == 'law'))


def _point(name, preset, times):
  """The configuration at `times` the compute of the first rung."""
  numbers, scale = PRESETS[preset], sweeps.SCALES[preset]
  head, wide = numbers['head'], numbers['width'] * times**0.25
  width = head * round(wide / head)
  (model, steps), = iso.candidates(
      numbers['compute'] * times,
      iso.towers((width,), (numbers['depths'],), head=head,
                 patch=numbers['patch'], channels=numbers['channels']),
      resolution=scale['data.resolution'], batch=scale['batch_size'],
      steps=(1, 10**7), least=1).items()
  return sweeps.Point(name, {
      **scale, **numbers.get('layers', {}), 'model.name': model,
      'total_steps': steps, 'evaluation.every': steps // 2},
      numbers['rate'] * (numbers['width'] / width)**0.5)
