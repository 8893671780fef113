"""Command line of sweeps: `python -m vitok.sweep list|price|run|emit|status`.

  python -m vitok.sweep run experiments/bottleneck_scaling.py \\
      --workdir=runs/bottleneck

EXPERIMENT is the path of an experiment file and, after a colon, a preset:
cpu (default), gpu1, gpu, paper. `--config.a.b=v` changes a field of every
unit, as `--config.data.sources=tfds:cifar10`.
"""

import argparse
import sys

from vitok import config as config_lib
from vitok import errors, sizes, sweeps
from vitok.sweeps import text


def main(arguments=None):
  """Runs one command; exit code 2 for bad input, 1 if a unit failed."""
  overrides, rest = config_lib.split_flags(
      sys.argv[1:] if arguments is None else arguments)
  args = _parser().parse_args(rest)
  experiment = sweeps.load(args.experiment, overrides)
  sys.exit(args.command(experiment, args))


def list_units(experiment, args):
  """`list`: index, name and what distinguishes each unit."""
  del args
  rows = []
  for index, unit in enumerate(experiment.units):
    config = experiment.resolve(unit)
    size = sizes.from_config(config.model)
    rows.append((
        index, unit.name, unit.factors.get('role', ''), str(size),
        size.code_floats(config.data.frames, config.data.resolution),
        config.total_steps, f'{config.optimizer.learning_rate:g}',
        config.seed))
  print(text.table(('', 'unit', 'role', 'model', 'E', 'steps', 'rate',
                    'seed'), rows))


def _parser():
  parser = argparse.ArgumentParser(
      prog='python -m vitok.sweep', description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  commands = parser.add_subparsers(required=True, metavar='COMMAND')
  for name, command, summary in (
      ('list', list_units, 'list the units'),):
    one = commands.add_parser(name, help=summary, description=summary)
    one.set_defaults(command=command)
    one.add_argument('experiment', metavar='EXPERIMENT[:PRESET]')
    one.add_argument('--workdir', help='folder of the sweep')
  return parser


if __name__ == '__main__':
  with errors.exits_on_input_error():
    main()
