"""A small checkout, a workdir and stubs on PATH for emitted scripts.

A stub python stands for `vitok.sweep run`: a unit's first start leaves nothing
and exits with 0, as a preempted one does; the second one writes DONE.
`status` is the real one.
"""

import os
import pathlib
import subprocess
import sys

import pytest

from vitok import sweeps
from vitok.sweeps import emit as emit_lib

TINY = str(pathlib.Path(__file__).with_name('tiny.py'))
CHAIN = str(pathlib.Path(__file__).with_name('chain.py'))
NAMES = ['p8c4-seed0', 'p8c4-seed1', 'p8c8-seed0']
ROOT = pathlib.Path(emit_lib.__file__).parents[2]

PYTHON = f'''
[[ $1 == -m && $2 == vitok.sweep ]]
if [[ $3 == status ]]; then
  echo status >>"$STATUS"
  if [[ -n ${{BROKEN:-}} && $(wc -l <"$STATUS") == 2 ]]; then exit 1; fi
  exec {sys.executable} "${{@/gs:\\/\\/b/$WORK}}"
fi
echo "python ${{*:3}}" >>"$LOG"
if [[ -n ${{REFUSES:-}} ]]; then exit 2; fi
read -ra names <<<"${{UNITS:-{' '.join(NAMES)}}}"
run=()
case " $* " in
  *--finish*) mkdir -p "$WORK/report"; exit ;;
  *--index=*) index="${{*: -1}}"; [[ $index == --index=* ]] ||
    index="${{*: -2:1}}"; run=("${{index#--index=}}") ;;
  *) run=("${{!names[@]}}") ;;
esac
for index in "${{run[@]}}"; do
  folder=$WORK/${{names[$index]}}
  mkdir -p "$folder"
  if [[ $index == "${{FAILS:-}}" ]]; then
    failures=$(grep -o '[0-9]' "$folder/FAILED" || echo 0)
    printf '{{"error": "diverged", "failures": %d}}' "$((failures + 1))" \\
      >"$folder/FAILED"
    continue
  fi
  if [[ -e $folder/started ]]; then echo '{{}}' >"$folder/DONE"; fi
  touch "$folder/started"
done
'''


def stub(folder, name, body):
  path = folder / name
  path.write_text('#!/usr/bin/env bash\nset -euo pipefail\n' + body)
  path.chmod(0o755)
  return path


@pytest.fixture
def world(tmp_path, monkeypatch):
  """A small checkout, stubs, a workdir, a log and the environment to run in."""
  checkout = tmp_path / 'checkout'
  for name in ('.git/HEAD', '.venv/x', 'data/x', 'runs/x', 'lib/data/x.py'):
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    (checkout / name).write_text('')
  for name in (TINY, CHAIN):
    (checkout / pathlib.Path(name).name).write_text(
        pathlib.Path(name).read_text())
  (checkout / 'configs').symlink_to(ROOT / 'configs')
  monkeypatch.chdir(checkout)
  bin_, work, log = tmp_path / 'bin', tmp_path / 'work', tmp_path / 'log'
  bin_.mkdir()
  log.touch()
  stub(bin_, 'python3', PYTHON)
  environment = os.environ | {
      'PATH': f'{bin_}:{os.environ["PATH"]}', 'PYTHON': str(bin_ / 'python3'),
      'PYTHONPATH': str(ROOT), 'WORK': str(work), 'LOG': str(log),
      'BIN': str(bin_), 'PAUSE': '0', 'STATUS': str(tmp_path / 'status')}

  class World:
    pass
  World.bin, World.work, World.log = bin_, work, log
  World.environment = environment

  def script(to, file='tiny.py', **options):
    path = tmp_path / f'{to}.sh'
    workdir = 'gs://b' if to in ('tpu', 'xpk') else str(work)
    path.write_text(emit_lib.emit(sweeps.load(file), workdir, to,
                                  **options))
    return path

  def run(path, *arguments, expect=0, **more):
    done = subprocess.run(
        ['bash', str(path), *arguments], env=environment | more,
        capture_output=True, text=True, timeout=120)
    assert done.returncode == expect, done.stdout + done.stderr
    return log.read_text().splitlines()
  World.script, World.run = staticmethod(script), staticmethod(run)
  return World
