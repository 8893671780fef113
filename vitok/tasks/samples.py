"""Measures a generator of images: its loss by noise, and its samples.

Dimensions: B batch, N samples, T frames.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from vitok import data, files
from vitok.metrics import (
    distributions,
    features,
    networks,
    numbers,
    protocol,
    table,
)
from vitok.metrics import files as metric_files
from vitok.metrics import image as image_metrics
from vitok.tasks import base, feature_numbers

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)  # At which the loss is measured.
_GRID = 64  # Samples of the picture, at most.


class Samples:
  """Loss of held-out codes by noise level, samples, and their numbers.

  Sample n is made with a key of its own and of the n-th label in turn, so that
  neither the batch size nor the number of devices changes it. Numbers of
  `config.evaluation.numbers` are of `generation.count` samples for each scale
  of `generation.guidance`, as `gkid@1.5`, and of the first one also as `gkid`;
  their reference is the evaluated examples (`evaluation.features` of them). Of
  a number that cannot be measured `<number>_absent` says why.

  Files: `evaluation/<step>.npz` (losses of each example), `<step>.png` and
  `<step>_cfg<scale>.png` (samples by scale), `protocol.json`. Parameters are
  the moving average if the run keeps one.

  Attributes:
    weights: {name: WeightRef} of the networks that measure.

  Raises:
    InputError: numbers that are not of samples of this shape.
  """
  name = 'eval'

  def __init__(self, generator: Any, config: Any):
    self._generator, self._config = generator, config
    asked = tuple(config.evaluation.numbers)
    numbers.check_samples(asked, config.data.frames)
    self._absent = {name: why for name in asked if (
        why := networks.missing(numbers.NUMBERS[name][1]))}
    self._numbers = {name: numbers.NUMBERS[name][1] for name in asked
                     if name not in self._absent}
    used = feature_numbers.networks_of(self._numbers)
    self.weights = feature_numbers.weights_of(used)
    self.functions = {
        'losses': self._losses,
        'rows': lambda state, frozen, batch, key: base.rows(batch),
        'guided': functools.partial(self._sample, True),
        'unguided': functools.partial(self._sample, False)}
    for network in used:
      self.functions[network] = functools.partial(
          feature_numbers.of_images, network)

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
    return columns | {'loss': losses.mean(0)}, base.rows(batch)

  def _sample(self, guides, state, frozen, batch, key):
    """uint8 (B, T, H, W, 3) of the samples 'number' of 'label'.

    A scale of 1 needs half of the work; any other is an argument, so that a
    sweep of them compiles once.
    """
    keys_B = base.example_keys(jax.random.fold_in(key, 1), batch['number'])
    return image_metrics.to_uint8(self._generator.sample(
        parameters(state), frozen['tokenizer'], keys_B, batch['label'],
        batch['guidance'] if guides else 1))

  def run(self, functions, batches, step, workdir,
          last) -> Iterator[tuple[str, Any]]:
    config, every = self._config, self._config.evaluation.numbers_every
    due = bool(last or every and step % every == 0)
    rows = table.Table()
    for batch in batches:
      rows.add(*functions['losses'](batch))
    results, definitions = rows.summary(), {}
    measures = due and jax.process_index() == 0  # It has the originals.
    count, absent = results['count'], dict(self._absent) if due else {}
    real, ids = self._originals(functions, batches) if due else ({}, {})
    pictures = {}
    for scale in config.generation.guidance:
      pictures[scale], made = self._made(functions, scale, due)
      for name, network in self._numbers.items() if measures else ():
        try:
          found = distributions.measure_samples(name, made[network],
                                                real.get(network))
        except ValueError as error:
          absent[name] = str(error)
          continue
        results |= {key.replace(name, f'{name}@{scale:g}', 1): value
                    for key, value in found.items()}
        definition = definitions[f'{name}@{scale:g}'] = dataclasses.replace(
            numbers.define(name, networks.sha256(network),
                           ids.get(network, '')),
            count=config.generation.count, data=self._told(scale))
        if scale == config.generation.guidance[0]:
          results |= found
          definitions[name] = definition
    measured = protocol.Protocol.from_config(
        config, count, data.fingerprint(config, 'evaluation'), definitions)
    if workdir is not None:
      folder = epath.Path(workdir) / 'evaluation'
      metric_files.write_arrays(folder / f'{step}.npz', rows.columns())
      for scale, images in pictures.items():
        first = scale == config.generation.guidance[0]
        name = f'{step}.png' if first else f'{step}_cfg{scale:g}.png'
        metric_files.write_png(folder / name, metric_files.samples(images))
      files.write_text(folder / 'protocol.json', measured.to_json())
    yield from results.items()
    yield from feature_numbers.told(step, measured, absent)

  def samples(self, functions: Mapping[str, Callable], scale: float,
              count: int) -> Iterator[np.ndarray]:
    """Samples in batches, the last one filled up beyond `count`.

    Args:
      functions: `functions`, bound to a state.
      scale: of guidance.
      count: of samples.

    Yields:
      uint8 (B, T, H, W, 3).
    """
    devices = jax.device_count()  # Each makes equally many.
    size = -(-self._config.generation.batch_size // devices) * devices
    for start in range(0, count, size):
      number_B = np.arange(start, start + size, dtype=np.int32)
      yield functions['unguided' if scale == 1 else 'guided']({
          'number': number_B, 'guidance': np.float32(scale),
          'label': labels(self._config, start + size)[start:]})

  def _made(self, functions, scale, measured):
    """Images of the first samples, and of all, if they are to be measured,
    the features by network."""
    used = set(self._numbers.values()) if measured else set()
    count = self._config.generation.count
    count = count if used else min(_GRID, count)
    images, gathered, start = [], features.Gathered(), 0
    for image in self.samples(functions, scale, count):
      if start < _GRID:
        images.append(image)
      number_B = np.arange(start, start + len(image))
      gathered.add(
          {name: functions[name]({'image': image}) for name in used},
          {'index': number_B, 'group': number_B, 'mask': number_B < count})
      start += len(image)
    return np.concatenate(images)[:min(count, _GRID)], gathered.columns()

  def _originals(self, functions, batches):
    """The reference's features by network, on the first process, and protocol
    ids."""
    first = jax.process_index() == 0
    config = feature_numbers.examples(self._config)
    found, ids = {}, {}
    for network in dict.fromkeys(
        network for name, network in self._numbers.items()
        if numbers.NUMBERS[name][2]):
      chosen = batches.spread(config.evaluation.count)
      cache = feature_numbers.Originals(
          config, network, chosen.count, data.fingerprint(config, 'evaluation'))
      gathered = features.Gathered()
      for batch in () if cache.hit else chosen:
        columns = {network + feature_numbers.ORIGINALS: functions[network](
            batch)}
        row = functions['rows'](batch)
        if first:
          gathered.add(columns, row)
      if first:
        found[network] = cache.complete(
            {} if cache.hit else gathered.columns())
      ids[network] = cache.protocol.id
    return found, ids

  def _told(self, scale):
    """What the samples are of and how they are made, as their numbers'
    protocol says it."""
    classes, config = self._generator.classes, self._config
    labels = tuple(config.generation.labels) or (
        f'0..{classes - 1}' if classes else 'none')
    first, last = config.generation.interval
    return (f'samples of labels {labels} in turn, by {config.diffusion.sampler}'
            f' in {config.diffusion.steps} steps, guidance {scale:g} at times '
            f'{first:g} to {last:g}')


def parameters(state: base.State) -> Any:
  """Of the only player: the moving average if the run keeps one."""
  (name,) = state.params
  return state.params[name] if state.ema[name] is None else state.ema[name]


def labels(config: Any, count: int) -> np.ndarray:
  """(count,) int32 labels of the samples, in turn; -1 without classes."""
  asked = tuple(config.generation.labels) or range(config.diffusion.classes)
  return np.resize(np.asarray(asked or (-1,), np.int32), count)
