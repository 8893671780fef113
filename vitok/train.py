"""Trains one run: `python -m vitok.train --config=FILE:ARG --workdir=DIR`.

  --config=configs/vitok.py:S-B/16   config file and its argument
  --workdir=runs/sb16                where everything is written
  --config.optimizer.learning_rate=3e-4   overrides a field, any number of them
  --extend                           train a finished run for more steps; the
                                     schedule is then the longer run's, so the
                                     learning rate jumps where it goes on
  --distributed                      several processes (SLURM, TPU pods, ...)

Run it again to go on after a stop. SIGTERM saves and leaves with exit code 0;
a run has ended well when its workdir holds DONE.
"""

import sys

from vitok import process

if __name__ == '__main__':
  process.start()

from vitok import config as config_lib  # noqa: E402
from vitok import errors  # noqa: E402


def main(arguments=None):
  with errors.exits_on_input_error():
    changes, rest = config_lib.split_flags(
        sys.argv[1:] if arguments is None else arguments)
    parser = errors.Parser(prog='python -m vitok.train', description=__doc__)
    parser.add_argument('--config', required=True)
    parser.add_argument('--workdir', required=True)
    parser.add_argument('--extend', action='store_true')
    parser.add_argument('--distributed', action='store_true')
    flags = parser.parse_args(rest)
    config = config_lib.override(config_lib.load(flags.config), changes)
    from vitok import validation
    from vitok.training import runtime, trainer
    if flags.distributed:  # The trainer checks too, but joining may take long.
      validation.check(config)
    runtime.prepare(flags.distributed)
    result = trainer.train(config, flags.workdir, extend=flags.extend)
    if result.get('preempted'):
      print(f'stopped at step {result["step"]}; run again to go on',
            file=sys.stderr)


if __name__ == '__main__':
  process.run(main)
