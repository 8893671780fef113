"""Reads a compiled program's text: what each device sends over the wire.

A ring moves, per device of n, (n-1)/n of the full array for an all-gather or a
reduce-scatter and twice that for an all-reduce (Patarasuk and Yuan 2009). XLA's
CPU backend has no pass that makes a reduce-scatter of an all-reduce of which
each device keeps its slice, so such an all-reduce is counted as what the GPU
and TPU backends emit for it.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all',
               'collective-permute')
_PASS = ('bitcast', 'copy', 'reshape', 'transpose', 'convert')
_BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 's32': 4, 'u32': 4,
          'f32': 4, 's64': 8, 'u64': 8, 'f64': 8}


@dataclasses.dataclass(frozen=True)
class Instruction:
  name: str
  shapes: tuple[tuple[str, tuple[int, ...]], ...]  # One, or a tuple's elements.
  op: str
  operands: tuple[str, ...]
  attributes: str
  root: bool

  @property
  def bytes(self) -> int:
    return sum(_nbytes(shape) for shape in self.shapes)


@dataclasses.dataclass(frozen=True)
class Collective:
  """One array that a collective moves, `times` times a step."""

  op: str  # 'all-reduce' of which slices are kept reads 'reduce-scatter'.
  shape: tuple[int, ...]  # The whole array, not one device's part.
  wire_bytes: float  # Sent by each device, each time.
  times: int
  source: str  # Where in the program it comes from.

  @property
  def in_loop(self) -> bool:
    return self.times > 1


def collectives(text: str) -> list[Collective]:
  """Every collective of a compiled program's text, loops' bodies included."""
  program, entry = parse(text)
  found = []
  for computation, times in _reached(program, entry, 1):
    for instruction in program[computation]:
      op = instruction.op.removesuffix('-start')
      if op in COLLECTIVES:
        found += _moved(program, computation, instruction, op, times)
  return found


def _nbytes(shape):
  return _BYTES[shape[0]] * math.prod(shape[1])


def _moved(program, computation, instruction, op, times):
  n = _group_size(instruction.attributes)
  operands = [next(i for i in program[computation] if i.name == name)
              for name in instruction.operands]
  tuples = len(operands) > 1
  source = re.search(r'op_name="([^"]*)"', instruction.attributes)
  source = source.group(1) if source else instruction.name
  if op == 'all-to-all' or op == 'collective-permute':
    size = sum(operand.bytes for operand in operands)
    sent = size if op == 'collective-permute' else size * (n - 1) / n
    return [Collective(op, operands[0].shapes[0][1], sent, times, source)]
  found = []
  for i, operand in enumerate(operands):
    part, = operand.shapes
    whole = (part if op != 'all-gather' else
             instruction.shapes[i] if tuples else instruction.shapes[-1])
    kind, sent = op, _nbytes(whole) * (n - 1) / n
    if op == 'all-reduce':
      element = [use.name for use in program[computation]
                 if instruction.name in use.operands
                 and use.op == 'get-tuple-element'
                 and use.attributes.startswith(f', index={i},')]
      names = element if tuples else [instruction.name]
      if names and all(_sliced(program, computation, name,
                               math.prod(whole[1]), n) for name in names):
        kind = 'reduce-scatter'
      else:
        sent *= 2
    found.append(Collective(kind, whole[1], sent, times, source))
  return found


def _sliced(program, computation, name, size, n, at_root=lambda: False):
  """Whether every use of a value of `size` numbers keeps one n-th of it.

  `at_root` says so for the value that the computation returns.
  """
  uses = [i for i in program[computation] if name in i.operands]
  is_root = any(i.root and i.name == name for i in program[computation])
  return (bool(uses) or is_root) and (not is_root or at_root()) and all(
      _keeps_slice(program, computation, use, name, size, n, at_root)
      for use in uses)


def _keeps_slice(program, computation, use, name, size, n, at_root):
  further = lambda: _sliced(program, computation, use.name, size, n, at_root)
  if use.op == 'dynamic-slice':
    return math.prod(use.shapes[0][1]) * n <= size
  if use.op in _PASS:
    return further()
  if use.op in ('fusion', 'call'):
    inner = re.search(r'(?:calls|to_apply)=%([\w.-]+)', use.attributes).group(1)
    numbers = [i for i, operand in enumerate(use.operands) if operand == name]
    return all(
        _sliced(program, inner, i.name, size, n, further)
        for i in program[inner]
        if i.op == 'parameter' and int(i.operands[0]) in numbers)
  return False


def _reached(program, computation, times) -> Iterator[tuple[str, int]]:
  """Each computation that runs, with how often."""
  yield computation, times
  for i in program[computation]:
    called = re.findall(
        r'(?:body|calls|to_apply|\w+_computation)=%([\w.-]+)', i.attributes)
    trips = 1
    if i.op == 'while':
      trips = int(re.search(
          r'known_trip_count[^}]*"n":"(\d+)"', i.attributes).group(1))
    if i.op in ('while', 'fusion', 'call', 'conditional'):
      for inner in called:
        yield from _reached(program, inner, times * trips)


def _group_size(attributes) -> int:
  """Devices per group, from any of the three ways XLA writes groups."""
  mesh = re.search(
      r'replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}', attributes)
  if mesh:
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh.group(1)))
    return math.prod(
        int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh.group(2)))
  iota = re.search(r'replica_groups=\[\d+,(\d+)\]', attributes)
  if iota:
    return int(iota.group(1))
  first = re.search(r'replica_groups=\{\{([\d,]*)\}', attributes)
  return len(first.group(1).split(',')) if first else 1


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
  """{computation: [Instruction]}, and the name of the entry."""
  program, entry, body = {}, None, None
  for line in re.sub(r'/\*.*?\*/', '', text).splitlines():
    head = re.match(r'(ENTRY )?%([\w.-]+) \(.*\{$', line)
    if head:
      body = program.setdefault(head.group(2), [])
      entry = head.group(2) if head.group(1) else entry
      continue
    row = re.match(r'\s+(ROOT )?%([\w.-]+) = ', line)
    if not row:
      continue
    rest = line[row.end():]
    end = _closing(rest) if rest[0] == '(' else rest.index(' ')
    shapes = tuple(
        (dtype, tuple(int(size) for size in sizes.split(',') if size))
        for dtype, sizes in re.findall(r'(\w+)\[([\d,]*)\]', rest[:end]))
    rest = rest[end:].strip()
    op, _, rest = rest.partition('(')
    end = _closing('(' + rest)
    inside, attributes = rest[:end - 2], rest[end - 1:]
    operands = tuple(re.findall(r'%([\w.-]+)', inside)) or (inside,)
    body.append(Instruction(
        row.group(2), shapes, op, operands, attributes, bool(row.group(1))))
  return program, entry


def _closing(text) -> int:
  """The position after the parenthesis that closes the first one."""
  depth = 0
  for i, letter in enumerate(text):
    depth += (letter == '(') - (letter == ')')
    if depth == 0:
      return i + 1
  raise ValueError(f'unbalanced: {text[:60]}')
