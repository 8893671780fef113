"""Judges a sweep: `python -m vitok.report EXPERIMENT[:PRESET] --workdir=DIR`.

Writes DIR/report/: index.html (one file, figures inside), PNGs, results.csv
(a row per unit), report.json (verdicts and laws). A sweep that is not finished
is reported too, with what is missing. Verdicts follow the claims recorded when
the sweep was launched; if the experiment file has others by now, or the code
that judges has changed, the report says so.
"""

import sys

from vitok import errors


def report(experiment: str, workdir: str) -> str:
  """Writes the report of a sweep and returns the path of its page.

  Args:
    experiment: path of the experiment file, with an optional preset.
    workdir: of the sweep.

  Raises:
    InputError: no such experiment, no sweep in the workdir, or another one.
  """
  from vitok import sweeps
  from vitok.scaling import report as report_lib
  from vitok.scaling import runs
  path, _, preset = experiment.partition(':')
  info = runs.load_runs(workdir).info
  loaded = sweeps.load(f'{path}:{preset or info["preset"]}')
  for field, asked in (('experiment', loaded.name), ('preset', loaded.preset)):
    if info[field] != asked:
      raise errors.InputError(
          '--workdir', workdir, f'holds a sweep of {field} {info[field]!r}, '
          f'not {asked!r}')
  return str(report_lib.write(workdir, claims=loaded.claims))


def main(arguments: list[str] | None = None) -> None:
  """Runs the command line; bad input exits with code 2 and one line."""
  with errors.exits_on_input_error():
    parser = errors.Parser(prog='python -m vitok.report', description=__doc__)
    parser.add_argument('experiment', metavar='EXPERIMENT[:PRESET]')
    parser.add_argument('--workdir', required=True, help='of the sweep')
    flags = parser.parse_args(arguments)
    print(f'report: {report(flags.experiment, flags.workdir)}')


if __name__ == '__main__':
  main(sys.argv[1:])
