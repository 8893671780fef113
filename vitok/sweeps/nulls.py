"""Null models: what a code of the same size buys without any training.

Each is evaluated as the units are: same images, same rounding, same metrics,
`config.evaluation.numbers` included where their networks are there.

  pca         principal components of training patches, as many per patch as
              the unit has floats: the best linear code of its shape
  mean        the mean colour of each patch: 3 floats a token
  downsample  the image made small, with at most E floats, and large again

A unit below its own PCA has not learnt what a linear map knows: it is limited
by optimisation and says nothing about the size of its code.

Letters: B batch, L patches of an example, N patches, D numbers in a patch.
"""

import functools
import json
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from vitok import config as config_lib
from vitok import data, errors, files, sizes
from vitok.data import native
from vitok.interop import weights
from vitok.metrics import files as metric_files
from vitok.metrics import networks, numbers, protocol, reconstruction, table
from vitok.models import autoencoder
from vitok.sweeps.experiment import Experiment
from vitok.tasks import base, feature_numbers

TRAIN_IMAGES = 2048  # Augmented as in training.
_READ = 256  # Of them at a time.


def write(experiment: Experiment, workdir,
          say: Callable[[str], None] = print) -> None:
  """Writes `<workdir>/nulls.json` and `nulls.npz`, unless they are there.

  Schema: `vitok.scaling.claims`. Runs on one device of this process.

  Raises:
    InputError: units differ in their data or in their evaluation.
  """
  path = epath.Path(workdir) / 'nulls.json'
  if path.exists():
    return
  if not _of_codes(experiment.resolve(unit) for unit in experiment.units):
    return
  say('null models: patch PCA, mean colour, down- and upsampling')
  described, arrays = compute(
      [experiment.resolve(unit) for unit in experiment.units])
  metric_files.write_arrays(path.parent / 'nulls.npz', arrays)
  files.write_text(path, json.dumps(described, indent=1) + '\n')


