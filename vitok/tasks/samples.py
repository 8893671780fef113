"""Measures a generator of images: its loss by noise, and its samples.

Dimensions: B batch, N examples.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from vitok import data, files
from vitok.metrics import files as metric_files
from vitok.metrics import image as image_metrics
from vitok.metrics import protocol, table
from vitok.tasks import base

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)  # At which the loss is measured.
_ROW = ('mask', 'index', 'group')
_GRID = 64  # Samples of the picture, at most.


class Samples:
  """Loss of held-out codes by noise level, and a grid of samples.

  Sample n is made with a key of its own and of the n-th label in turn, so that
  neither the batch size nor the number of devices changes it.

  Files: `evaluation/<step>.npz` (losses of each example), `evaluation/<step>
  .png` (samples, one row a class), `evaluation/protocol.json`. Parameters are
  the moving average if the run keeps one.
  """
  name = 'eval'

  def __init__(self, generator: Any, config: Any):
    self._generator, self._config = generator, config
    self.functions = {
        'losses': self._losses,
        'sample': functools.partial(self._sample, True),
        'sample_unguided': functools.partial(self._sample, False)}

  def _losses(self, state, frozen, batch, key):
    generator, params = self._generator, parameters(state)
    x_BxLxc = generator.codes(frozen['tokenizer'], batch, None)
    label_B = generator.labels(batch)
    keys_B = base.example_keys(key, batch['index'])

    def at(time):
      return generator.loss(params, x_BxLxc, label_B, keys_B,
                            jnp.full(label_B.shape, time))
    losses = jax.lax.map(at, jnp.asarray(TIMES))
    columns = {f'loss@{time}': losses[i] for i, time in enumerate(TIMES)}
    return columns | {'loss': losses.mean(0)}, {
        name: batch[name] for name in _ROW}

  def _sample(self, guides, state, frozen, batch, key):
    """uint8 images of the samples 'number' with 'label' and 'guidance'.

    A scale of 1 needs half of the work, any other is an argument: a sweep of
    them compiles once.
    """
    return image_metrics.to_uint8(self._generator.sample(
        parameters(state), frozen['tokenizer'],
        keys(key, batch['number']), batch['label'],
        batch['guidance'] if guides else 1))

  def run(self, functions, batches, step, workdir,
          last) -> Iterator[tuple[str, Any]]:
    config = self._config
    rows = table.Table()
    for batch in batches:
      rows.add(*functions['losses'](batch))
    results = rows.summary()
    measured = protocol.Protocol.from_config(
        config, results['count'], data.fingerprint(config, 'evaluation'))
    pictures = {scale: self._samples(functions, scale, min(
        _GRID, config.generation.count)) for scale in config.generation.guidance}
    if workdir is not None:
      folder = epath.Path(workdir) / 'evaluation'
      metric_files.write_arrays(folder / f'{step}.npz', rows.columns())
      for i, (scale, images) in enumerate(pictures.items()):
        name = f'{step}.png' if not i else f'{step}_cfg{scale:g}.png'
        metric_files.write_png(folder / name, metric_files.samples(images))
      files.write_text(folder / 'protocol.json', measured.to_json())
    yield from results.items()
    yield 'protocol', measured.id

  def _samples(self, functions, scale, count):
    """uint8 (count, T, H, W, 3)."""
    config = self._config.generation
    size = batch_size(config.batch_size)
    labels = wanted(self._config, count)
    made, name = [], 'sample' if scale != 1 else 'sample_unguided'
    for start in range(0, count, size):
      numbers = np.arange(start, start + size, dtype=np.int32)
      made.append(functions[name]({
          'number': numbers, 'label': labels[numbers % count],
          'guidance': np.float32(scale)}))
    return np.concatenate(made)[:count]


def parameters(state: base.State) -> Any:
  """Of the only player: the moving average if the run keeps one."""
  (name,) = state.params
  return state.params[name] if state.ema[name] is None else state.ema[name]


def keys(key: jax.Array, number_B: jax.Array) -> jax.Array:
  """One key a sample, whatever batch it is made in."""
  return base.example_keys(jax.random.fold_in(key, 1), number_B)


def batch_size(size: int) -> int:
  """Rounded up to what all devices share evenly."""
  devices = jax.device_count()
  return -(-size // devices) * devices


def wanted(config: Any, count: int) -> np.ndarray:
  """(count,) int32 labels, in turn; -1 without classes."""
  labels = tuple(config.generation.labels) or range(config.diffusion.classes)
  return np.resize(np.asarray(labels or (-1,), np.int32), count)
