"""One row per unit: what was varied, what it cost, what came out."""

import collections
import csv
import io
import statistics
import types
from collections.abc import Iterable

import numpy as np

from vitok import errors, sizes
from vitok.scaling import runs as runs_lib

COLUMNS = {
    'unit': 'name in the experiment',
    'configuration': 'shared by units that differ in seed, steps or rate only',
    'role': 'law, longer, rate or arm',
    'state': 'done, failed, running or missing', 'error': 'of a failed unit',
    'seed': '',
    'model': 'name, as vitok.sizes prints it',
    'tubelet': 'frames', 'patch': 'pixels', 'cell': 'tubelet x patch',
    'channels': 'floats a token',
    'patch_floats': 'numbers in a patch, 3 q p p',
    'width': 'of the narrower tower',
    'resolution': 'pixels', 'frames': '',
    'tokens': 'L', 'code_floats': 'E = L * channels',
    'pixels_per_float': 'T H W 3 / E',
    'parameters': '', 'encoder_parameters': '', 'bottleneck_parameters': '',
    'decoder_parameters': '', 'generator_parameters': '',
    'encoder_flops': 'forward, one example', 'decoder_flops': 'forward, one '
    'example', 'forward_flops': 'one example',
    'train_flops': 'the whole run, without loss networks',
    'steps': '', 'batch_size': '', 'learning_rate': 'peak',
    'bottleneck': '', 'kl_weight': '', 'kl_reduction': '',
    'perceptual': 'whether trained on more than pixels, so that fewer dB are '
    'no sign of too little training',
    'psnr': 'dB, mean over images', 'ssim': '', 'mse': 'on [0, 1]',
    'log2_mse': 'of that mean', 'images': 'evaluated',
    'groups': 'independent ones',
    'lpips': 'VGG16, mean over images', 'lpips_alex': 'AlexNet, likewise',
    'rkid': 'of features of images and their originals',
    'rkid_se': 'its standard error', 'rfid': 'likewise',
    'rfid_infinity': 'without its bias', 'rfid_frame': 'mean over frames',
    'rfvd': '', 'ris': '',
    'gkid': 'of samples, at the first scale of guidance',
    'gkid_se': 'its standard error', 'gfid': 'likewise',
    'gfid_frame': 'mean over frames', 'gfvd': '', 'gis': '',
    'gkid_best': 'at the best scale', 'gkid_best_se': 'its standard error',
    'absent': 'numbers that could not be measured',
    'kl_bits': 'KL of the code in bits, mean over images',
    'coded_bits': 'entropy-coded means that lose at most 0.1 dB',
    'stated_bits': 'log2 of how many codes there are, of a discrete one',
    'code_bits': 'these, or the coded bits of a code of floats',
    'pca_psnr': 'dB, of patch PCA with the same patch and floats',
    'pca_lpips': '', 'pca_rkid': '',
    'below_pca': 'mean of its seeds below it: limited by optimisation',
    'seconds': 'wall clock of the unit', 'priced_seconds': 'before the run',
    **{f'seconds_{bucket}': '' for bucket in (
        'start', 'compile', 'step', 'data', 'eval', 'checkpoint', 'report')},
}

# Of all images together, so that no image has a value of its own.
_OF_SETS = ('rkid', 'rkid_se', 'rfid', 'rfid_infinity', 'rfid_frame', 'rfvd',
            'ris', 'gkid', 'gkid_se', 'gfid', 'gfid_frame', 'gfvd', 'gis')


def rows(sweep: runs_lib.Sweep) -> list[dict]:
  """A row per unit with the keys of `COLUMNS`, then the unit's own factors.

  What is not known (of a unit that has not finished) is None.
  """
  price = {row['unit']: row for row in sweep.price.get('units', ())}
  pca = {(row['tubelet'], row['patch'], row['channels']): row
         for row in sweep.nulls if row['model'] == 'pca'}
  found = [_row(run, price.get(run.name, {}), pca) for run in sweep.runs]
  psnr = collections.defaultdict(list)
  for row in found:
    if row['pca_psnr'] is not None:
      psnr[but_for_seed(row)].append(row['psnr'])
  for row in found:  # By unit, the lucky one of two seeds would stay in a law.
    if row['pca_psnr'] is not None:
      row['below_pca'] = not row['perceptual'] and (
          statistics.fmean(psnr[but_for_seed(row)]) < row['pca_psnr'])
  return found


def but_for_seed(row: dict) -> str:
  """What units have in common that differ in their seed alone."""
  return str([row.get(key) for key in (
      'role', 'configuration', 'arm', 'steps', 'learning_rate')])


def values(rows_: Iterable[dict], column: str) -> np.ndarray:
  """A column as an array.

  Raises:
    InputError: no row has that column, or a row has no value in it.
  """
  rows_ = list(rows_)
  if rows_ and not any(column in row for row in rows_):
    raise errors.InputError('column', column, 'is not in the table',
                            errors.nearest(column, rows_[0]))
  found = [row.get(column) for row in rows_]
  if any(value is None for value in found):
    row = next(r for r in rows_ if r.get(column) is None)
    raise errors.InputError('column', column, f'unit {row["unit"]} has none')
  return np.array(found)


