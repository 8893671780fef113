"""Reads the workdir of a sweep: its units, whatever state they are in.

What lies where is written down in `vitok.scaling.claims`.
"""

import dataclasses
import io
import json
import zipfile
from typing import Any

import numpy as np
from etils import epath

from vitok import errors
from vitok.scaling import claims as claims_lib

# Files of a unit's workdir: it has finished; it has failed, and why.
DONE, FAILED = 'DONE', 'FAILED'
# What an evaluation must hold, and what it may.
_NEEDED = ('index', 'group', 'psnr', 'mse')
# The role of a unit that is there for the generators trained on its codes.
TOKENIZER = 'tokenizer'
_PER_IMAGE = (*_NEEDED, 'ssim', 'kl_bits', 'lpips', 'lpips_alex',
              'rkid', 'rkid_group')


@dataclasses.dataclass(frozen=True)
class Run:
  """One unit.

  Attributes:
    state: 'done' (finished and evaluated), 'failed', 'running' or 'missing'.
    error: why it failed, else None.
    config: leaves of the resolved config by dotted key; {} if never started.
    model: `accounting.describe` of it.
    done: last step, last metrics, seconds by clock bucket.
    curve: lines of metrics.jsonl that hold an evaluation, by rising step.
    images: per-image arrays of the last evaluation by name; 'rkid' is over
      images of its own, of which 'rkid_group' is the group.
    numbers: what that evaluation measured, by name: 'psnr', 'rkid', ...; with
      the reason, '<number>_absent' of those that could not be measured.
    protocol: id of the evaluation protocol, as far as images need it.
    measured: the whole protocol, as `evaluation/protocol.json` holds it.
  """
  name: str
  path: epath.Path
  overrides: dict[str, Any]
  factors: dict[str, Any]
  state: str = 'missing'
  error: str | None = None
  config: dict = dataclasses.field(default_factory=dict)
  model: dict = dataclasses.field(default_factory=dict)
  done: dict = dataclasses.field(default_factory=dict)
  curve: tuple = ()
  images: dict = dataclasses.field(default_factory=dict)
  numbers: dict = dataclasses.field(default_factory=dict)
  protocol: str = ''
  measured: dict = dataclasses.field(default_factory=dict)

  def pictures(self) -> tuple[np.ndarray, np.ndarray] | None:
    """Originals and reconstructions, uint8 NxTxHxWxC, if they were kept."""
    if self.state != 'done':
      return None
    arrays = _arrays(self.path / 'evaluation' / f'{self.done["step"]}.npz',
                     ('originals', 'reconstructions'))
    return tuple(arrays.values()) if len(arrays) == 2 else None


@dataclasses.dataclass(frozen=True)
class Sweep:
  """All units of a workdir, its prices and its null models.

  Attributes:
    info: sweep.json.
    claims: parsed from it.
    runs: in the order of sweep.json. One of a generator has the images and
      numbers of its tokenizer beside its own, and tokenizers have no other.
    price: price.json, or {}.
    nulls: rows of nulls.json, each with an array `psnr_per_image` over the
      images `null_index`, and `lpips_per_image` where LPIPS was measured.
  """
  path: epath.Path
  info: dict
  claims: tuple[claims_lib.Claim, ...]
  runs: tuple[Run, ...]
  price: dict
  nulls: tuple[dict, ...]
  null_index: np.ndarray

  @property
  def done(self) -> list[Run]:
    return [run for run in self.runs if run.state == 'done']

  @property
  def demonstration(self) -> bool:
    """Whether embedded photographs or films were trained or evaluated on."""
    return any({'photographs', 'films'} & {
        *run.config.get('data.sources', ()),
        run.config.get('evaluation.source')} for run in self.runs)


