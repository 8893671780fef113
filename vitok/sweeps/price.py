"""What a sweep costs and what it can show, before it runs.

Parameters, FLOPs and memory are arithmetic (`vitok.accounting`), hours are
FLOPs of the training steps over a share of a device's peak. `price.json` is
written once, before the first unit, and never again: afterwards the report
holds it against what was spent.
"""

import dataclasses
import json
import math
from collections.abc import Callable

from etils import epath

from vitok import config as config_lib
from vitok import errors, files, sizes, tasks
from vitok.accounting import devices as devices_lib
from vitok.data import codes
from vitok.scaling import estimates, iso, runs, table
from vitok.scaling.responses import RESPONSES
from vitok.sweeps import text
from vitok.sweeps.experiment import Experiment

# Share of the peak that training reaches: measured 0.33-0.55 on CPU cores,
# 0.3-0.6 on accelerators. `--efficiency` where a better number is known.
EFFICIENCY = 0.4


def price(experiment: Experiment, *, device: str = 'local', count: int = 0,
          efficiency: float = EFFICIENCY) -> dict:
  """The price of every unit, of the sweep, and what it can detect.

  Args:
    experiment: what would run.
    device: name in the peak table, or 'local' for this machine's (a CPU's
      peak is measured).
    count: devices that share a unit's batch; 0: one, or all local ones.
    efficiency: share of the peak that training reaches.

  Returns:
    {'device', 'devices', 'peak_flops' of one device, 'efficiency', 'units':
    [{'unit', 'role', 'model', 'parameters', 'train_flops',
    'bytes_per_device', 'hours'}], 'total': {'train_flops',
    'bytes_per_device' (the largest), 'hours'}, 'smallest_effects': {claim:
    number or None}, 'effect_units': {claim: unit of its response}}. Hours are
    with the networks of losses, and with a generator's tokenizer where it
    encodes in the step, which FLOPs are not; None on an accelerator of unknown
    peak.

  Raises:
    InputError: an unknown device, a config without a price, or as
      `check_budgets`.
  """
  if count < 0 or not 0 < efficiency <= 1:
    key = '--devices' if count < 0 else '--efficiency'
    raise errors.InputError(key, count if count < 0 else efficiency,
                            'is out of range', 1 if count < 0 else EFFICIENCY)
  check_budgets(experiment)
  configs = [experiment.resolve(unit) for unit in experiment.units]
  known = {dtype: _device(device, dtype)
           for dtype in {config.model.dtype for config in configs}}
  if not count:
    count = _local_count() if device == 'local' else 1
  rows, described = [], []
  for unit, config in zip(experiment.units, configs, strict=True):
    cost = tasks.build(config).cost(count)
    flops = _train_flops(config, cost)
    one = known[config.model.dtype]
    others = sum(net['train_step'] for net in cost.get('losses', {}).values())
    if config.task == 'generation' and not all(
        source.startswith(codes.PREFIX) for source in config.data.sources):
      others += cost['tokenizer']['encode']
    work = flops + others * config.batch_size * config.total_steps
    rows.append(dict(
        unit=unit.name, role=unit.factors.get('role', 'law'),
        model=(cost['name'] if config.task == 'generation'
               else sizes.name(sizes.from_config(config.model))),
        parameters=cost['parameters']['total'],
        train_flops=flops, bytes_per_device=cost['memory']['total'],
        hours=one and devices_lib.hours(work, one, efficiency,
                                        config.model.dtype, count)))
    if config.task == 'generation':  # Laws are over its tokenizer's code.
      cost = _tokenizer(config).cost(count)
    described.append(cost | {'model': config.model.name, 'train_flops': flops})
  hours = [row['hours'] for row in rows]
  first = known[configs[0].model.dtype]
  return dict(
      device=first.name if first else device, devices=count,
      peak_flops=first and first.peak[configs[0].model.dtype],
      efficiency=efficiency, units=rows,
      total=dict(
          train_flops=sum(row['train_flops'] for row in rows),
          bytes_per_device=max(row['bytes_per_device'] for row in rows),
          hours=None if None in hours else sum(hours)),
      smallest_effects=smallest_effects(experiment, configs, described),
      effect_units={claim.name: RESPONSES[claim.y].unit
                    for claim in experiment.claims})


def check_budgets(experiment: Experiment) -> None:
  """Refuses units that do not spend the `budget` among their factors.

  Their steps were chosen for the experiment's own batch, resolution and model:
  under others, units that are compared at equal compute would not have it.

  Raises:
    InputError: a unit's training steps are not within 1% of its budget; names
      the user's override that does it.
  """
  def spent(unit, overrides):
    config = dataclasses.replace(experiment, overrides=overrides).resolve(unit)
    return _train_flops(config, tasks.build(config).cost(1))

  for unit in experiment.units:
    budget = unit.factors.get('budget')
    if budget is None:
      continue
    flops = spent(unit, experiment.overrides)
    if abs(flops / budget - 1) <= iso.TOLERANCE:
      continue
    own = config_lib.flatten(
        dataclasses.replace(experiment, overrides={}).resolve(unit))
    reason = (f'{unit.name} would train for {flops:.3g} FLOP, not for its '
              f'budget of {budget:.3g}, which its {own["total_steps"]} steps ')
    for key, value in experiment.overrides.items():
      if spent(unit, {key: value}) != spent(unit, {}):
        raise errors.InputError(
            f'config.{key}', value, f'{reason}spend at {own[key]!r}; another '
            'value is a preset of its own', repr(own[key]))
    raise errors.InputError('EXPERIMENT', experiment.spec,
                            f'{reason}were to spend')


