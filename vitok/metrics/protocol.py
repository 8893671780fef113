"""What a number was measured on, and the refusal to compare two things.

Published values of one metric differ by crop, filter, rounding, subset and
averaging more than by model. So each evaluation states its protocol, prints
it, stores it beside the numbers, and `compare` refuses two different ones.
Imports no JAX: reports read stored protocols too.
"""

import dataclasses
import hashlib
import json

from vitok import errors

_ROUNDING = 'clip, then uint8 with ties to even'
_PSNR = 'per frame, mean over frames, mean over examples; at most 100 dB'
_SSIM = ('Gaussian sigma 1.5, 11x11, inside the image only, population '
         'covariance, range 1; per frame, mean over frames, over examples')


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

  @classmethod
  def from_config(cls, config, count: int, data: str) -> 'Protocol':
    """The protocol of a config's evaluation of `count` examples.

    Args:
      config: the whole config; `data` and `evaluation` are read.
      count: examples measured, padding excluded.
      data: fingerprint of the records (`vitok.data.fingerprint(config,
        'evaluation')`), so that runs trained on other data can be compared.
    """
    evaluation = config.evaluation
    return cls(
        source=evaluation.source or config.data.sources[0],
        split=evaluation.split, crop=evaluation.crop, filter=evaluation.filter,
        resolution=config.data.resolution, frames=config.data.frames,
        count=int(count), data=data)

  @property
  def id(self) -> str:
    """12 hex digits; equal exactly if all fields but `source` are equal."""
    fields = dataclasses.asdict(self)
    del fields['source']
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]

  def to_json(self) -> str:
    """As `evaluation/protocol.json` holds it; the id is there to be read."""
    return json.dumps({'id': self.id, **dataclasses.asdict(self)}, indent=2)

  @classmethod
  def from_json(cls, text: str) -> 'Protocol':
    """Reads `to_json`'s text.

    Raises:
      InputError: fields are missing or unknown, or were edited: the stored id
        is not theirs.
    """
    fields = json.loads(text)
    stored = fields.pop('id', None)
    known = {field.name for field in dataclasses.fields(cls)}
    for name in sorted(known ^ set(fields)):
      raise errors.InputError(
          f'protocol.{name}', None,
          'is missing' if name in known else 'is not a field of a protocol',
          errors.nearest(name, sorted(known)))
    protocol = cls(**fields)
    if stored != protocol.id:
      raise errors.InputError('protocol.id', stored, 'is not the id of the '
                              'fields beside it', protocol.id)
    return protocol

  def __str__(self) -> str:
    rows = [('protocol', self.id), *dataclasses.asdict(self).items()]
    return '\n'.join(f'{name:>10}  {value}' for name, value in rows)


def compare(a: Protocol, b: Protocol) -> None:
  """Refuses to compare numbers of two different protocols.

  Raises:
    InputError: they differ; the first difference is its key, all are named.
  """
  if a.id == b.id:
    return
  a, b = dataclasses.asdict(a), dataclasses.asdict(b)
  different = sorted((name for name in a if a[name] != b[name]),
                     key='source'.__eq__)  # Alone, it is no difference.
  raise errors.InputError(
      f'protocol.{different[0]}', b[different[0]],
      'numbers of two protocols cannot be compared: '
      + ', '.join(f'{name} is {a[name]!r} and {b[name]!r}'
                  for name in different))
