"""Names of splits with slices: `train[:90%]`, `test[100:200]`, `train[-5%:]`.

The grammar and the rounding are those of TensorFlow Datasets, for every kind
of source: percentages round to the nearest record, negative bounds count from
the end, and a bound outside the split is refused.
"""

import dataclasses
import re

from vitok import errors

_SPLIT = re.compile(r'([\w-]+)(?:\[([^:\]]*):([^:\]]*)\])?')
_BOUND = re.compile(r'-?(\d+|\d+(\.\d+)?%)')


@dataclasses.dataclass(frozen=True)
class Split:
  """A split of a source, or a slice of one.

  Attributes:
    name: of the whole split.
    low, high: bounds of the slice as they were written; '' is an open end.
  """
  name: str
  low: str = ''
  high: str = ''

  def range(self, count: int) -> range:
    """The records of this slice, among `count` in the whole split.

    Raises:
      ValueError: for a bound outside the split.
    """
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
  name, low, high = match.groups(default='') if match else ('', '', '')
  if not match or not all(
      _BOUND.fullmatch(bound.strip()) for bound in (low, high) if bound):
    raise errors.InputError(key, text, 'is not a split or a slice of one',
                            "'train[:90%]' or 'train[100:200]'")
  return Split(name, low.strip(), high.strip())


def _absolute(bound, count):
  percent = bound.endswith('%')
  value, most = ((float(bound[:-1]), 100) if percent else (int(bound), count))
  if not -most <= value <= most:
    raise ValueError(f'{bound} is outside its {count} records')
  value = round(value * count / 100) if percent else value
  return value + count if bound.startswith('-') else value
