"""Every command of README runs, in README's order, on smaller sizes.

What is replaced is in `SMALLER`: sizes, sources that are not on this machine,
and experiments by one of a few steps. Programs under tools/ have tests of
their own; here their flags are looked up.
"""

import importlib
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests import runs
from vitok import inspect

ROOT = pathlib.Path(__file__).parents[1]
TINY = 'tests/sweeps/tiny.py'
SMALLER = {
    'S-B/1x16x18': 'A-A/1x8x18', 'S-B/16': 'A-A/1x8x4', 'S-L/16': 'A-A/1x8x4',
    'tfds:imagenet2012': 'photographs', 'validation': 'test',
    'array_record:data/cifar10': 'photographs',
    # The photographs have no classes, and so no guidance.
    ' --config.diffusion.classes=10': '',
    ' --config.generation.guidance="(1.0,1.5,3.0)"': '',
    'gs://bucket': 'runs', ' --distributed': '',
    # The first sweep runs, small; the others, which are the same program on
    # another file, are checked and priced as they stand.
    'run experiments/bottleneck_scaling.py --':
        f'run {TINY} --config.batch_size=8 --',
    'sweep run experiments': 'sweep price experiments', ' --jobs=2': '',
    **{f'{command} experiments/encoder_scaling.py --workdir=runs/encoder':
       f'{command} {TINY} --workdir=runs/bottleneck'
       for command in ('sweep status', 'vitok.report')},
    # Networks, which may not be here, have tests of their own.
    "('lpips','rfid','rkid')": "('released_psnr',)",
    '--workdir=runs/stage2': '--workdir=runs/stage2 '
        '--config.loss.lpips_weight=0 --config.adversarial.discriminator=patch '
        '--config.adversarial.width=0.0625',
    'Ld4-Ld24/1x16x64': 'Ld4-Ld24/1x16x64 --config.loss.feature_tile=16',
    'dit.py:S:runs/sb16': 'dit.py:F:runs/sb16 --config.diffusion.steps=2',
    'qlip.py:B/16': 'qlip.py:F/4 --config.model.name=F-F/1x4x28 '
        '--config.data.resolution=32',
    '--count=16': '--count=2 --steps=2',
}


def commands():
  """The indented shell lines of README, without prompts and installs."""
  lines = (ROOT / 'README.md').read_text().splitlines()
  shell = [line[4:] for line in lines
           if re.match(r'    (python|pip|pytest)\b', line)]
  return [part.strip() for line in shell for part in line.split('&&')]


def test_readme_names_each_command_line():
  text = ' '.join(commands())
  mains = {path.stem for path in (ROOT / 'vitok').glob('*.py')
           if 'def main(' in path.read_text()}
  assert mains == set(re.findall(r'-m vitok\.(\w+)', text))


def test_the_commands_of_readme_run_in_its_order(
    tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(inspect.rate, '__defaults__', (0.2,))  # Seconds.
  for name in ('configs', 'experiments', 'tests'):
    (tmp_path / name).symlink_to(ROOT / name)
  pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
  Image.fromarray(pixels).save('photo.jpg')
  ran = 0
  for command in commands():
    if not command.startswith('python -m'):
      continue
    for old, new in SMALLER.items():
      command = command.replace(old, new)
    _, _, module, *arguments = shlex.split(command)
    if any(flag.startswith('--config=') for flag in arguments):
      given = {flag.partition('=')[0] for flag in arguments}
      arguments += [flag for flag in runs.flags({'total_steps': 2})
                    if flag.partition('=')[0] not in given]
    try:
      code = importlib.import_module(module).main(arguments)
    except SystemExit as stop:
      code = stop.code
    assert not code, f'{command}: {code}\n{capsys.readouterr().err}'
    ran += 1
  assert ran >= 12
  for path in ('runs/bottleneck/report/index.html', 'runs/sb16/DONE',
               'codes.npz', 'batch.png', 'decoder.sh',
               'runs/cifar10/price.json'):
    assert (tmp_path / path).exists(), path


@pytest.mark.parametrize('command', [
    command for command in commands() if 'tools/' in command])
def test_flags_of_the_tools_exist(command):
  _, tool, *arguments = shlex.split(command)
  shown = subprocess.run([sys.executable, tool, '--help'], cwd=ROOT,
                         capture_output=True, text=True, check=True).stdout
  for flag in arguments:
    if flag.startswith('--'):
      assert flag.partition('=')[0] in shown
    else:
      assert flag in shown
