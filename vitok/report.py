"""Judges a sweep: `python -m vitok.report EXPERIMENT[:PRESET] --workdir=DIR`.

Writes DIR/report/: index.html (one file, figures inside), PNGs, results.csv
(a row per unit), report.json (verdicts and laws). A sweep that is not finished
is reported too, with what is missing. Verdicts follow the claims recorded when
the sweep was launched; if the experiment file has others by now, the report
says so.
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
  from vitok.scaling import claims, runs
  from vitok.scaling import report as report_lib
  path, _, preset = experiment.partition(':')
  info = runs.load_runs(workdir).info
  loaded = sweeps.load(f'{path}:{preset or info["preset"]}')
  for field, asked in (('experiment', loaded.name), ('preset', loaded.preset)):
    if info[field] != asked:
      raise errors.InputError(
          '--workdir', workdir, f'holds a sweep of {field} {info[field]!r}, '
          f'not {asked!r}')
  hashes = [claims.fingerprint(claims.parse(given))
            for given in (loaded.claims, info['claims'])]
  note = '' if hashes[0] == hashes[1] else (
      f'The claims in {path} are no longer those that this sweep was launched '
      f'with ({hashes[1][:12]}), which judge it here.')
  return str(report_lib.write(workdir, note=note))


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