def compute(configs) -> tuple[dict, dict[str, np.ndarray]]:
  """Null models for every code shape among the configs.

  Args:
    configs: of the units, all with the same data and evaluation.

  Returns:
    What `nulls.json` and `nulls.npz` hold.

  Raises:
    InputError: the configs differ in a field under `data` or `evaluation`.
  """
  check(configs)
  configs = _of_codes(configs)
  config = configs[0]
  shape = (config.data.frames, config.data.resolution)
  codes = sorted({sizes.from_config(c.model) for c in configs},
                 key=lambda s: (s.tubelet, s.patch, s.channels))
  kinds = {}  # Key: (fields of the row, image -> image).
  for (tubelet, patch) in dict.fromkeys((c.tubelet, c.patch) for c in codes):
    mean_D, basis_DxD = fit_pca(config, tubelet, patch)
    mine = [c for c in codes if (c.tubelet, c.patch) == (tubelet, patch)]
    patches = mine[0].patches(*shape)
    kinds[f'mean-{tubelet}x{patch}'] = (
        _row('mean', tubelet, patch, 3, patches),
        functools.partial(mean_colour, tubelet=tubelet, patch=patch))
    # With latent tokens, floats per patch are no channels, and rounded down.
    for channels in sorted(
        {c.code_floats(*shape) // patches for c in mine} - {0}):
      kinds[f'pca-{tubelet}x{patch}x{channels}'] = (
          _row('pca', tubelet, patch, channels, patches),
          functools.partial(
              project, mean_D=mean_D, basis_DxD=basis_DxD,
              keep=channels, tubelet=tubelet, patch=patch))
  for floats in sorted({c.code_floats(*shape) for c in codes}):
    small = small_shape(floats, *shape)
    if small is not None:
      kept = 3 * math.prod(small)
      kinds[f'downsample-{kept}'] = (
          _row('downsample', 0, 0, 0, math.prod(small)) | {
              'code_floats': kept},
          functools.partial(downsample, small=small))
  models = {key: kind[1] for key, kind in kinds.items()}
  columns = _evaluate(config, models)
  sets, definitions = _numbers(config, models)
  first = next(iter(columns.values()))
  arrays = {'index': first['index'], 'group': first['group']}
  rows = []
  for key, (row, _) in kinds.items():
    mine = {name: values for name, values in columns[key].items()
            if name not in ('index', 'group')}
    arrays |= {f'{key}/{name}': values for name, values in mine.items()}
    means = {name: float(values.mean(dtype=np.float64))
             for name, values in mine.items()}
    rows.append(row | {'ssim': None} | means | sets[key] | {'key': key})
  measured = protocol.Protocol.from_config(
      config, len(first['index']), data.fingerprint(config, 'evaluation'),
      definitions)
  return {'protocol': measured.of('psnr').id,
          'ids': {name: measured.of(name).id for name in definitions},
          'train_images': TRAIN_IMAGES, 'rows': rows}, arrays


def check(configs) -> None:
  """Refuses configs that have no null model in common.

  Raises:
    InputError: they differ in a field under `data` or `evaluation`, other
      than how often evaluations are.
  """
  configs = _of_codes(configs)
  for group in ('data', 'evaluation'):
    fields = [{**config[group].to_dict(), 'every': 0} for config in configs]
    if any(other != fields[0] for other in fields):
      raise errors.InputError(
          f'config.{group}', None, 'differs between units, which therefore '
          'have no null model in common')
    for config in configs:
      if config[group].crop == native.CROP:
        raise errors.InputError(f'config.{group}.crop', native.CROP,
                                'null models are of squares', 'center')


def _of_codes(configs):
  """Those of auto-encoders: what generates has no null model here."""
  return [config for config in configs if config.task != 'generation']


def fit_pca(config, tubelet: int, patch: int) -> tuple[np.ndarray, np.ndarray]:
  """Principal components of training patches.

  Args:
    config: whose first training images are taken, augmented.
    tubelet, patch: frames and pixels of a patch.

  Returns:
    mean (D,) and orthonormal basis (D, D), columns by falling variance,
    float32, for pixels in [-1, 1].
  """
  # The stream of records does not depend on the size of a batch.
  config = config_lib.override(config.copy_and_resolve_references(),
                               {'batch_size': _READ})
  total, count, square_DxD = 0.0, 0, 0.0
  for start in range(0, TRAIN_IMAGES, _READ):
    rows = range(min(_READ, TRAIN_IMAGES - start))
    image = data.host_batch(config, start // _READ, rows)['image']
    x_NxD = np.asarray(autoencoder.patchify(image, tubelet, patch), np.float64)
    x_NxD = x_NxD.reshape(-1, x_NxD.shape[-1])
    total = total + x_NxD.sum(0)
    square_DxD = square_DxD + x_NxD.T @ x_NxD
    count += len(x_NxD)
  mean_D = total / count
  covariance_DxD = square_DxD / count - np.outer(mean_D, mean_D)
  _, basis_DxD = np.linalg.eigh(covariance_DxD)
  return (mean_D.astype(np.float32),
          np.ascontiguousarray(basis_DxD[:, ::-1], np.float32))


@functools.partial(jax.jit, static_argnames=('tubelet', 'patch'))
def project(image, mean_D, basis_DxD, keep, *, tubelet, patch):
  """The image from the first `keep` components of each patch."""
  # `keep` masks instead of slicing, so that all channels share a program.
  with jax.default_matmul_precision('highest'):
    x_BxLxD = (autoencoder.patchify(image, tubelet, patch) - mean_D) @ basis_DxD
    x_BxLxD = jnp.where(jnp.arange(len(mean_D)) < keep, x_BxLxD, 0)
    x_BxLxD = x_BxLxD @ basis_DxD.T + mean_D
  return _unpatchify(x_BxLxD, image, tubelet, patch)


@functools.partial(jax.jit, static_argnames=('tubelet', 'patch'))
def mean_colour(image, *, tubelet, patch):
  """Each patch in its own mean colour."""
  x_BxLxD = autoencoder.patchify(image, tubelet, patch)
  x = x_BxLxD.reshape(*x_BxLxD.shape[:2], -1, image.shape[-1])
  x = jnp.broadcast_to(x.mean(2, keepdims=True), x.shape)
  return _unpatchify(x.reshape(x_BxLxD.shape), image, tubelet, patch)


@functools.partial(jax.jit, static_argnames='small')
def downsample(image, *, small):
  """Bicubic with antialiasing to (frames, height, width), and back."""
  b, t, h, w, c = image.shape
  down = jax.image.resize(image, (b, *small, c), 'cubic')
  return jax.image.resize(down, (b, t, h, w, c), 'cubic')


def small_shape(floats: int, frames: int, resolution: int):
  """The largest (frames, height, width) of RGB within a number of floats.

  All axes of a clip shrink alike; None where not even one pixel fits.
  """
  axes = 2 if frames == 1 else 3
  scale = min(1.0, (floats / (3 * frames * resolution**2))**(1 / axes))
  # A hair more than the root, since 27 ** (1 / 3) is below 3.
  small = (max(1, math.floor(frames * scale + 1e-9)) if frames > 1 else 1,
           *(math.floor(resolution * scale + 1e-9),) * 2)
  return small if min(small) and 3 * math.prod(small) <= floats else None


def _unpatchify(x_BxLxD, image, tubelet, patch):
  _, t, h, w, _ = image.shape
  grid = t // tubelet, h // patch, w // patch
  return autoencoder.unpatchify(x_BxLxD, grid, tubelet, patch)


def _row(model, tubelet, patch, channels, tokens):
  return dict(model=model, tubelet=tubelet, patch=patch, channels=channels,
              tokens=tokens, code_floats=channels * tokens)


def _evaluate(config, models):
  """{key: columns of its table} of functions image -> image."""
  tables = {key: table.Table() for key in models}
  distances = {name: numbers.NUMBERS[name][1] for name in _present(config)
               if numbers.NUMBERS[name][1] in networks.DISTANCES}
  frozen = _frozen(distances.values())
  for batch in _batches(config):
    image = batch['image']
    for key, model in models.items():
      made = model(image)
      images = _pair(image, made)
      values = _compare(image, made) | {
          name: _distance(frozen, images['original'], images['made'],
                          network=network)
          for name, network in distances.items()}
      tables[key].add(*jax.device_get((values, base.rows(batch))))
  return {key: rows.columns() for key, rows in tables.items()}


def _numbers(config, models):
  """Of all images together: {key: {number: value}}, and the definitions."""
  names = _present(config)
  used = feature_numbers.networks_of(names)
  frozen, sets, definitions = _frozen(used), {key: {} for key in models}, {}
  count = feature_numbers.examples(config).evaluation.count
  for key, model in models.items() if used else ():
    made = lambda batch, model=model: jax.device_get((_pair(
        batch['image'], model(batch['image'])), base.rows(batch)))
    features = lambda network, images: np.asarray(
        _features(frozen, images, network=network))
    sets[key], found, *_ = feature_numbers.measure(
        config, names, _batches(config).spread(count), made, features)
    definitions |= found
  return sets, definitions | {
      name: numbers.define(name, networks.sha256(numbers.NUMBERS[name][1]))
      for name in names if numbers.NUMBERS[name][1] in networks.DISTANCES}


def _present(config):
  """The numbers that the config asks for and that can be measured."""
  return [name for name in config.evaluation.numbers
          if not networks.missing(numbers.NUMBERS[name][1])]


def _frozen(used):
  return {file: jax.device_put(weights.load(file)) for file in dict.fromkeys(
      file for network in used for file in networks.files(network))}


def _batches(config):
  return data.eval_batches(config, jax.sharding.SingleDeviceSharding(
      jax.local_devices()[0]))


_compare = jax.jit(reconstruction.compare)
_pair = jax.jit(reconstruction.pair)


@functools.partial(jax.jit, static_argnames='network')
def _distance(frozen, x, y, *, network):
  return networks.DISTANCES[network].apply(frozen, x, y)


@functools.partial(jax.jit, static_argnames='network')
def _features(frozen, x, *, network):
  return networks.FEATURES[network].apply(frozen, x)
