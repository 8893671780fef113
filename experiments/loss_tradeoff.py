"""Finding 5: losses trade fidelity for realism.

Reproduces figure 10 of ViTok (arXiv 2501.09755, section 4.3), its figure 18,
the ablation of stage 2, and adds a control that the paper does not show in
numbers: the same second stage without an adversary.

Varied: in stage 1 the pixel loss (L2, L1) and the weight of LPIPS (0, .5, 1;
with L1 0 and 1, as in the paper); in stage 2, which starts from the run with L2
and LPIPS 1 and keeps its loss (at `:cpu` L2 alone, to save the time of LPIPS),
the final weight of the generator's loss (0: the control, w, 2w), the control's
length (T2, 2 T2), what is trained (the decoder; all, as the arm `full`) and,
beyond `:cpu`, the discriminator's rate (arms `rate0.5` and `rate2`). Held
within a preset: the model and so E, data, batch, steps of each stage. Stage 2
of a seed starts from stage 1 of that seed; its units see the same batches and
noise, and are compared within the seed. At `:cpu` the adversary's settings are
those of a trial of one seed beside its control: without R1, or with a weight of
0.03, its images were no more real than the control's.

Columns of ones, twos and fours make a slope per doubling the effect of a step:
`perception` counts LPIPS weights of 0, .5 and 1, `adversary` final weights of
0, w and 2w, `calm` the same downwards, `patience` 0, T2 and 2 T2 steps of the
control.

Judged: a step of the adversary lowers rKID, the realism of all images together
(where the paper has FID), and costs PSNR; whether it lowers LPIPS, which
compares each image with its own original, is asked beside. LPIPS as a loss
lowers LPIPS and costs PSNR. Without adversary, twice T2 steps change neither by
much. At `:cpu` the loss is LPIPS of AlexNet, and what judges is that of VGG16,
a network that nothing was trained on; beyond, the loss is VGG16's as in the
paper. Needs fetched weights:

  python tools/fetch_weights.py lpips_vgg16
  python tools/fetch_weights.py lpips_alexnet
  python tools/fetch_weights.py inception_fid
"""

from vitok import sweeps

CONFIG = 'configs/vitok.py'

FREEZE = ({'match': '(encoder|bottleneck)/.*', 'frozen': True},)

_RATE, _PAPERS_RATE = 'adversarial.optimizer.learning_rate', 2e-5

# lpips: its weight in stage 2 and in what that starts from. weight: w. start,
# ramp: of the generator's loss, as shares of stage 2 (the released code's 5%).
# rates: of the discriminator, as multiples. stage2: what the second stage has
# beside its task.
PRESETS = {
    'cpu': dict(
        model='A-F/1x4x4', rate=4.6e-3, steps=(300, 400),
        everywhere={
            'model.scan': False, 'loss.lpips_network': 'lpips_alexnet',
            'evaluation.numbers': ('lpips', 'rkid'), 'evaluation.count': 128,
            'evaluation.batch_size': 16,  # Inception on CPUs: a quarter faster.
            'evaluation.coded': 0,
            'evaluation.every': 0},
        # A patch discriminator's strides lie on the patch grid and teach it;
        # a residual one has a low-pass filter before each. R1: see the top.
        lpips=0.0, weight=0.005, start=0.1, ramp=0.1, stage2={
            'ema_decay': 0.98, 'optimizer.learning_rate': 5e-4,
            'optimizer.schedule': 'constant', 'adversarial.width': 0.0625,
            'adversarial.loss': 'non_saturating',
            'adversarial.r1': 0.1, 'adversarial.r1_every': 1,
            'adversarial.optimizer.learning_rate': 1e-3,
            'adversarial.optimizer.b1': 0.0,
            'adversarial.optimizer.b2': 0.99}),
    'gpu1': dict(
        model='S-B/1x8x16', rate=4e-4, steps=(10_000, 10_000),
        lpips=1.0, weight=0.05, start=0.05, ramp=0.5, rates=(0.5, 2.0), stage2={
            'ema_decay': 0.999, 'optimizer.learning_rate': 1e-4,
            'adversarial.width': 0.25,
            'adversarial.optimizer.learning_rate': 1e-4}),
    'gpu': dict(
        model='S-B/16', rate=4e-4, steps=(25_000, 25_000),
        lpips=1.0, weight=0.05, start=0.05, ramp=0.5, rates=(0.5, 2.0), stage2={
            'batch_size': 256, 'ema_decay': 0.9995,
            'optimizer.learning_rate': 1e-4}),
    'paper': dict(
        model='S-B/16', rate=4e-4, steps=(100_000, 100_000),
        lpips=1.0, weight=0.05, start=0.05, ramp=0.5, rates=(0.5, 2.0), stage2={
            'batch_size': 256, 'ema_decay': 0.9999,
            'optimizer.learning_rate': 1e-4}),
}

