"""Finding 2: what reconstructs better need not generate better.

Reproduces figure 5 of ViTok (arXiv 2501.09755, section 4.2): gFID of a fixed
DiT trained on the codes of tokenizers of several E, over log2 E. Small codes
are limited by the tokenizer, wide ones are hard to diffuse: for each patch size
the paper has a best number of channels.

Varied: channels c, so E, at each patch size (`grain`: how fine its patches
are), and the size of the DiT, since an optimum that moves with it is the
generator's and not the code's. Held: the tokenizers' towers, data and steps;
the DiT's tokens, steps, rate, sampler and batch. Samples are measured at
several scales of guidance in one run (the paper's two, 1.5 and 3, rank
tokenizers in opposite order), by the kernel distance of Inception features
(gKID), which is unbiased for few samples; gFID beside it beyond `:cpu`.

Judged on the smaller DiT, by a parabola: PSNR rises with E all along; gKID at
its best guidance has its best E inside the sizes that were run, more than half
a doubling from either end; and the same for the larger DiT (arm `larger`) and
for the coarse and the fine patches, which are run once: their verdicts say that
convergence, rates and seeds were asked of the middle ones alone. Of these,
second seeds give the pure error between generators, and beyond `:cpu` four
sizes are trained three times as long and the ends at three rates.

A unit of a DiT is after the unit of its tokenizer, whose parameters it reads.
Without Inception's weights (`python tools/fetch_weights.py inception_fid`)
nothing is measured. `:cpu` has one patch size, few steps and, on the embedded
photographs, no classes and so no guidance: it shows that all of it runs.
CIFAR-10 has classes:
`--config.data.sources=array_record:data/cifar10 --config.diffusion.classes=10
--config.generation.guidance='(1.0,1.5,3.0)'`. For an answer: `:gpu1`.
"""

from vitok import sizes, sweeps

CONFIG = 'configs/vitok.py'

FLAT = {'model.scan': False}  # For two blocks a loop costs more than it saves.
REMAT = {'model.remat': 'full'}

# grid: grain, towers, patch, channels, the tokenizers' peak rate and how their
# layers are computed. larger: fields of the other DiT, beside `GENERATORS`.
PRESETS = {
    # E from 64 to 512 floats for 3072 numbers.
    'cpu': dict(
        grid=(('middle', 'A-F', 4, (1, 2, 3, 4, 6, 8), 4.6e-3, FLAT),),
        larger={'dit.depth': 4},
        repeated=(), longer=(), tuned=()),
    'gpu1': dict(
        grid=(('coarse', 'S-B', 16, (16, 32, 64, 128, 256), 4e-4, {}),
              ('middle', 'S-B', 8, (4, 8, 16, 32, 64), 4e-4, {}),
              ('fine', 'S-B', 4, (1, 2, 4, 8, 16), 4e-4, REMAT)),
        larger={'dit.name': 'B'},
        repeated=('c4', 'c16', 'c64'), longer=('c4', 'c8', 'c16', 'c64'),
        tuned=('c4', 'c64')),
    'gpu': dict(
        grid=(('coarse', 'S-B', 32, (4, 8, 16, 32, 64), 4e-4, {}),
              ('middle', 'S-B', 16, (4, 8, 16, 32, 64), 4e-4, {}),
              ('fine', 'S-B', 8, (2, 4, 8, 16), 4e-4, REMAT)),
        larger={'dit.name': 'L'},
        repeated=('c4', 'c16', 'c64'), longer=('c4', 'c8', 'c16', 'c64'),
        tuned=('c4', 'c64')),
    # The paper's fourteen points, and an XL beside its DiT-L.
    'paper': dict(
        grid=(('coarse', 'S-B', 32, (4, 8, 16, 32, 64), 4e-4, {}),
              ('middle', 'S-B', 16, (4, 8, 16, 32, 64), 4e-4, {}),
              ('fine', 'S-B', 8, (4, 8, 16, 32), 4e-4, REMAT)),
        larger={'dit.name': 'XL'},
        repeated=('c4', 'c16', 'c64'), longer=('c4', 'c8', 'c16', 'c64'),
        tuned=('c4', 'c64')),
}


def _inside(name, generator, text, *probed, grain='middle'):
  return dict(
      name=name, rule='interior', x='code_floats', y='gkid_best', margin=0.5,
      where={'grain': grain, 'generator': generator}, text=text,
      arms=['larger'] * (generator == 'larger'),
      requires=['complete', *probed, 'null'])


CLAIMS = (
    dict(name='reconstruction_keeps_rising', rule='slope_above',
         x='code_floats', margin=1.0, where={'grain': 'middle'},
         requires=['complete', 'null', 'width'],
         text='A doubling of E is worth more than 1 dB of PSNR to the '
         'tokenizers.'),
    _inside('best_code_is_inside', 'smaller',
            'gKID at its best guidance is best at an E inside the range, more '
            'than half a doubling from either end.', 'convergence', 'rates',
            'seeds'),
    _inside('larger_generator_agrees', 'larger',
            'The same holds for the larger DiT.', 'seeds'),
    *(_inside(f'{grain}_patches_agree', 'smaller',
              f'The same holds for the {grain} patches.', grain=grain)
      for grain in ('coarse', 'fine')),
)


def units(preset):
  """The runs of a preset.

  Args:
    preset: key of `PRESETS`.

  Yields:
    `sweeps.Unit`s: tokenizers, then the smaller DiTs, then the larger ones.
  """
  numbers, own = PRESETS[preset], sweeps.GENERATORS[preset]
  codes = [
      (f'p{patch}c{c}', grain, rate, {
          **sweeps.SCALES[preset], **layers,
          'model.name': str(sizes.parse(f'{towers}/1x{patch}x{c}'))})
      for grain, towers, patch, channels, rate, layers in numbers['grid']
      for c in channels]
  for name, grain, rate, tokenizer in codes:
    point = sweeps.Point(name, tokenizer, rate, {'grain': grain})
    yield point.unit('tokenizer', {'role': 'tokenizer'})
  for generator, arm, changes in (('smaller', '', {}),
                                  ('larger', 'larger', numbers['larger'])):
    for name, grain, _, tokenizer in codes:
      point = sweeps.Point(
          f'{name}-{generator}', {**tokenizer, **own, **changes},
          own['optimizer.learning_rate'],
          {'grain': grain, 'generator': generator})

      def among(field, name=name, grain=grain, point=point):
        named = grain == 'middle' and name[name.index('c'):] in numbers[field]
        return [point.name] * named
      yield from sweeps.expand(
          [point], seeds={label: 2 for label in among('repeated')},
          longer=() if arm else among('longer'),
          tuned=() if arm else among('tuned'), arm=arm,
          after=(f'{name}-tokenizer',))