def load_runs(workdir) -> Sweep:
  """The sweep in `workdir`, finished or not.

  Raises:
    InputError: no such folder, no sweep in it, a file that cannot be read, or
      units that were evaluated by different protocols or on other images.
  """
  path = epath.Path(workdir)
  if not path.is_dir():
    raise errors.InputError('--workdir', str(workdir), 'is not a folder')
  info = _json(path / 'sweep.json')
  if not info:
    found = ', '.join(sorted(p.name for p in path.iterdir())[:5]) or 'nothing'
    raise errors.InputError('--workdir', str(workdir), 'holds no sweep (no '
                            f'sweep.json; found {found})')
  for field in ('experiment', 'preset', 'units'):
    if field not in info:
      raise errors.InputError(str(path / 'sweep.json'), None,
                              f'is not a sweep: it holds no {field!r}')
  if not isinstance(info['units'], list) or not all(
      isinstance(unit, dict) and isinstance(unit.get('name'), str)
      for unit in info['units']):
    raise errors.InputError(str(path / 'sweep.json'), None,
                            "is not a sweep: not every unit has a 'name'")
  read = {unit['name']: _run(path / unit['name'], unit)
          for unit in info['units']}
  runs = tuple(
      _joined(run, read[unit['after'][0]])
      if run.config.get('task') == 'generation' and unit.get('after') else run
      for run, unit in zip(read.values(), info['units'], strict=True)
      if run.factors['role'] != TOKENIZER)
  nulls = _json(path / 'nulls.json')
  arrays = _arrays(path / 'nulls.npz')
  _same_evaluation([run for run in runs if run.state == 'done'], nulls, arrays)
  rows = tuple(row | {f'{name}_per_image': arrays.get(f'{row["key"]}/{name}')
                      for name in ('psnr', 'lpips', 'lpips_alex')}
               for row in nulls.get('rows', ()))
  return Sweep(path, info, claims_lib.parse(info.get('claims', ())), runs,
               _json(path / 'price.json'), rows,
               arrays.get('index', np.zeros(0, int)))


def _run(path, unit):
  run = Run(unit['name'], path, unit.get('overrides', {}),
            {'role': 'law', 'configuration': unit['name']}
            | unit.get('factors', {}))
  config, model = _json(path / 'config.json'), _json(path / 'model.json')
  done, error = _json(path / DONE), _json(path / FAILED).get('error')
  protocol, images = _json(path / 'evaluation' / 'protocol.json'), {}
  generates = config.get('task') == 'generation'
  if done:
    images = _evaluation(path, done, protocol,
                         _NEEDED[:2] if generates else _NEEDED)
    error = None if all(np.isfinite(images[name]).all() for name in (
        'psnr', 'mse') if name in images) else 'not finite'
  state = 'failed' if error else 'done' if images else 'running'
  if not (config and model):
    return dataclasses.replace(run, state='failed' if error else 'missing',
                               error=error)
  return dataclasses.replace(
      run, state=state, error=error, config=_flat(config), model=model,
      done=done, curve=tuple(line for line in log(path / 'metrics.jsonl')
                             if 'eval/psnr' in line), images=images,
      numbers=_numbers(path, done), protocol=_ids(protocol).get('psnr', ''),
      measured=protocol)


def _joined(run, tokenizer):
  """A generator's run with what its tokenizer measured."""
  if not (run.model and tokenizer.model):
    return dataclasses.replace(run, model={})
  model = tokenizer.model | {
      'train_flops': run.model['train_flops'],
      'generator_parameters': run.model['parameters']['total']}
  if run.state != 'done' or tokenizer.state != 'done':
    return dataclasses.replace(run, model=model)
  ids = {name: id_ for name, id_ in run.measured.get('ids', {}).items()
         if name in run.measured['numbers']}
  both = {field: tokenizer.measured.get(field, {}) | mine for field, mine in (
      ('ids', ids), ('numbers', run.measured.get('numbers', {})))}
  return dataclasses.replace(
      run, model=model, images=tokenizer.images, protocol=tokenizer.protocol,
      numbers=tokenizer.numbers | run.numbers,
      measured=tokenizer.measured | both)


def _evaluation(path, done, protocol, needed):
  """Arrays per image of a finished run's last evaluation, {} without one."""
  if 'step' not in done:
    raise errors.InputError(str(path / DONE), None, "holds no 'step'")
  file = path / 'evaluation' / f'{done["step"]}.npz'
  images = _arrays(file, _PER_IMAGE)
  for name in needed if file.exists() else ():
    if name not in images or len(images[name]) != len(images['index']):
      raise errors.InputError(str(file), None,
                              f'holds no {name!r}, or not one for each image')
  if images and 'id' not in protocol:
    raise errors.InputError(str(file.parent / 'protocol.json'), None,
                            "is missing or holds no 'id'")
  return images


