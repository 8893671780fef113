"""Every claim beyond two cores can be decided: on ideal data, it is.

A design may lack what a rule asks of it (a fourth size that is trained longer),
and then no run of it ever decides the claim. So all units of a preset are given
quality without noise, of many images, by a law that suits the experiment.
"""

import collections
import math
import pathlib

import numpy as np
import pytest

from vitok import config as config_lib
from vitok import tasks
from vitok.scaling import fits, runs, table, verdicts
from vitok.scaling.responses import RESPONSES
from vitok.sweeps import experiment as experiment_lib
from vitok.sweeps import price

FILES = sorted(pathlib.Path('experiments').glob('*.py'))
# (experiment, preset, claim) that a design refuses, and says so.
REFUSED = {
    # The paper holds the channels: tubelet and patch are all of E.
    ('video_scaling', 'paper', 'shape_adds_little'),
}


def rows_of(experiment):
  """A row for each unit, finished, and of no quality yet."""
  found, cost_of = [], {}
  for unit in experiment.units:
    if unit.factors['role'] == 'tokenizer':
      continue  # Shown with its generators.
    config = experiment.resolve(unit)
    same = str(sorted((key, str(value)) for key, value in
                      config_lib.flatten(config).items() if key not in (
                          'seed', 'total_steps', 'optimizer.learning_rate',
                          'tokenizer.workdir')))
    if same not in cost_of:
      cost, generator = tasks.build(config).cost(1), None
      if config.task == 'generation':
        generator = cost['parameters']['total']
        cost = price._tokenizer(config).cost(1)
      cost_of[same] = cost, generator
    cost, generator = cost_of[same]
    model = cost | {'train_flops': price._train_flops(config, cost),
                    'generator_parameters': generator}
    found.append(runs.Run(
        unit.name, None, unit.overrides,
        {'configuration': unit.name} | unit.factors, state='running',
        config=config_lib.flatten(config), model=model))
  made = table.rows(runs.Sweep(None, {}, (), tuple(found), {}, (), None))
  for row in made:
    row.update(state='done', groups=5000, images=5000, below_pca=False,
               pca_psnr=1.0, coded_bits=3.0 * row['code_floats'],
               code_bits=row['stated_bits'] or 3.0 * row['code_floats'])
  return made


def ideal(rows):
  """Gives rows a quality that has an effect, or a best, wherever one may be."""
  noise = np.random.default_rng(0)
  log = lambda row, name: math.log2(row.get(name) or 1)
  middle = collections.defaultdict(list)
  for row in rows:
    middle[row.get('budget'), row['code_floats']].append(
        log(row, 'parameters'))
  floats = [log(row, 'code_floats') for row in rows]
  centre = (min(floats) + max(floats)) / 2
  for row in rows:
    worse = row['role'] == 'rate'
    psnr = 2 * log(row, 'code_floats') - 0.3 * worse
    if row.get('budget'):  # The best size is where most were run.
      at = np.median(middle[row['budget'], row['code_floats']])
      psnr -= 0.3 * (log(row, 'parameters') - at)**2
    psnr += 0.3 * (log(row, 'together') + log(row, 'calm')
                   + log(row, 'indifference')) + 0.14 * (
                       log(row, 'decoder_parameters')
                       * (row.get('budget') is None))
    if row.get('kind'):
      psnr = 2 * log(row, 'code_bits') - 0.3 * worse
    grain = [log(other, 'code_floats') for other in rows
             if other.get('grain') == row.get('grain')]
    inside = ((min(grain) + max(grain)) / 2) if row.get('grain') else centre
    small = lambda: 1e-5 * noise.standard_normal()
    row.update(
        psnr=psnr + small(), log2_mse=-psnr, lpips_alex=0.1 + small(),
        lpips=0.2 + 0.02 * log(row, 'indifference') + 0.01 * log(row, 'calm')
        + small(),
        rkid=0.05 + 0.004 * log(row, 'calm') + small(),
        gkid_best=0.1 + 0.01 * (log(row, 'code_floats') - inside)**2
        + 0.02 * worse + small(),
        gfid=10 * 2**(0.2 * log(row, 'encoder_parameters') + small()))


@pytest.mark.parametrize('preset', ['gpu1', 'paper'])
@pytest.mark.parametrize('file', [
    file for file in FILES if file.stem != 'forecast'],  # Of one run.
    ids=lambda file: file.stem)
def test_ideal_data_decide_every_claim(file, preset):
  experiment = experiment_lib.load(f'{file}:{preset}', {})
  rows = rows_of(experiment)
  ideal(rows)
  for claim in experiment.claims:
    of_samples = RESPONSES[claim.y].of_samples
    data = [row for row in rows if of_samples == (
        row['generator_parameters'] is not None)]
    if of_samples and not data:
      continue  # Of generators, which this preset does not train.
    data = data or rows  # A generator's row has its tokenizer's numbers.
    verdict = verdicts.judge(claim, rows, lambda level, data=data, y=claim.y: (
        fits.responses(data, [{} for _ in data], y, level=level, count=100)))
    if (file.stem, preset, claim.name) in REFUSED:
      assert verdict.word == 'not testable here'
    else:
      assert verdict.word in ('holds', 'does not hold'), (
          f'{claim.name}: {verdict.word}, {verdict.reason}')
