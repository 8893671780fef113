"""An experiment file, read: named units of dotted overrides.

An experiment file defines

  PRESETS        {'cpu': numbers, 'gpu1': ..., 'gpu': ..., 'paper': ...}
  CLAIMS         what is judged and how (`vitok.scaling.claims`)
  units(preset)  yields a `Unit` for each run
  CONFIG         the base config file; 'configs/vitok.py' if it is not given

and its docstring says which figure it reproduces. On a command line it is a
path with an optional preset: `experiments/bottleneck_scaling.py:gpu1`.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable

from etils import epath

from vitok import config as config_lib
from vitok import errors, files
from vitok.scaling import claims as claims_lib
from vitok.scaling import table

DEFAULT_PRESET = 'cpu'
# Files of a unit's workdir: it has finished; it has failed, and why.
DONE, FAILED = 'DONE', 'FAILED'
# As an override's value: the workdir of the first unit of `Unit.after`.
AFTER = '@after'


@dataclasses.dataclass(frozen=True)
class Unit:
  """One run of a sweep.

  Attributes:
    name: unique in its experiment; the name of its workdir.
    overrides: {dotted config key: value}, on top of the base config.
    factors: what the report groups by: 'role', 'configuration', 'arm'
      (`vitok.scaling.claims`), 'budget' (FLOPs that its training steps spend:
      `price.check_budgets`) and any column of the experiment's own.
    after: names of earlier units that must be done before this one starts.
      An override of '@after' is the absolute workdir of the first of them:
      what this one starts from (`init_from`) or reads (`tokenizer.workdir`).
  """
  name: str
  overrides: dict
  factors: dict
  after: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Units of one preset, with the overrides that the user gives to all.

  Attributes:
    name: stem of the experiment's file.
    preset: one of the file's PRESETS.
    spec: as the command line gave it: path, colon, preset.
    about: docstring of the file.
    claims: its CLAIMS, parsed.
    units: in the order in which they run.
    config: path of the base config.
    overrides: {dotted config key: value} of the user, for every unit.
  """
  name: str
  preset: str
  spec: str
  about: str
  claims: tuple
  units: tuple
  config: str
  overrides: dict

  def resolve(self, unit: Unit, workdir=None):
    """The unit's whole config, locked.

    Args:
      unit: one of `units`.
      workdir: of the sweep, for '@after', which otherwise stays as it is.

    Raises:
      InputError: an override that names no field or has the wrong type.
    """
    base, changes = config_lib.load(self.config), unit.overrides
    if workdir is not None:
      changes = {key: f'{_absolute(workdir)}/{unit.after[0]}'
                 if value == AFTER else value for key, value in changes.items()}
    config_lib.override(base, changes)
    return config_lib.override(base, self.overrides).lock()

  def select(self, indices: Iterable[int] | None) -> tuple[Unit, ...]:
    """The units with these indices, all if None.

    Raises:
      InputError: there is no unit with such an index.
    """
    if indices is None:
      return self.units
    chosen, last = tuple(indices), len(self.units) - 1
    for index in chosen:
      if not 0 <= index <= last:
        raise errors.InputError(
            '--index', index, f'units of {self.name}:{self.preset} are '
            f'0 to {last}', min(max(index, 0), last))
    return tuple(self.units[index] for index in chosen)

  def waves(self) -> list[list[int]]:
    """Indices of the units that may run side by side, wave after wave."""
    depth, waves = {}, []
    for index, unit in enumerate(self.units):
      mine = depth[unit.name] = 1 + max(
          (depth[name] for name in unit.after), default=-1)
      waves += [[] for _ in range(mine + 1 - len(waves))]
      waves[mine].append(index)
    return waves

  def record(self) -> dict:
    """What `sweep.json` holds (schema: `vitok.scaling.claims`)."""
    return json.loads(json.dumps(dict(
        experiment=self.name, preset=self.preset, about=self.about,
        config=pathlib.Path(self.config).name, overrides=self.overrides,
        base=json.loads(config_lib.to_json(config_lib.load(self.config))),
        claims=claims_lib.recorded(self.claims), rules=claims_lib.rules(),
        units=[{key: value for key, value in dataclasses.asdict(unit).items()
                if key != 'after' or value} for unit in self.units])))


def load(spec: str, overrides: dict | None = None) -> Experiment:
  """Reads `path[:preset]` and puts the user's overrides on every unit.

  Args:
    spec: path of an experiment file, and a preset after a colon ('cpu').
    overrides: {dotted config key: value or text}.

  Raises:
    InputError: an unknown file or preset, a file that is not an experiment, a
      claim that cannot be judged (`claims.parse`), or an override that is
      unknown, of the wrong type, or of a field which the experiment varies.
  """
  path, _, preset = spec.partition(':')
  module = config_lib.load_module(path, 'EXPERIMENT')
  for field in ('PRESETS', 'CLAIMS', 'units'):
    if not hasattr(module, field):
      raise errors.InputError('EXPERIMENT', path, f'defines no {field}')
  preset = preset or DEFAULT_PRESET
  errors.one_of('EXPERIMENT', preset, tuple(module.PRESETS))
  units = tuple(module.units(preset))
  _check_units(path, units)
  claims = claims_lib.parse(module.CLAIMS, columns={
      *table.COLUMNS, *(name for unit in units for name in unit.factors)})
  experiment = Experiment(
      name=pathlib.Path(path).stem, preset=preset, spec=f'{path}:{preset}',
      about=(module.__doc__ or '').strip(), claims=claims,
      units=units, overrides={},
      config=_base(path, getattr(module, 'CONFIG', 'configs/vitok.py')))
  return dataclasses.replace(
      experiment, overrides=_typed(experiment, overrides or {}))


