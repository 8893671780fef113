"""Measures an auto-encoder: what every task that trains one reports."""

import functools
from collections.abc import Iterator
from typing import Any

from absl import logging
from etils import epath

from vitok import data, files, models
from vitok.metrics import files as metric_files
from vitok.metrics import latent, protocol, reconstruction, table
from vitok.tasks import base

_ROW = ('mask', 'index', 'group')


class Reconstruction:
  """PSNR, SSIM, MSE and KL of reconstructions from latent means.

  Files: `evaluation/<step>.npz` and `.png` (`metrics.files`), and
  `evaluation/protocol.json`. Parameters are the moving average if the run
  keeps one.
  """
  name = 'eval'

  def __init__(self, model: models.AutoEncoder, config: Any):
    self._config = config
    self.functions = {
        'measure': functools.partial(self._apply, functools.partial(
            reconstruction.measure, model, images=config.evaluation.grid)),
        'quantised': functools.partial(self._apply, functools.partial(
            reconstruction.quantised, model)),
    }

  def _apply(self, function, state, frozen, batch, key):
    del frozen
    name = base.AUTOENCODER
    params = state.params[name] if state.ema[name] is None else state.ema[name]
    keys = base.example_keys(key, batch['index'])
    values = function({'params': params, **state.stats[name]}, batch, keys)
    # Returned as well, since a process cannot read all rows of its batch.
    return values, {name: batch[name] for name in _ROW}

  def run(self, functions, batches, step, workdir,
          last) -> Iterator[tuple[str, Any]]:
    config = self._config
    rows, coded = table.Table(config.evaluation.grid), []
    for batch in batches:
      values, row = functions['measure'](batch)
      rows.add(values, row)
      if last and len(coded) * len(row['mask']) < config.evaluation.coded:
        coded.append(dict(batch, **row))
    numbers = rows.summary()
    measured = protocol.Protocol.from_config(
        config, numbers['count'], data.fingerprint(config, 'evaluation'))
    if workdir is not None:
      folder = epath.Path(workdir) / 'evaluation'
      metric_files.write_evaluation(folder, step, rows)
      files.write_text(folder / 'protocol.json', measured.to_json())
    yield from numbers.items()
    yield 'protocol', measured.id
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
