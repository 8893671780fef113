"""Numbers and tables for a terminal, a log file or a pipe, never cut off."""

_PREFIXES = ((1e21, 'Z'), (1e18, 'E'), (1e15, 'P'), (1e12, 'T'),
             (1e9, 'G'), (1e6, 'M'), (1e3, 'k'))


def table(header, rows) -> str:
  """Aligned columns: text to the left, numbers to the right.

  Args:
    header: names of the columns.
    rows: tuples of strings and numbers.
  """
  cells = [[str(cell) for cell in row] for row in (header, *rows)]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  left = [all(isinstance(row[i], str) and not row[i][:1].isdigit()
              for row in rows) for i in range(len(header))]
  return '\n'.join('  '.join(
      cell.ljust(width) if is_left else cell.rjust(width)
      for cell, width, is_left in zip(row, widths, left, strict=True)).rstrip()
                   for row in cells)


def amount(value: float, unit: str = '') -> str:
  """Three digits and a prefix: 4.65e12 'FLOP' -> '4.65 TFLOP'."""
  for factor, prefix in _PREFIXES:
    if abs(value) >= factor:
      return f'{value / factor:.3g} {prefix}{unit}'
  return f'{value:.3g} {unit}'.rstrip()


def duration(seconds: float) -> str:
  """`47 s`, `12:05 min`, `3:20 h`, `12.5 days`."""
  if seconds < 60:
    return f'{seconds:.0f} s'
  minutes = round(seconds / 60)
  if seconds < 3600:
    return f'{int(seconds // 60)}:{int(seconds % 60):02d} min'
  if minutes < 60 * 48:
    return f'{minutes // 60}:{minutes % 60:02d} h'
  return f'{seconds / 86400:.1f} days'