def to_csv(rows_: Iterable[dict]) -> str:
  """The table as text; what is not known is an empty field."""
  rows_ = list(rows_)
  names = list(dict.fromkeys(name for row in rows_ for name in row))
  text = io.StringIO()
  writer = csv.DictWriter(text, names or list(COLUMNS), lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows_)
  return text.getvalue()


def _row(run, price, pca):
  row = dict.fromkeys(COLUMNS)
  row.update(unit=run.name, state=run.state, error=run.error)
  row.update(run.factors)
  hours = price.get('hours')
  row['priced_seconds'] = None if hours is None else 3600 * hours
  if not run.model:  # It never started, or failed before it could.
    row['seed'] = run.overrides.get('seed')
    return row
  row.update(_of_config(run.config), **_of_model(run))
  if run.state != 'done':
    return row
  images = run.images
  for name in ('psnr', 'ssim', 'mse', 'kl_bits', 'lpips', 'lpips_alex'):
    mean = float(np.mean(images.get(name, np.nan), dtype=np.float64))
    row[name] = None if np.isnan(mean) else mean  # SSIM of tiny images is nan.
  row.update(images=len(images['index']), steps=run.done['step'],
             groups=len(np.unique(images['group'])),
             coded_bits=run.numbers.get('coded_bits'),
             absent=' '.join(name.removesuffix('_absent') for name in
                             run.numbers if name.endswith('_absent')))
  row |= {name: run.numbers.get(name) for name in _OF_SETS}
  row |= {name: value for name, value in run.numbers.items()
          if '@' in name and '_se' not in name  # Of cut codes, by guidance.
          and not isinstance(value, str)}
  best = min((name for name in row if name.startswith('gkid@')),
             key=row.get, default='')
  row |= {f'gkid_best{end}': run.numbers.get(best + end) for end in ('', '_se')}
  if row['mse']:
    row['log2_mse'] = float(np.log2(row['mse']))
  seconds = run.done.get('seconds', {})
  row['seconds'] = float(sum(seconds.values())) if seconds else None
  for bucket, value in seconds.items():
    row[f'seconds_{bucket}'] = value
  patches = _size(run.config).patches(row['frames'], row['resolution'])
  row['code_bits'] = row['stated_bits'] or row['coded_bits']
  null = pca.get((row['tubelet'], row['patch'],
                  row['code_floats'] // patches))
  if null is not None and not row['stated_bits']:  # As many floats are more.
    row |= {f'pca_{name}': null.get(name) for name in ('psnr', 'lpips', 'rkid')}
  return row


def _of_config(config):
  batch = config['batch_size']
  reference = config.get('optimizer.reference_batch', 0)
  return dict(
      seed=config['seed'], batch_size=batch, steps=config['total_steps'],
      learning_rate=config['optimizer.learning_rate'] * (
          batch / reference if reference else 1),
      resolution=config['data.resolution'], frames=config['data.frames'],
      bottleneck=config['model.bottleneck'],
      kl_weight=config['loss.kl_weight'],
      perceptual=config.get('task') == 'adversarial' or any(
          config.get(f'loss.{term}_weight', 0)
          for term in ('ssim', 'lpips', 'feature')),
      kl_reduction=config['loss.kl_reduction'])


def _of_model(run):
  model, size = run.model, _size(run.config)
  counts, macs = model['parameters'], model['macs']
  return dict(
      model=str(size), tubelet=size.tubelet, patch=size.patch,
      cell=f'{size.tubelet}x{size.patch}',
      channels=size.channels, patch_floats=size.patch_dim,
      width=min(size.encoder.width, size.decoder.width),
      tokens=model['tokens'],
      code_floats=model['code_floats'],
      stated_bits=model.get('code_bits'),
      pixels_per_float=model['pixels_per_float'],
      parameters=counts['total'],
      **{f'{part}_parameters': counts[part]
         for part in ('encoder', 'bottleneck', 'decoder')},
      generator_parameters=model.get('generator_parameters'),
      **{f'{part}_flops': 2 * macs[part] for part in ('encoder', 'decoder')},
      forward_flops=model['flops']['forward'],
      train_flops=model['train_flops'])


def _size(config):
  """The size that a resolved config stands for, its overrides included."""
  towers = {side: types.SimpleNamespace(**{
      field: config.get(f'model.{side}.{field}', 0)  # Runs older than a field.
      for field in ('width', 'depth', 'heads', 'mlp_ratio', 'mlp_width')})
            for side in ('encoder', 'decoder')}
  return sizes.from_config(
      types.SimpleNamespace(name=config['model.name'],
                            latents=config.get('model.latents', 0), **towers))
