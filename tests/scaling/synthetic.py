"""Sweeps that never ran: workdirs with known laws in them."""

import json
import math

import numpy as np

from vitok import config as config_lib
from vitok import sizes

IMAGES, GROUPS = 240, 60
log2 = math.log2
LAW = dict(name='law', rule='slope_above', x='code_floats', margin=1.0,
           text='A doubling of E is worth more than 1 dB.')


def unit(name, configuration, model, *, psnr, role='law', seed=0, steps=400,
         rate=2e-3, **more):
  """A unit of `write`; `psnr` is its mean, `more` goes to its factors.

  `resolution`, `bottleneck` and `state` are taken out of `more`.
  """
  return dict(name=name, configuration=configuration, model=model, psnr=psnr,
              role=role, seed=seed, steps=steps, rate=rate, **more)


def grid(psnr, *, patches=(8, 4), floats=(32, 64, 128, 256, 512), seeds=2,
         sd=0.05, longer=None, rates=(), random=0):
  """Units of a bottleneck sweep at 32 px.

  Args:
    psnr: function of (tokens, channels).
    patches, floats: the grid; E that a patch cannot reach is left out.
    seeds, sd: seeds of a configuration, and their spread.
    longer: function of (tokens, channels) for runs three times as long.
    rates: multiples of the learning rate tried, with a loss of 1 dB for each
      factor of two away from 1.
    random: seed of the noise.
  """
  random, units = np.random.default_rng(random), []
  for patch in patches:
    tokens = (32 // patch)**2
    cells = [e // tokens for e in floats if e % tokens == 0 and e >= tokens]
    for channels in cells:
      label, model = f'p{patch}c{channels}', f'P-N/1x{patch}x{channels}'
      value = psnr(tokens, channels)
      for seed in range(seeds):
        units.append(unit(f'{label}-s{seed}', label, model, seed=seed,
                          psnr=value + sd * random.standard_normal()))
      if channels not in (cells[0], cells[-1]):
        continue
      if longer:
        units.append(unit(f'{label}-3x', label, model, role='longer',
                          steps=1200, psnr=longer(tokens, channels)))
      for multiple in rates:
        units.append(unit(f'{label}-lr{multiple:g}', label, model,
                          role='rate', rate=2e-3 * multiple,
                          psnr=value - abs(math.log2(multiple))))
  return units


def write(path, units, claims=(LAW,), *, source='folder:/photographs',
          pca=lambda tokens, channels: 2.0, images=IMAGES, groups=GROUPS,
          pictures=None, about='Synthetic.', price=True,
          experiment='synthetic'):
  """Writes the workdir of a sweep.

  Args:
    path: of the workdir.
    units: of `unit`; one with `state='missing'` is only named in sweep.json.
    claims: dicts.
    source: data source of every unit.
    pca: PSNR of the null model by (tokens, channels).
    images, groups: of the evaluation.
    pictures: function of (psnr) -> (originals, reconstructions) uint8.
    about, experiment: docstring and name of the experiment.
    price: whether price.json is written.
  """
  random = np.random.default_rng(7)
  index, group = np.arange(images), np.arange(images) % groups
  # One image is harder than another in every unit: what pairing removes.
  shared = 2.4 * random.standard_normal(groups)[group]
  shared -= shared.mean()
  listed, priced, nulls, arrays = [], [], {}, dict(index=index, group=group)
  for row in units:
    row = dict(row)
    size = sizes.parse(row['model'])
    state = row.pop('state', 'done')
    settings = {'model.name': row.pop('model'), 'seed': row.pop('seed'),
                'total_steps': row.pop('steps'),
                'optimizer.learning_rate': row.pop('rate'),
                'optimizer.reference_batch': 0, 'batch_size': 32,
                'data.resolution': row.pop('resolution', 32),
                'data.sources': (source,),
                'model.bottleneck': row.pop('bottleneck', 'gaussian')}
    psnr, name = row.pop('psnr'), row.pop('name')
    listed.append(dict(name=name, overrides=settings, factors=row))
    config = config_lib.override(config_lib.default(), settings)
    model = describe(size, config)
    priced.append(dict(unit=name, parameters=model['parameters']['total'],
                       train_flops=model['train_flops'], bytes_per_device=1e8,
                       hours=model['train_flops'] / 4e10 / 3600))
    tokens, channels = model['tokens'], size.channels
    key = f'pca/1x{size.patch}x{channels}'
    if key not in nulls:
      nulls[key], arrays = null(arrays, 'pca', key, size, tokens, shared,
                                tokens * channels, pca(tokens, channels))
    if state == 'done':
      run(path / name, config, model, psnr, shared, index, group, random,
          pictures)
  for patch in sorted({row['patch'] for row in nulls.values()}):
    size = sizes.parse(f'P-N/{patch}')
    tokens = (settings['data.resolution'] // patch)**2
    nulls[f'mean/{patch}'], arrays = null(
        arrays, 'mean', f'mean/{patch}', size, tokens, shared, 3 * tokens,
        pca(tokens, 3) - 3)
  for floats in (48, 192, 768):
    nulls[f'down/{floats}'], arrays = null(
        arrays, 'downsample', f'down/{floats}', None, 1, shared, floats,
        pca(1, floats) - 2)
  files = {'sweep.json': dict(experiment=experiment, preset='cpu',
                              about=about, claims=list(claims), units=listed),
           'nulls.json': dict(protocol='abc', train_images=1000,
                              rows=list(nulls.values()))}
  if price:
    files['price.json'] = dict(device='local', peak_flops=2e11,
                               efficiency=0.2, units=priced)
  path.mkdir(parents=True, exist_ok=True)
  for name, content in files.items():
    (path / name).write_text(json.dumps(content))
  np.savez(path / 'nulls.npz', **arrays)
  return path


def describe(size, config):
  """The keys of model.json that a report reads, roughly."""
  tokens = size.tokens(1, config.data.resolution)
  counts = {side: 12 * tower.depth * tower.width**2 + size.patch_dim
            * tower.width for side, tower in (('encoder', size.encoder),
                                              ('decoder', size.decoder))}
  counts['bottleneck'] = 3 * size.channels * size.encoder.width
  macs = {side: tokens * count for side, count in counts.items()}
  counts['total'], macs['total'] = sum(counts.values()), sum(macs.values())
  forward = 2 * macs['total']
  floats = tokens * size.channels
  return dict(
      model=config.model.name, tokens=tokens, code_floats=floats,
      pixels_per_float=3 * config.data.resolution**2 / floats,
      parameters=counts, macs=macs,
      flops=dict(forward=forward, train_step=3 * forward),
      train_flops=3 * forward * config.batch_size * config.total_steps)


def null(arrays, kind, key, size, tokens, shared, floats, psnr):
  """A row of nulls.json, and the arrays with its own added."""
  values = psnr + shared
  mse = 10**(-values / 10)
  return dict(
      model=kind, tubelet=1, patch=size.patch if size else 0,
      channels=size.channels if kind == 'pca' else 0, tokens=tokens,
      code_floats=floats, psnr=float(values.mean()), ssim=0.5,
      mse=float(mse.mean()), key=key
  ), arrays | {f'{key}/psnr': values, f'{key}/mse': mse}


def run(path, config, model, psnr, shared, index, group, random, pictures):
  """The workdir of a finished run."""
  (path / 'evaluation').mkdir(parents=True)
  noise = 0.5 * random.standard_normal(len(index))
  values = psnr + shared + noise - noise.mean()
  steps, bits = config.total_steps, 1.3 * model['code_floats']**0.8
  arrays = dict(index=index, group=group, psnr=values, mse=10**(-values / 10),
                ssim=np.clip(1 - 10**(-values / 18) * 6, 0, 1),
                kl_bits=np.full(len(index), bits))
  if pictures:
    arrays['originals'], arrays['reconstructions'] = pictures(psnr, model)
  np.savez(path / 'evaluation' / f'{steps}.npz', **arrays)
  # Real runs log their loss in between, and evaluate each quarter.
  curve = [dict(step=int(steps * eighth / 8), **{'train/loss': 0.1}, **{
      'eval/psnr': psnr - 6 * math.exp(-5 * eighth / 8)} if eighth % 2 == 0
                else {}) for eighth in range(1, 9)]
  seconds = dict(start=0.5, compile=8.0, step=model['train_flops'] / 5e10,
                 data=0.5, eval=1.5, checkpoint=0.3, report=0.1)
  for name, text in {
      'config.json': config.to_json(), 'model.json': json.dumps(model),
      'metrics.jsonl': ''.join(json.dumps(row) + '\n' for row in curve),
      'DONE': json.dumps(dict(
          step=steps, metrics={'eval/psnr': psnr, 'eval/coded_bits': 2 * bits},
          seconds=seconds)),
      'evaluation/protocol.json': json.dumps(dict(
          id='abc', source=config.data.sources[0]))}.items():
    (path / name).write_text(text)
