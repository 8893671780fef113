"""Names of splits with slices: `train[:90%]`, `test[100:200]`, `train[-5%:]`.

The grammar and the rounding are those of TensorFlow Datasets, for every kind
of source: percentages round to the nearest record, negative bounds count from
the end, bounds past the end of the split are cut to it.
"""

import dataclasses
import re

from vitok import errors

_SPLIT = re.compile(r'(?P<name>[\w-]+)(\[(?P<low>[^:\]]*):(?P<high>[^:\]]*)\])?')
_BOUND = re.compile(r'(?P<value>-?\d+(\.\d+)?)(?P<unit>%?)')


@dataclasses.dataclass(frozen=True)
class Split:
  """A split's name and the bounds of its slice (`''`: an open end)."""
  name: str
  low: str = ''
  high: str = ''

  def range(self, count: int) -> range:
    """The records of this slice among the `count` of the whole split."""
    low = _absolute(self.low, count) if self.low else 0
    high = _absolute(self.high, count) if self.high else count
    return range(low, max(low, high))


def parse(key: str, text: str) -> Split:
  """Reads a split.

  Args:
    key: config key that is blamed if the text is wrong.
    text: as in `train`, `train[:90%]`, `test[100:200]`.

  Raises:
    errors.InputError: if the text does not have that form.
  """
  match = _SPLIT.fullmatch(text.strip())
  bounds = [b.strip() for b in match.group('low', 'high') if b] if match else ()
  if not match or not all(_BOUND.fullmatch(bound) for bound in bounds):
    raise errors.InputError(key, text, 'is not a split or a slice of one',
                            "'train', 'train[:90%]', 'train[100:200]'")
  for bound in bounds:
    if '.' in bound and not bound.endswith('%'):
      raise errors.InputError(key, text, f'{bound} is not a whole number',
                              text.replace(bound, bound.split('.')[0]))
  low, high = ((match[side] or '').strip() for side in ('low', 'high'))
  return Split(match['name'], low, high)


def _absolute(bound, count):
  match = _BOUND.fullmatch(bound)
  value = float(match['value'])
  if match['unit']:
    value = value * count / 100
  value = round(value)
  return min(max(value + count if value < 0 else value, 0), count)
