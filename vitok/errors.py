"""What a user may get wrong, said in one line.

Everything that reads user input (config, names, files, command lines) raises
`InputError`; `exits_on_input_error` turns it into one line on stderr and exit
code 2. Nothing here imports JAX, so a refusal never starts a backend.
"""

import argparse
import contextlib
import difflib
import sys


class InputError(ValueError):
  """A refused input: which key or file, its value, why, and what would do.

  Args:
    key: dotted config key, flag or file path that is at fault.
    value: the refused value; `None` where the key itself is at fault.
    reason: why it is refused, without a trailing full stop.
    nearest: the nearest valid choice, or `None`.
  """

  def __init__(self, key, value, reason, nearest=None):
    self.key, self.value = key, value
    self.reason, self.nearest = reason, nearest
    shown = f'{key}' if value is None else f'{key}={_short(value)}'
    hint = f'; nearest valid choice: {nearest}' if nearest is not None else ''
    super().__init__(' '.join(f'{shown}: {reason}{hint}'.split()))


def _short(value):
  """`repr` with the middle of a very long one left out."""
  text = repr(value)
  return text if len(text) <= 1000 else f'{text[:100]}...{text[-100:]}'


def nearest(word, choices):
  """The choice most like `word` (first one if none is alike), or `None`."""
  choices = [str(choice) for choice in choices]
  alike = difflib.get_close_matches(str(word), choices, n=1, cutoff=0.3)
  return alike[0] if alike else (choices[0] if choices else None)


def one_of(key, value, choices):
  """Returns `value`, or raises `InputError` if it is not among `choices`."""
  if value not in choices:
    known = ', '.join(repr(choice) for choice in choices)
    raise InputError(key, value, f'is not one of {known}',
                     nearest(value, choices))
  return value


@contextlib.contextmanager
def exits_on_input_error():
  """Wraps a command line: an `InputError` becomes one line and exit code 2."""
  try:
    yield
  except InputError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)


class Parser(argparse.ArgumentParser):
  """A command line whose mistakes are `InputError`s and not usage pages."""

  def __init__(self, **options):
    super().__init__(allow_abbrev=False,
                     formatter_class=argparse.RawDescriptionHelpFormatter,
                     **options)

  def error(self, message):
    flags = [flag for action in self._actions for flag in action.option_strings
             if flag.startswith('--')]
    words = [word for word in message.split() if word.startswith('--')]
    near = None
    if 'unrecognized' in message and words:
      near = nearest(words[0].partition('=')[0], flags)
    raise InputError('command line', None, message, near)