def record(experiment: Experiment, workdir) -> dict:
  """Writes `<workdir>/sweep.json`, or checks the one that is there.

  Claims stay as they were at launch: a later edit of the file changes no
  verdict (the first line of the report's rules says which ones judge).

  Returns:
    What the file holds.

  Raises:
    InputError: the workdir holds another sweep (another experiment, preset,
      units, overrides or base config), a run, or units without a sweep; or it
      cannot be written.
  """
  path, new = epath.Path(workdir) / 'sweep.json', experiment.record()
  if not path.exists():
    if (path.parent / 'config.json').exists():
      raise errors.InputError('--workdir', str(workdir),
                              'holds a run, not a sweep', f'{workdir}-sweep')
    for unit in experiment.units:
      # Its rules would be written after its results.
      if (path.parent / unit.name / 'config.json').exists():
        raise errors.InputError(
            '--workdir', str(workdir),
            f'holds the unit {unit.name} but no sweep.json', f'{workdir}-2')
    try:
      files.write_text(path, json.dumps(new, indent=1) + '\n')
    except OSError as error:
      raise errors.InputError(
          '--workdir', str(workdir),
          f'cannot be written: {error.strerror or error}') from error
    return new
  old = stored(workdir)
  for field in ('experiment', 'preset', 'overrides', 'config', 'units'):
    if old.get(field) != new[field]:
      raise errors.InputError(
          '--workdir', str(workdir), _difference(field, old, new),
          f'{workdir}-2')
  changed = config_lib.difference(*(
      config_lib.from_json(json.dumps(one.get('base', new['base'])), str(path))
      for one in (old, new)))
  for key, (before, now) in changed.items():
    raise errors.InputError(
        '--workdir', str(workdir), f'holds a sweep whose {new["config"]} had '
        f'config.{key}={before!r}, now {now!r}', f'{workdir}-2')
  return old


def stored(workdir) -> dict:
  """What `<workdir>/sweep.json` holds.

  Raises:
    InputError: there is no such file, or it is not a sweep's.
  """
  path = epath.Path(workdir) / 'sweep.json'
  try:
    held = json.loads(path.read_text())
    return {**held, 'units': list(held['units'])}
  except OSError:
    raise errors.InputError('--workdir', str(workdir),
                            'holds no sweep.json') from None
  except (ValueError, KeyError, TypeError) as error:
    raise errors.InputError(str(path), None,
                            f'is not a sweep: {error}') from error


def _difference(field, old, new):
  """One line on how two records of a sweep differ in `field`."""
  if field != 'units':
    return (f'holds a sweep with {field} {old.get(field)!r}, '
            f'not {new[field]!r}')
  before = {unit['name']: unit for unit in old['units']}
  after = {unit['name']: unit for unit in new['units']}
  odd = next((name for name in {**before, **after}
              if before.get(name) != after.get(name)), 'their order')
  return f'holds a sweep with other units: {odd} differs'


def _absolute(workdir):
  return (str(workdir) if '://' in str(workdir)
          else str(pathlib.Path(workdir).absolute()))


def _base(path, config):
  """The base config: from the current folder, else beside the experiment."""
  beside = pathlib.Path(path).resolve().parent.parent / config
  here = pathlib.Path(config).resolve()
  return str(here if here.is_file() else beside)


def _check_units(path, units):
  names = [unit.name for unit in units]
  if not names:
    raise errors.InputError('EXPERIMENT', path, 'yields no unit')
  for name in names:
    if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9._-]*', name):
      raise errors.InputError('EXPERIMENT', path,
                              f'unit {name!r} cannot be the name of a folder')
    if names.count(name) > 1:
      raise errors.InputError('EXPERIMENT', path,
                              f'yields the unit {name!r} twice')
  for number, unit in enumerate(units):
    for name in unit.after:
      if name not in names[:number]:
        raise errors.InputError(
            'EXPERIMENT', path, f'unit {unit.name!r} is after {name!r}, which '
            'is no unit before it', errors.nearest(name, names[:number]))
    if AFTER in unit.overrides.values() and not unit.after:
      raise errors.InputError(
          'EXPERIMENT', path, f'unit {unit.name!r} has an override {AFTER!r}, '
          'but is after no unit')


def _typed(experiment, overrides):
  """The user's overrides with the types of their fields, none of them varied.

  Two spellings of one value (`x`, `('x',)`) must be equal in sweep.json.
  """
  leaves = config_lib.flatten(config_lib.override(
      config_lib.load(experiment.config), overrides))
  for key in overrides:
    varied = {json.dumps(unit.overrides.get(key))
              for unit in experiment.units}
    if len(varied) > 1:
      raise errors.InputError(
          f'config.{key}', overrides[key],
          f'is what {experiment.name} varies: it cannot be the same for all',
          'another preset')
  return {key: leaves[key] for key in sorted(overrides)}
