"""Sweeps: `python -m vitok.sweep COMMAND EXPERIMENT[:PRESET] [FLAGS]`.

  list    the units
  price   parameters, FLOPs, memory, hours, the smallest effect to be seen
  run     runs the units, then writes the report
  emit    writes a script that does so elsewhere
  status  state, step, loss and time left of each unit

EXPERIMENT is the path of an experiment file, PRESET one of cpu (default),
gpu1, gpu, paper. `--config.a.b=v` sets a field for every unit, for example
`--config.data.sources=tfds:cifar10`. Run it again to go on after a stop: what
is done is skipped.
"""

import sys

from vitok import process

if __name__ == '__main__':
  process.start()

import argparse  # noqa: E402
import json  # noqa: E402

from etils import epath  # noqa: E402

from vitok import config as config_lib  # noqa: E402
from vitok import errors, files, sizes, sweeps  # noqa: E402
from vitok.sweeps import emit as emit_lib  # noqa: E402
from vitok.sweeps import status as status_lib  # noqa: E402
from vitok.sweeps import text  # noqa: E402


def main(arguments=None):
  """Runs one command; returns the exit code (2: bad input, by SystemExit)."""
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  with errors.exits_on_input_error():
    overrides, rest = config_lib.split_flags(arguments)
    flags, unknown = _parser().parse_known_args(rest)
    if unknown:  # Said by the command's own parser, which knows its flags.
      flags.parser.error(f'unrecognized arguments: {" ".join(unknown)}')
    experiment = sweeps.load(flags.experiment, overrides)
    options = [f'--config.{key}={value}' for key, value in overrides.items()]
    return flags.command(experiment, flags, options) or 0


def list_units(experiment, flags, options):
  """`list`: index, name and what distinguishes each unit."""
  del flags, options
  rows = []
  for index, unit in enumerate(experiment.units):
    config = experiment.resolve(unit)
    size = sizes.from_config(config.model)
    rows.append((
        index, unit.name, unit.factors.get('role', ''), str(size),
        size.code_floats(config.data.frames, config.data.resolution),
        config.total_steps, f'{config.optimizer.learning_rate:g}',
        config.seed, ' '.join(unit.after)))
  print(text.table(('', 'unit', 'role', 'model', 'E', 'steps', 'rate',
                    'seed', 'after'), rows))


def price(experiment, flags, options):
  """`price`: what the sweep costs; kept if a workdir is named."""
  del options
  from vitok.sweeps import price as price_lib
  value = price_lib.price(experiment, device=flags.device,
                          count=flags.devices, efficiency=flags.efficiency)
  print(price_lib.show(value))
  if flags.workdir:
    sweeps.record(experiment, flags.workdir)
    kept = price_lib.write(experiment, flags.workdir, value=value)
    if json.dumps(kept) != json.dumps(value):  # NaN equals itself as text.
      print(f'{flags.workdir}/price.json keeps the price of before: '
            f'{kept["device"]} at {kept["efficiency"]:.0%}')


def run(experiment, flags, options):
  """`run`: the units, then the null models and the report."""
  from vitok.sweeps import run as run_lib
  workdir, lost = _workdir(flags), {}
  with run_lib.exits_on_sigterm():
    if flags.jobs > 1 and flags.index is None and not flags.finish:
      lost = run_lib.run_processes(experiment, workdir, flags.jobs, [
          sys.executable, '-m', 'vitok.sweep', 'run', experiment.spec,
          f'--workdir={workdir}', *options], _say)
      outcome = run_lib.outcome_on_disk(experiment, workdir)
    elif flags.finish:
      sweeps.record(experiment, workdir)
      outcome = run_lib.outcome_on_disk(experiment, workdir)
      outcome.stopped = ''  # The rest is left as it is.
    else:
      from vitok.training import runtime, trainer
      runtime.prepare(flags.distributed)
      outcome = run_lib.run_units(experiment, workdir, indices=flags.index,
                                  train=trainer.train, say=_say)
    if outcome.stopped:
      _say(f'stopped in {outcome.stopped}; run again to go on')
    elif flags.index is None:
      _finish(experiment, workdir)
  for name, error in outcome.failed.items():
    print(f'failed: {name}: {error}', file=sys.stderr)
  for number, code in lost.items():
    print(f'process {number} ended with exit code {code}', file=sys.stderr)
  return 1 if outcome.failed or lost else 0


def emit(experiment, flags, options):
  """`emit`: a script, to a file or to stdout."""
  script = emit_lib.emit(experiment, _workdir(flags), flags.to, options,
                         attempts=flags.attempts, grace=flags.grace,
                         jobs=flags.jobs, nodes=flags.nodes,
                         parallel=flags.parallel, time=flags.time,
                         mounted=flags.mounted)
  if not flags.output:
    print(script, end='')
    return
  try:
    files.write_text(flags.output, script)
  except OSError as error:
    raise errors.InputError('--output', flags.output,
                            f'cannot be written: {error.strerror}') from error
  print(f'bash {flags.output}')


