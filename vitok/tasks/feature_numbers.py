"""Numbers of sets of images, from features of some of the evaluated examples.

What is made of the examples, by a model or by none, does not matter here. The
originals' features are cached by protocol (`metrics.reference`).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from vitok import config as config_lib
from vitok import data, errors
from vitok.interop import weights
from vitok.metrics import (
    distributions,
    moments,
    networks,
    numbers,
    protocol,
    reference,
)
from vitok.metrics import features as features_lib
from vitok.metrics import image as image_metrics
from vitok.models import layers
from vitok.tasks import base

# Whose originals' features are cached, by network and whether of clips, and
# the number that these are.
_CACHED = {('inception_fid', False): 'features',
           ('inception_fid', True): 'frame_moments',
           ('i3d', True): 'video_features'}
ORIGINALS = '/originals'


def examples(config: Any) -> Any:
  """The config whose evaluated examples are those with features."""
  evaluation = config.evaluation
  if not 0 < evaluation.features < (evaluation.count or float('inf')):
    return config
  return config_lib.override(config.copy_and_resolve_references(), {
      'evaluation.count': evaluation.features})


def networks_of(names: Sequence[str]) -> list[str]:
  """The networks of features that some numbers need."""
  used = dict.fromkeys(numbers.NUMBERS[name][1] for name in names)
  return [name for name in used if name in networks.FEATURES]


def weights_of(used: Sequence[str]) -> dict[str, base.WeightRef]:
  """Weights of networks that are there; reads the heads of their files."""
  infos = [weights.describe(file) for file in dict.fromkeys(
      file for name in used for file in networks.files(name))]
  return {info.name: base.WeightRef(
      info.source, info.sha256, functools.partial(weights.load, info.name))
          for info in infos}


def of_images(network: str, state: base.State, frozen: Any, batch: base.Batch,
              key: jax.Array) -> jax.Array:
  """Features (B, T, D) of a batch's 'image'; an evaluator's function.

  Of images alone, whatever made them: networks take long to compile, and all
  models of a resolution share what is in the cache of compiled programs.
  """
  del state, key
  return networks.FEATURES[network].apply(
      frozen, layers.constrain_batch(image_metrics.levels(batch['image'])))


def measure(config: Any, names: Sequence[str], batches: Any,
            made: Callable[[Any], tuple[Mapping, Mapping]],
            features: Callable[[str, np.ndarray], np.ndarray],
            ) -> tuple[dict[str, float], dict[str, protocol.Definition],
                       dict[str, str], dict[str, np.ndarray]]:
  """Measures the numbers that are of features.

  Args:
    config: of the run.
    names: numbers whose networks are there.
    batches: of the examples of `examples(config)`, with their `count`.
    made: batch -> {'original', 'made': uint8 (B, T, H, W, 3), 'finite': (B,)
      whether what was made is}, and the rows 'mask', 'index', 'group'.
    features: (network, uint8 images) -> (B, T, D).

  Returns:
    {name: value} with standard errors; {number: definition}; {number: why it
    was not measured}; and of numbers that are means over these examples the
    values of each, '<number>', with their '<number>_index' and
    '<number>_group'. All empty on all processes but the first.
  """
  used, whole, config = networks_of(names), config, examples(config)
  names = [name for name in names if numbers.NUMBERS[name][1] in used]
  fingerprint = data.fingerprint(config, 'evaluation')
  paired = {numbers.NUMBERS[name][1] for name in names
            if numbers.NUMBERS[name][2]}
  cache = {name: Originals(config, name, batches.count, fingerprint)
           for name in used if name in paired}
  gathered, first = features_lib.Gathered(), jax.process_index() == 0
  for batch in batches:
    images, row = made(batch)
    columns = {}
    for name in used:
      columns[name] = np.where(images['finite'][:, None, None],
                               features(name, images['made']), np.nan)
      if name in paired and not cache[name].hit:
        columns[name + ORIGINALS] = features(name, images['original'])
    if first:
      gathered.add(columns, row)
  if not (first and names):
    return {}, {}, {}, {}
  columns = gathered.columns()
  real = functools.cache(lambda network: (
      cache[network].complete(columns) if network in paired else None))
  values, definitions, absent, of_each = {}, {}, {}, {}
  for name in names:
    network = numbers.NUMBERS[name][1]
    try:
      found, values_N = distributions.measure(
          name, columns[network], real(network), columns['group'])
    except ValueError as error:
      absent[name] = str(error)
      continue
    values |= found
    if values_N is not None:
      of_each |= {name: values_N} | {
          f'{name}_{column}': columns[column] for column in ('index', 'group')}
    definitions[name] = numbers.define(name, networks.sha256(network))
    if config is not whole:
      definitions[name] = dataclasses.replace(
          definitions[name], count=len(columns['index']), data=fingerprint)
  return values, definitions, absent, of_each


def told(step: int, measured: protocol.Protocol, absent: Mapping[str, str]
         ) -> Iterator[tuple[str, str]]:
  """What an evaluation yields beside its numbers: the id of each one's
  protocol, and why a number is absent, which is logged as well."""
  yield 'protocol', measured.of('psnr').id
  for name in measured.numbers:
    yield f'{name}_protocol', measured.of(name).id
  for name, why in absent.items():
    logging.warning('step %d: %s is ABSENT: %s', step, name, why)
    yield f'{name}_absent', why


class Originals:
  """Originals' features of one network.

  A file holds their rows or, of frames of clips, moments (of T frames and D
  features 8 T D^2 bytes, so that few clips are sooner taken again).

  Attributes:
    hit: whether they were found, on every process alike.
    protocol: of the file; None where there is none for such features.
  """

  def __init__(self, config, network, count, fingerprint):
    self._network, self._found, self.protocol = network, None, None
    self.hit = False
    number = _CACHED.get((network, config.data.frames > 1))
    if number is None:
      return
    self._folder = epath.Path(config.evaluation.reference
                              or weights.cache_dir() / 'references')
    self.protocol = protocol.Protocol.from_config(
        config, count, fingerprint,
        {number: numbers.define(number, networks.sha256(network))}).of(number)
    if jax.process_index() == 0:
      try:
        self._found = reference.read(self._folder, self.protocol)
      except errors.InputError as error:
        logging.warning('features of originals are taken again: %s', error)
    self.hit = self._found is not None
    if jax.process_count() > 1:
      self.hit = bool(multihost_utils.broadcast_one_to_all(
          np.int32(self.hit)))

  def complete(self, columns: Mapping[str, Any]) -> features_lib.Features:
    """The originals' features, taken now or before; caches new ones.

    Args:
      columns: with the features if there was no hit; and 'index', the records
        that are asked for: without it all that are cached.

    Raises:
      ValueError: one of the records is not among the cached ones, or moments
        are of more records.
    """
    if self.hit:
      return self._cached(columns.get('index'))
    fresh = columns[self._network + ORIGINALS]
    # Records that turned out to be unreadable are no part of a protocol.
    if self.protocol and self.protocol.count == len(columns['index']) and (
        _worth_a_file(fresh)):
      try:
        reference.write(self._folder, self.protocol, fresh, columns['index'])
      except OSError as error:  # A cache that is full ends no run.
        logging.warning('features of originals are not cached: %s', error)
    return fresh

  def _cached(self, index_N):
    """Cached features of records; one may be unreadable since then."""
    found, stored = self._found
    rows, known_N = stored.get('features'), stored['index']
    index_N = known_N if index_N is None else index_N
    lost, more = (np.setdiff1d(index_N, known_N),
                  np.setdiff1d(known_N, index_N))
    if len(lost) or rows is None and len(more):
      told = (f'{lost[0]} is not' if len(lost) else f'{more[0]} alone is')
      raise ValueError(
          f'record {told} among the cached originals; remove '
          f'{reference.path(self._folder, self.protocol)}')
    if rows is None:
      return [moments.Stream(one) for one in found]
    return rows[np.searchsorted(known_N, index_N)]


def _worth_a_file(features):
  """Whether moments of frames take no more room than their rows."""
  if isinstance(features, np.ndarray):
    return True
  one = next(features_lib.moments(features))
  return one.count >= 2 * len(one.mean_D)
