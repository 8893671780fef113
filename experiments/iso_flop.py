"""Beyond the paper: how large a model is best for a budget of compute?

Reproduces no figure of ViTok (arXiv 2501.09755), which trains every size for
the same number of steps; it asks what its sections 4.1 and 4.2 leave open. A
larger model learns more from an image and sees fewer of them at equal compute,
so each budget has a best size.

Varied: the budget of training FLOPs, by factors of three or four; at each
budget the size of both towers, with as many steps as spend the budget to
within 1% by accounting; and E, by the channels (iso-E: what compute buys at an
equal code). Held: patch, data, batch, losses, and the warm-up's share of the
steps. Learning rates fall with the square root of the width.

Judged: at each E the best size grows as a power of the budget, with an
exponent above 0.1. A budget whose best size is not inside the sizes run, or
whose best unit is below its own patch PCA, refuses the law. A unit far from
the best size is under-trained by design, so those below their own PCA stay in
the parabolas. Smallest budgets have a second seed; the ends of the middle one
are trained at three learning rates. No unit is trained longer: the budget is
the question. At `:cpu` the best towers are narrower than a patch has numbers
(48): the patch is held, so that is part of their size.
"""

from vitok import sizes, sweeps
from vitok.scaling import iso

CONFIG = 'configs/vitok.py'

# widths of both towers, and pairs of depths; sizes: how many to take, spread
# over the cost of a step; rate: the peak at the smallest width.
PRESETS = {
    'cpu': dict(
        budgets=(2e11, 6e11, 1.8e12), channels=(1, 2), patch=4,
        widths=(16, 24, 32, 48, 64, 96), depths=((1, 2),), head=8, sizes=6,
        steps=(60, 6000), rate=1e-2, multiples=(0.4, 2.5)),
    'gpu1': dict(
        budgets=(5e15, 1.5e16, 4.5e16, 1.35e17), channels=(4, 16, 64), patch=8,
        widths=(192, 256, 384, 512, 768), depths=((2, 4), (3, 6), (6, 12)),
        head=64, sizes=6, steps=(200, 150_000), rate=1.2e-3,
        multiples=(0.5, 2.0)),
    'gpu': dict(
        budgets=(1e17, 4e17, 1.6e18, 6.4e18), channels=(16, 64), patch=16,
        widths=(768, 1024, 1536), depths=((1, 2), (3, 6), (6, 12)), head=64,
        sizes=6, steps=(300, 200_000), rate=6e-4, multiples=(0.5, 2.0)),
    'paper': dict(
        budgets=(4e17, 1.6e18, 6.4e18, 2.56e19), channels=(16, 64), patch=16,
        widths=(768, 1024, 1536), depths=((1, 2), (3, 6), (6, 12), (6, 24)),
        head=64, sizes=7, steps=(300, 400_000), rate=6e-4,
        multiples=(0.5, 2.0), layers={'model.remat': 'full'}),
}


def claim(code):
  """The claim about one of the codes: 'smallest' or 'largest'."""
  return dict(
      name=f'best_size_grows_at_{code}_code', rule='optimum',
      x=['parameters', 'budget'], margin=0.1, where={'code': code},
      requires=['complete', 'rates', 'seeds', 'null'],
      text=f'At the {code} code, the best number of parameters grows as a '
      'power of the training compute, with an exponent above 0.1.')


CLAIMS = (claim('smallest'), claim('largest'))


def units(preset):
  """The runs of a preset.

  Args:
    preset: key of `PRESETS`.

  Yields:
    `sweeps.Unit`s, those that share a compiled step side by side.
  """
  numbers, scale = PRESETS[preset], sweeps.SCALES[preset]
  budgets, channels = numbers['budgets'], numbers['channels']
  run = dict(resolution=scale['data.resolution'], batch=scale['batch_size'],
             steps=numbers['steps'])
  middle = budgets[len(budgets) // 2]
  for c in channels:
    names = iso.towers(numbers['widths'], numbers['depths'], patch=
                       numbers['patch'], channels=c, head=numbers['head'])
    chosen = iso.spread(iso.candidates(middle, names, **run), numbers['sizes'])
    plans = {budget: iso.candidates(budget, chosen, **run)
             for budget in budgets}
    for name in chosen:
      width = sizes.parse(name).encoder.width
      layers = {'model.name': name, **numbers.get('layers', {})}
      rate = numbers['rate'] * (min(numbers['widths']) / width)**0.5
      for budget in budgets:
        steps = plans[budget].get(name)
        if not steps:
          continue
        label = f'{name.replace("/", "-")}-{budget:g}'.replace('+', '')
        point = sweeps.Point(label, {
            **scale, **layers, 'total_steps': steps,
            'evaluation.every': max(1, steps // 2)}, rate)
        code = {channels[0]: 'smallest', channels[-1]: 'largest'}.get(
            c, 'middle')
        factors = {'budget': budget, 'code': code}
        for seed in range(2 if budget == budgets[0] else 1):
          yield point.unit(f'seed{seed}', factors | {'role': 'law'}, seed=seed)
        if budget == middle and name in (list(chosen)[0], list(chosen)[-1]):
          for multiple in numbers['multiples']:
            yield point.unit(f'lr{multiple:g}', factors | {'role': 'rate'},
                             multiple=multiple)