def status(experiment, flags, options):
  """`status`: a row per unit; with --check also an exit code."""
  del options
  states = status_lib.read(experiment, _workdir(flags), flags.index)
  print(text.table(
      ('unit', 'state', 'step', 'loss', 'PSNR', 'left', ''),
      [(one.unit, one.state, f'{one.step}/{one.steps}',
        '' if one.loss is None else f'{one.loss:.5f}',
        '' if one.psnr is None else f'{one.psnr:.2f}',
        '' if one.eta is None else text.duration(one.eta), one.error)
       for one in states]))
  counts = {name: sum(one.state == name for one in states)
            for name in status_lib.STATES}
  print(', '.join(f'{count} {name}' for name, count in counts.items() if count))
  if not flags.check:
    return 0
  if counts['done'] == len(states):
    return 0
  if all(one.ended for one in states):
    return 4
  return 5 if all(one.ended or one.waits for one in states) else 3


def _finish(experiment, workdir):
  """Null models and report of whatever is done."""
  if not any((epath.Path(workdir) / unit.name / 'DONE').exists()
             for unit in experiment.units):
    return
  from vitok.scaling import report
  from vitok.sweeps import nulls
  nulls.write(experiment, workdir, _say)
  _say(f'report: {report.write(workdir, claims=experiment.claims)}')


def _say(line):
  print(line, flush=True)


def _workdir(flags):
  if not flags.workdir:
    raise errors.InputError('--workdir', None, 'is missing',
                            '--workdir=runs/sweep')
  return flags.workdir


def _indices(value):
  try:
    return None if value == 'all' else tuple(map(int, value.split(',')))
  except ValueError:
    raise argparse.ArgumentTypeError(
        f'{value!r} is neither a list of indices like 0,3,7 nor all') from None


def _count(value):
  if not value.isdecimal() or not int(value):
    raise argparse.ArgumentTypeError(f'{value!r} is no positive integer')
  return int(value)


def _parser():
  parser = errors.Parser(prog='python -m vitok.sweep', description=__doc__)
  commands = parser.add_subparsers(required=True, metavar='COMMAND',
                                   parser_class=errors.Parser)

  def command(function, name, summary):
    one = commands.add_parser(name, help=summary, description=summary,
                              epilog=__doc__.rpartition('\n\n')[2])
    one.set_defaults(command=function, parser=one)
    one.add_argument('experiment', metavar='EXPERIMENT[:PRESET]')
    one.add_argument('--workdir', help='folder of the sweep; may be gs://')
    return one

  command(list_units, 'list', 'list the units')
  one = command(price, 'price', 'say what the sweep costs')
  one.add_argument('--device', default='local',
                   help="name in the peak table, or 'local' (measured)")
  one.add_argument('--devices', type=int, default=0,
                   help='how many share a batch; 0: one, or all local ones')
  one.add_argument('--efficiency', type=float, default=0.4,
                   help='share of the peak that training reaches')
  one = command(run, 'run', 'run units, then write the report')
  one.add_argument('--index', type=_indices,
                   help='only these units (0,3,7), and no report')
  one.add_argument('--jobs', type=_count, default=1, help='processes')
  one.add_argument('--finish', action='store_true',
                   help='run no unit, write the report of what is there')
  one.add_argument('--distributed', action='store_true',
                   help='several processes train one unit together')
  one = command(emit, 'emit', 'write a script that runs the sweep elsewhere')
  one.add_argument('--to', required=True, metavar='|'.join(emit_lib.TARGETS))
  one.add_argument('--output', help='file; stdout by default')
  one.add_argument('--attempts', type=_count, default=20, help='of each unit')
  one.add_argument('--grace', type=_count, default=300,
                   help='seconds between SIGTERM and the end')
  one.add_argument('--jobs', type=_count, default=1, help='processes (local)')
  one.add_argument('--nodes', type=_count, default=1, help='of a job (slurm)')
  one.add_argument('--parallel', type=_count, default=8,
                   help='jobs at a time (slurm)')
  one.add_argument('--time', default='24:00:00', help='limit (slurm)')
  one.add_argument('--mounted', action='store_true',
                   help='a workdir without :// is a mount of all pods (xpk)')
  one = command(status, 'status', 'show the state of each unit')
  one.add_argument('--index', type=_indices, help='only these units; all')
  one.add_argument('--check', action='store_true',
                   help='exit code 0: all done; 4: the rest has failed '
                   f'{status_lib.TRIES} times; 5: or is after units that are '
                   'not done; 3: otherwise')
  return parser


if __name__ == '__main__':
  process.run(main)
