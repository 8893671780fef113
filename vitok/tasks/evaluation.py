"""Measures an auto-encoder: what every task that trains one reports."""

import functools
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from absl import logging
from etils import epath

from vitok import data, files, models
from vitok.metrics import files as metric_files
from vitok.metrics import (
  latent,
  networks,
  numbers,
  protocol,
  reconstruction,
  table,
)
from vitok.models import layers
from vitok.tasks import base, feature_numbers


class Reconstruction:
  """PSNR, SSIM, MSE and KL of reconstructions from latent means.

  And `config.evaluation.numbers`, as far as their networks are there: LPIPS of
  every example, distances of features of `config.evaluation.features` of them.
  Of a number that cannot be measured `<number>_absent` says why.

  Files: `evaluation/<step>.npz` and `.png` (`metrics.files`), and
  `evaluation/protocol.json`. Parameters are the moving average if the run
  keeps one.

  Attributes:
    weights: {name: WeightRef} of the networks, for the task that is measured.

  Raises:
    InputError: numbers that are not of reconstructions of this shape.
  """
  name = 'eval'

  def __init__(self, model: models.AutoEncoder, config: Any):
    self._config, self._model = config, model
    asked = tuple(config.evaluation.numbers)
    numbers.check(asked, config.data.resolution, config.data.frames)
    self._absent = {name: why for name in asked if (
        why := networks.missing(numbers.NUMBERS[name][1]))}
    self._numbers = [name for name in asked if name not in self._absent]
    self._distances = {name: numbers.NUMBERS[name][1] for name in self._numbers
                       if numbers.NUMBERS[name][1] in networks.DISTANCES}
    self._networks = feature_numbers.networks_of(self._numbers)
    self.functions = {
        'measure': functools.partial(self._apply, functools.partial(
            reconstruction.measure, model, images=config.evaluation.grid)),
        'quantised': functools.partial(self._apply, functools.partial(
            reconstruction.quantised, model)),
        'images': functools.partial(self._apply, functools.partial(
            reconstruction.images, model)),
        'distances': self._distance,
    }
    for name in self._networks:
      self.functions[name] = functools.partial(feature_numbers.of_images, name)

  @functools.cached_property
  def weights(self) -> dict[str, base.WeightRef]:
    return feature_numbers.weights_of([*self._distances.values(),
                                       *self._networks])

  def _apply(self, function, state, frozen, batch, key):
    del frozen
    keys = base.example_keys(key, batch['index'])
    return function(_variables(state), batch, keys), base.rows(batch)

  def _distance(self, state, frozen, batch, key):
    # Of images alone, as `feature_numbers.of_images` and for its reason.
    del state, key
    x, y = (layers.constrain_batch(batch[name]) for name in (
        'original', 'made'))
    return {name: jnp.where(batch['finite'], networks.DISTANCES[network].apply(
        frozen, x, y), jnp.nan) for name, network in self._distances.items()}

  def run(self, functions, batches, step, workdir,
          last) -> Iterator[tuple[str, Any]]:
    config, every = self._config, self._config.evaluation.numbers_every
    due = last or every and step % every == 0
    rows, coded = table.Table(config.evaluation.grid), []
    for batch in batches:
      values, row = functions['measure'](batch)
      if due and self._distances:
        values = values | functions['distances'](
            functions['images'](batch)[0])
      rows.add(values, row)
      if last and len(coded) * len(row['mask']) < config.evaluation.coded:
        coded.append(dict(batch, **row))
    results = rows.summary()
    found, definitions, absent, of_each = {}, {}, {}, {}
    if due:
      found, definitions, absent, of_each = self._measure(functions, batches,
                                                          rows)
    measured = protocol.Protocol.from_config(
        config, results['count'], data.fingerprint(config, 'evaluation'),
        definitions)
    if workdir is not None:
      folder = epath.Path(workdir) / 'evaluation'
      metric_files.write_evaluation(folder, step, rows, of_each)
      files.write_text(folder / 'protocol.json', measured.to_json())
    yield from (results | found).items()
    yield from feature_numbers.told(step, measured, absent)
    if coded:
      try:
        bits = latent.coded_bits(
            lambda batch: functions['quantised'](batch)[0], coded,
            config.evaluation.coded)
      except ValueError as error:  # A run must end for all that: they lack.
        logging.warning('step %d: no coded bits: %s', step, error)
        return
      yield 'coded_bits', bits.bits
      yield 'coded_loss_db', bits.lost

  def _measure(self, functions, batches, rows):
    """`feature_numbers.measure`, with what needs no features."""
    definitions = {name: numbers.define(name, networks.sha256(network))
                   for name, network in self._distances.items()}
    found, absent, of_each = {}, dict(self._absent), {}
    if 'released_psnr' in self._numbers:
      found['released_psnr'] = numbers.pooled_psnr(rows.columns()['mse'])
      definitions['released_psnr'] = numbers.define('released_psnr')
    if self._networks:
      more = feature_numbers.measure(
          self._config, self._numbers,
          batches.spread(
              feature_numbers.examples(self._config).evaluation.count),
          functions['images'],
          lambda name, images: functions[name]({'image': images}))
      for mine, new in zip((found, definitions, absent, of_each), more,
                           strict=True):
        mine.update(new)
    return found, definitions, absent, of_each


def _variables(state):
  name = base.AUTOENCODER
  params = state.params[name] if state.ema[name] is None else state.ema[name]
  return {'params': params, **state.stats[name]}