def smallest_effects(experiment: Experiment, configs, described) -> dict:
  """{claim: smallest effect that its units can detect, or None}.

  In the claim's own unit, with the seed sd and the power it assumes. `None`:
  the design does not carry the claim's regression, or it has no such number, or
  it is over what only a run measures (the bits of a code of floats).
  """
  units = [runs.Run(unit.name, None, unit.overrides,
                    {'role': 'law', 'configuration': unit.name} | unit.factors,
                    state='running', config=config_lib.flatten(config),
                    model=model)
           for unit, config, model in zip(experiment.units, configs, described,
                                          strict=True)]
  rows = table.rows(runs.Sweep(None, {}, (), tuple(units), {}, (), None))
  effects = {}
  for claim in experiment.claims:
    mine = [
        row for row in rows
        if (row['role'] == 'law' or row.get('arm') in claim.arms)
        and all(row.get(key) == value for key, value in claim.where.items())]
    known = all(row.get(column) is not None
                for row in mine for column in claim.terms)
    effects[claim.name] = (estimates.smallest_effect(claim, mine)
                           if mine and known else None)
  return effects


def write(experiment: Experiment, workdir,
          say: Callable[[str], None] = print,
          value: dict | None = None) -> dict:
  """`<workdir>/price.json`: written by the first call, read by every other.

  Args:
    experiment: what will run.
    workdir: of the sweep.
    say: told where the price is and how much.
    value: what `price` returned, for the first call, if it has been asked.
  """
  path = epath.Path(workdir) / 'price.json'
  if path.exists():
    return json.loads(path.read_text())
  value = value or price(experiment)
  # Many jobs of one sweep may start at once: the first one's price counts.
  files.write_text(path, json.dumps(value, indent=1) + '\n', replace=False)
  value = json.loads(path.read_text())
  hours = value['total']['hours']
  cost = '' if hours is None else (
      f', {text.duration(3600 * hours)} of training on {value["devices"]} x '
      f'{value["device"]} at {value["efficiency"]:.0%} of its peak')
  say(f'price: {len(value["units"])} units, '
      f'{text.amount(value["total"]["train_flops"], "FLOP")}{cost}; {path}')
  return value


def shares(value: dict) -> dict[str, float]:
  """{unit: what it costs beside the others}: hours, which count the networks
  of its loss, or FLOPs of training where the device is not known."""
  hours = value['total']['hours'] is not None
  return {row['unit']: row['hours' if hours else 'train_flops']
          for row in value['units']}


def show(value: dict) -> str:
  """A price as text: a row per unit, the total, the smallest effects."""
  def cells(name, row):
    hours = row['hours']
    return (name, row.get('role', ''), row.get('model', ''),
            text.amount(row['parameters']) if 'parameters' in row else '',
            text.amount(row['train_flops'], 'FLOP'),
            text.amount(row['bytes_per_device'], 'B'),
            '' if hours is None else f'{hours:.3g}')
  rows = [cells(row['unit'], row) for row in value['units']]
  rows.append(cells('total', value['total']))
  peak = value['peak_flops']
  lines = [
      text.table(('unit', 'role', 'model', 'parameters', 'training',
                  'per device', 'hours'), rows), '',
      f'hours on {value["devices"]} x {value["device"]}' + (
          ', whose peak is not known' if peak is None else
          f' ({text.amount(peak, "FLOP/s")} peak) at '
          f'{value["efficiency"]:.0%} of it'), '',
      'smallest effect that the design can detect, per doubling:']
  lines += [f'  {name}: ' + (
      '-' if effect is None or math.isnan(effect)
      else f'{effect:.3g} {value["effect_units"][name]}')
            for name, effect in value['smallest_effects'].items()]
  return '\n'.join(lines)


def _train_flops(config, cost):
  """FLOPs of all training steps, without the networks of losses."""
  return cost['flops']['train_step'] * config.batch_size * config.total_steps


def _tokenizer(config):
  """The task that trains what the generator of this config reads."""
  config = config.copy_and_resolve_references().unlock()
  config.task, config.evaluation.numbers = 'reconstruction', ()
  return tasks.build(config)


def _device(name, dtype):
  """The device, or None for a local accelerator that no table knows."""
  try:
    return devices_lib.named(name, dtype=dtype)
  except errors.InputError:
    if name != 'local':
      raise
    return None


def _local_count():
  import jax  # Late: pricing for a named device starts no backend.
  return jax.device_count()
