"""What a number was measured on, and the refusal to compare two things.

Published values of one metric differ by crop, filter, rounding, subset and
averaging more than by model. So each evaluation states its protocol, prints
it, stores it beside the numbers, and `compare` refuses two different ones.
Imports no JAX: reports read stored protocols too.

PSNR and SSIM need nothing but the images. Numbers that need more (a network,
a reference) each bring a `Definition`, and an id of their own (`Protocol.of`):
what a machine without a network has measured can still be compared with what
another one has. `vitok.metrics.numbers` knows them by name.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vitok import errors

_ROUNDING = 'clip, then uint8 with ties to even'
_PSNR = 'per frame, mean over frames, mean over examples; at most 100 dB'
_SSIM = ('Gaussian sigma 1.5, 11x11, inside the image only, population '
         'covariance, range 1; per frame, mean over frames, over examples')

# What needs images only, and has the protocol without `numbers`.
_OF_IMAGES = ('mse', 'psnr', 'ssim', 'kl_bits')


@dataclasses.dataclass(frozen=True)
class Definition:
  """How one number is made of images.

  Attributes:
    rule: formula, and what is averaged.
    network: name of the network whose features are taken; '' for none.
    weights: SHA-256 of its weights, of all files if there are several.
    resize: how images get the size and the range that the network takes.
    reference: what it is a distance from: 'originals', the examples that were
      reconstructed, or else the id of the reference's own protocol.
    count, data: of the examples, where they are fewer than those of PSNR.
  """
  rule: str
  network: str = ''
  weights: str = ''
  resize: str = ''
  reference: str = ''
  count: int = 0
  data: str = ''


@dataclasses.dataclass(frozen=True)
class Protocol:
  """Everything but the model that an evaluation's numbers depend on.

  Attributes:
    source: where the examples come from: 'photographs', 'tfds:cifar10'. A name
      only: it may hold a path, and `data` says which records they are.
    split: which of them: 'test', 'train[90%:]'.
    crop: how a square is cut: 'center', ...
    filter: resize filter, by name.
    resolution: side of the square, pixels.
    frames: frames per example.
    count: examples measured.
    data: fingerprint of the records.
    rounding, psnr, ssim: the definitions; they change with this code only.
    numbers: definitions of what else was measured, by name.
  """
  source: str
  split: str
  crop: str
  filter: str
  resolution: int
  frames: int
  count: int
  data: str
  rounding: str = _ROUNDING
  psnr: str = _PSNR
  ssim: str = _SSIM
  numbers: dict[str, Definition] = dataclasses.field(
      default_factory=dict, hash=False)

  @classmethod
  def from_config(cls, config, count: int, data: str,
                  numbers: Mapping[str, Definition] | None = None,
                  ) -> 'Protocol':
    """The protocol of a config's evaluation of `count` examples.

    Args:
      config: the whole config; `data` and `evaluation` are read.
      count: examples measured, padding excluded.
      data: fingerprint of the records (`vitok.data.fingerprint(config,
        'evaluation')`), so that runs trained on other data can be compared.
      numbers: definitions of what is measured beside PSNR and SSIM.
    """
    evaluation = config.evaluation
    return cls(
        source=evaluation.source or config.data.sources[0],
        split=evaluation.split, crop=evaluation.crop, filter=evaluation.filter,
        resolution=config.data.resolution, frames=config.data.frames,
        count=int(count), data=data, numbers=dict(numbers or {}))

  def of(self, number: str) -> 'Protocol':
    """The protocol of one number, without the definitions of the others.

    It does not tell whether other numbers were measured on more examples.

    Raises:
      InputError: it was not measured.
    """
    errors.one_of('number', number, (*_OF_IMAGES, *self.numbers))
    if number in _OF_IMAGES:
      return dataclasses.replace(self, numbers={})
    mine = self.numbers[number]
    return dataclasses.replace(
        self, psnr='', ssim='', count=mine.count or self.count,
        data=mine.data or self.data,
        numbers={number: dataclasses.replace(mine, count=0, data='')})

  @property
  def id(self) -> str:
    """12 hex digits; equal exactly if all fields but `source` are equal."""
    fields = self._fields()
    del fields['source']
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]

  def _fields(self) -> dict[str, Any]:
    """As a dictionary; without `numbers` the id is what it always was."""
    fields = dataclasses.asdict(self)
    return fields if self.numbers else _without(fields, 'numbers')

  def to_json(self) -> str:
    """As `evaluation/protocol.json` holds it; ids are there to be read.

    'id' is that of all together; 'ids', where there are `numbers`, that of
    each number.
    """
    ids = {'ids': {name: self.of(name).id for name in (
        *_OF_IMAGES, *self.numbers)}} if self.numbers else {}
    return json.dumps({'id': self.id, **ids, **self._fields()}, indent=2)

  @classmethod
  def from_json(cls, text: str) -> 'Protocol':
    """Reads `to_json`'s text.

    Raises:
      InputError: no JSON object; fields are missing or unknown, or were
        edited: the stored id is not theirs.
    """
    try:
      fields = dict(json.loads(text))
    except (ValueError, TypeError) as error:
      raise errors.InputError('protocol', None,
                              f'is no JSON object ({error})') from error
    stored = {name: fields.pop(name, None) for name in ('id', 'ids')}
    numbers = fields.pop('numbers', {})
    _check_names('protocol', fields, _names(cls) - {'numbers'})
    for name, definition in numbers.items():
      _check_names(f'protocol.{name}', definition, _names(Definition))
    protocol = cls(**fields, numbers={
        name: Definition(**numbers[name]) for name in numbers})
    made = json.loads(protocol.to_json())
    for name, value in stored.items():
      if value != made.get(name):
        raise errors.InputError(f'protocol.{name}', value, 'is not that of the '
                                'fields beside it', made.get(name))
    return protocol

  def __str__(self) -> str:
    rows = {'protocol': self.id, **_flat(self)}
    width = max(map(len, rows))
    return '\n'.join(f'{name:>{width}}  {value}'
                     for name, value in rows.items())


def _names(cls: type) -> set[str]:
  return {field.name for field in dataclasses.fields(cls)}


def _check_names(key: str, given: Mapping, known: set[str]) -> None:
  for name in sorted(known ^ set(given)):
    raise errors.InputError(
        f'{key}.{name}', None,
        'is missing' if name in known else 'is not a field of a protocol',
        errors.nearest(name, sorted(known)))


def _without(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
  return {key: fields[key] for key in fields if key != name}


def _flat(protocol: Protocol) -> dict[str, Any]:
  """Fields, and those of the numbers as 'fid.network'."""
  flat = _without(dataclasses.asdict(protocol), 'numbers')
  for name, definition in protocol.numbers.items():
    flat |= {f'{name}.{key}': value for key, value in
             dataclasses.asdict(definition).items()}
  return flat


def compare(a: Protocol, b: Protocol) -> None:
  """Refuses to compare numbers of two different protocols.

  To compare one number of two evaluations, give the protocols of that number:
  `compare(a.of('rfid'), b.of('rfid'))`.

  Raises:
    InputError: they differ; the first difference is its key, all are named.
  """
  if a.id == b.id:
    return
  if alone := sorted(a.numbers.keys() ^ b.numbers.keys()):
    raise errors.InputError(
        f'protocol.{alone[0]}', None, 'was measured by one of the two only; '
        'compare the protocols of single numbers')
  a, b = _flat(a), _flat(b)
  different = sorted((name for name in a if a[name] != b[name]),
                     key='source'.__eq__)  # Alone, it is no difference.
  raise errors.InputError(
      f'protocol.{different[0]}', b[different[0]],
      'numbers of two protocols cannot be compared: '
      + ', '.join(f'{name} is {a[name]!r} and {b[name]!r}'
                  for name in different))