def _numbers(path, done):
  """The last evaluation's: of training, then of `vitok.evaluate` after it."""
  again = _json(path / 'evaluation' / f'{done["step"]}.json') if done else {}
  metrics = done.get('metrics', {}) | again.get('metrics', {})
  return {name.removeprefix('eval/'): value for name, value in metrics.items()
          if name.startswith('eval/')}


def _ids(protocol):
  """{number: id of its protocol}; PSNR stands for all that need images only."""
  whole = {'psnr': str(protocol['id'])} if 'id' in protocol else {}
  return whole | protocol.get('ids', {})


def _differences(number, a, b):
  """What differs between the protocols of a number, in words."""
  def fields(protocol):
    mine = protocol.get('numbers', {}).get(number, {})
    whole = {name: value for name, value in protocol.items() if name not in (
        'id', 'ids', 'numbers', 'source', *(('psnr', 'ssim') * bool(mine)))}
    return whole | {name: value for name, value in mine.items()
                    if value or name not in ('count', 'data')}
  a, b = fields(a), fields(b)
  return ', '.join(f'{name} is {b.get(name)!r} and {a.get(name)!r}'
                   for name in sorted(a | b) if a.get(name) != b.get(name))


def _same_evaluation(runs, nulls, arrays):
  """Numbers of two protocols, or over other images, are not comparable."""
  if not runs:
    return
  first, known = runs[0], {}
  for run in runs:
    for number, id_ in _ids(run.measured).items():
      other = known.setdefault(number, run)
      theirs = _ids(other.measured)[number]
      if id_ != theirs:
        told = _differences(number, other.measured, run.measured)
        raise errors.InputError(
            str(run.path / 'evaluation' / 'protocol.json'), id_,
            f'is not the protocol of {other.name} for {number}: {theirs!r}'
            + f' ({told})' * bool(told))
    if not np.array_equal(run.images['index'], first.images['index']):
      raise errors.InputError(
          str(run.path), None, f'was not evaluated on the images of '
          f'{first.name}')
  if nulls and nulls.get('protocol', first.protocol) != first.protocol:
    raise errors.InputError('nulls.json', nulls['protocol'],
                            f'is not the protocol of {first.name}')
  for number, id_ in nulls.get('ids', {}).items():
    theirs = _ids(known[number].measured)[number] if number in known else id_
    if theirs != id_:
      raise errors.InputError('nulls.json', id_, 'is not the protocol of '
                              f'{known[number].name} for {number}: {theirs!r}')
  if arrays and not np.array_equal(arrays.get('index'), first.images['index']):
    raise errors.InputError('nulls.npz', None,
                            f'is not over the images of {first.name}')


def _json(path):
  """Contents of a JSON file, {} where there is none."""
  if not path.exists():
    return {}
  try:
    content = json.loads(path.read_text())
  except ValueError as error:
    raise errors.InputError(str(path), None, f'is not JSON: {error}') from error
  if not isinstance(content, dict):
    raise errors.InputError(str(path), None, 'is JSON, but no object')
  return content


def log(path: epath.Path) -> list[dict]:
  """Lines of a metrics.jsonl, up to one that a kill cut short."""
  lines = []
  for line in path.read_text().splitlines() if path.exists() else ():
    try:
      lines.append(json.loads(line))
    except ValueError:
      break
  return lines


def _arrays(path, names=None):
  """{name: array} of an npz file, {} where there is none."""
  if not path.exists():
    return {}
  try:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
      return {name: file[name] for name in names or file.files
              if name in file.files}
  except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise errors.InputError(str(path), None,
                            f'cannot be read: {error}') from error


def _flat(config, prefix=''):
  leaves = {}
  for key, value in config.items():
    leaves |= (_flat(value, f'{prefix}{key}.') if isinstance(value, dict)
               else {prefix + key: value})
  return leaves