_NEEDED = dict(requires=('complete', 'seeds'))
_FLAT = dict(x='patience', where={'control': 1}, **_NEEDED)

LEVELS = {0.0: 1, 0.5: 2, 1.0: 4}  # Column `perception` by weight of LPIPS.

CLAIMS = (
    dict(name='adversary_looks_real', rule='slope_above', x='calm',
         y='rkid', margin=0.0, where={'stage': 2, 'long': 0}, **_NEEDED,
         text='A step of the adversary lowers rKID.'),
    dict(name='adversary_is_perceived', rule='slope_above', x='calm',
         y='lpips', margin=0.0, where={'stage': 2, 'long': 0}, **_NEEDED,
         text='A step of the adversary lowers LPIPS.'),
    dict(name='adversary_costs_fidelity', rule='slope_above', x='calm',
         margin=0.1, where={'stage': 2, 'long': 0}, **_NEEDED,
         text='A step of the adversary costs more than 0.1 dB of PSNR.'),
    dict(name='control_looks_the_same', rule='no_slope', y='lpips',
         margin=0.005, seed_sd=0.001, **_FLAT,
         text='Without an adversary, going on changes LPIPS by less than '
         '0.005.'),
    dict(name='control_keeps_fidelity', rule='no_slope', margin=0.1, **_FLAT,
         text='Without an adversary, going on changes PSNR by less than '
         '0.1 dB.'),
    dict(name='lpips_looks_better', rule='slope_above', x='indifference',
         y='lpips', margin=0.01, where={'stage': 1, 'pixel': 'l2'},
         seed_sd=0.001, **_NEEDED,
         text='A step of 0.5 in the weight of LPIPS lowers LPIPS by more than '
         '0.01.'),
    dict(name='lpips_costs_fidelity', rule='slope_above', x='indifference',
         margin=0.0, where={'stage': 1, 'pixel': 'l2'}, **_NEEDED,
         text='A step of 0.5 in the weight of LPIPS costs PSNR.'),
)


def units(preset):
  """The runs of a preset.

  Args:
    preset: key of `PRESETS`.

  Yields:
    `sweeps.Unit`s; a stage-1 run comes before what starts from it.
  """
  numbers, scale = PRESETS[preset], sweeps.SCALES[preset]
  first, second = numbers['steps']
  shared = {**scale, **numbers.get('everywhere', {}),
            'model.name': numbers['model']}

  def unit(name, seed, overrides, after=(), role='law', **factors):
    level = LEVELS[overrides['loss.lpips_weight']]
    columns = dict(stage=1, pixel='l2', perception=level,
                   indifference=4 // level, adversary=1, calm=4, patience=1,
                   control=0, long=0)
    return sweeps.Unit(
        f'{name}-seed{seed}', {**shared, 'seed': seed, **overrides},
        {'role': role, 'configuration': name, **columns, **factors}, after)

  for pixel, weights, seeds in (('l2', LEVELS, 2), ('l1', (0.0, 1.0), 1)):
    for weight in weights:
      for seed in range(seeds):
        yield unit(f'{pixel}-lpips{weight:g}', seed, {
            'total_steps': first, 'optimizer.learning_rate': numbers['rate'],
            'loss.pixel': pixel, 'loss.lpips_weight': weight,
        }, pixel=pixel, control=int(
            pixel == 'l2' and weight == numbers['lpips']))

  def stage2(name, seed, weight, steps=second, trained='decoder', rate=1.0,
             **factors):
    rates = {_RATE: rate * numbers['stage2'].get(_RATE, _PAPERS_RATE)}
    return unit(name, seed, {
        **numbers['stage2'], **rates, 'task': 'adversarial',
        'init_from': '@after', 'total_steps': steps,
        'loss.lpips_weight': numbers['lpips'],
        'adversarial.trained': trained,
        'optimizer.groups': FREEZE if trained == 'decoder' else (),
        'adversarial.optimizer.reference_batch': 0,
        'adversarial.schedule.weight': weight,
        'adversarial.schedule.start': round(numbers['start'] * second),
        'adversarial.schedule.ramp': round(numbers['ramp'] * second),
    }, (f'l2-lpips{numbers["lpips"]:g}-seed{seed}',), stage=2, **factors)

  once, twice = numbers['weight'], 2 * numbers['weight']
  for seed in range(2):
    yield stage2('control', seed, 0.0, control=1, patience=2)
    yield stage2('gan', seed, once, adversary=2, calm=2)
    yield stage2('gan-twice', seed, twice, adversary=4, calm=1)
    yield stage2('control-long', seed, 0.0, 2 * second, control=1, patience=4,
                 long=1)
  arm = dict(role='arm', adversary=2, calm=2)
  yield stage2('gan-full', 0, once, trained='all', arm='full', **arm)
  for multiple in numbers.get('rates', ()):
    yield stage2(f'gan-rate{multiple:g}', 0, once, rate=multiple,
                 arm=f'rate{multiple:g}', **arm)
