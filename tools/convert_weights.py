"""Converts published weights that lie here as files, and writes such files.

  python tools/convert_weights.py vitok_v2 --encoder=encoder.safetensors \\
      --decoder=decoder.safetensors --out=WORKDIR
  python tools/convert_weights.py vitok_v2 --workdir=RUN --out=FOLDER
  python tools/convert_weights.py dinov2_base --file=model.safetensors

The first makes a workdir that `vitok.load`, `vitok.evaluate` and `init_from`
read as they do a trained run's checkpoint 0, and whose codes `vitok.encode`
and generators take. Sizes are read off the tensors. --source says which images
(`config.data.sources`) a generator takes the mean and deviation of codes of;
without it, only cached codes have them.
The second writes `encoder.safetensors` and `decoder.safetensors` of a run
whose model is of ViTok-v2's kind (`configs/vitok_v2.py`), of its moving
average if it keeps one. The third puts a network for losses by features into
the cache that `tools/fetch_weights.py` fills, from the file that its authors
publish on the Hugging Face hub (`interop.weights.REPOSITORIES`).
"""

import hashlib
import json
import pathlib

import numpy as np
import safetensors.numpy

from vitok import config as config_lib
from vitok import errors, files, loading, models, sizes
from vitok.interop import saved, vitok_v2, weights
from vitok.models.features import dinov2
from vitok.models.features import layers as feature_layers
from vitok.tasks import base
from vitok.training import checkpoints, trainer


def main(arguments=None):
  with errors.exits_on_input_error():
    parser = errors.Parser(prog='python tools/convert_weights.py',
                           description=__doc__)
    add = parser.add_argument
    add('kind', choices=('vitok_v2', *weights.REPOSITORIES))
    add('--file', help='safetensors file of a network for losses')
    add('--encoder', help='safetensors file of a release')
    add('--decoder', help='safetensors file of a release')
    add('--workdir', help='of a run to write as a release')
    add('--out', help='folder that is made')
    add('--resolution', type=int, default=256,
        help='pixels of config.data.resolution of the workdir')
    add('--source', default='',
        help='of images like those that a release was trained on')
    add('--patch_order', default=vitok_v2.PATCH_ORDERS[0],
        choices=vitok_v2.PATCH_ORDERS,
        help='how the release flattens a patch')
    flags = parser.parse_args(arguments)
    given = {name for name in ('file', 'encoder', 'decoder', 'workdir', 'out')
             if getattr(flags, name)}
    if flags.kind != 'vitok_v2':
      if given != {'file'}:
        raise errors.InputError('command line', None,
                                f'{flags.kind} takes --file alone')
      cache(flags.kind, flags.file)
      return
    if given not in ({'encoder', 'decoder', 'out'}, {'workdir', 'out'}):
      raise errors.InputError('command line', None, 'vitok_v2 takes --out and '
                              'either --encoder and --decoder, or --workdir')
    out = pathlib.Path(flags.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
      raise errors.InputError('--out', str(out), 'is there and not empty')
    if flags.workdir:
      export(flags.workdir, out, flags.patch_order)
    else:
      convert(flags.encoder, flags.decoder, out, flags.resolution,
              flags.patch_order, flags.source)


def convert(encoder, decoder, out, resolution, patch_order, source=''):
  """Writes the workdir `out` of two files."""
  tensors = [weights.read(path) for path in (encoder, decoder)]
  params = vitok_v2.from_published(*tensors, patch_order)
  config = config_lib.default()
  size = vitok_v2.size_of(*tensors)
  config.model.update(vitok_v2.MODEL, name=str(size))
  config.data.resolution = resolution
  if source:
    config.data.sources = (source,)
  models.build(config.model, frames=1, resolution=resolution)  # It fits.
  files.write_text(out / 'config.json', config_lib.to_json(config))
  writer = checkpoints.Checkpoints(out, config.checkpoint)
  writer.save(0, {'params': {base.AUTOENCODER: params}}, {
      'config': config_lib.to_json(config),
      'origin': {path: _sha256(path) for path in (encoder, decoder)},
      'patch_order': patch_order})
  writer.wait()
  writer.close()
  # A release is a finished run, of which no more is known.
  files.write_text(out / trainer.DONE, json.dumps(
      {'step': 0, 'seconds': {}, 'metrics': {}, 'source': source},
      indent=2) + '\n')
  print(f'{out}: {size}, of {encoder} and {decoder}')


def export(workdir, out, patch_order):
  """Writes a run's parameters as a release's two files into `out`."""
  config = loading.read_config(workdir)
  for name, value in vitok_v2.MODEL.items():
    has = config.model[name]
    if not (has if name == 'layer_scale' else has == value):
      raise errors.InputError(f'config.model.{name}', has,
                              f'{workdir} is not of the kind of ViTok-v2',
                              value)
  size = sizes.from_config(config.model)
  params, _, step = saved.restore_params(
      workdir, base.AUTOENCODER,
      field='ema' if config.ema_decay else 'params')
  written = vitok_v2.to_published(params, size, patch_order)
  for part, tensors in zip(vitok_v2.PARTS, written, strict=True):
    files.write_bytes(out / f'{part}.safetensors',
                      safetensors.numpy.save(tensors, {'format': 'pt'}))
  print(f'{out}: {size}, step {step} of {workdir}')


def cache(name, path):
  """Converts the file of a network for losses into the cache."""
  network = dinov2.make(name)
  try:
    params = dinov2.from_huggingface(weights.read(path), network)
    feature_layers.check_params(
        network, params, np.zeros((1, dinov2.PATCH, dinov2.PATCH, 3),
                                  np.float32))
  except ValueError as error:
    if isinstance(error, errors.InputError):
      raise
    raise errors.InputError(path, None,
                            f'is not {name}: {error}') from error
  info = weights.save(name, params, f'{weights.REPOSITORIES[name]}, a file '
                      f'with SHA-256 {_sha256(path)}')
  print(f'{weights.path_of(name)}: {info.source}')


def _sha256(path):
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


if __name__ == '__main__':
  main()
