"""Designs of the experiments on video."""

import pathlib

import pytest

from vitok import sizes, sweeps, validation
from vitok.sweeps import price as price_lib
from vitok.training import program

FOLDER = pathlib.Path(__file__).parents[2] / 'experiments'
PRESETS = ('cpu', 'gpu1', 'gpu', 'paper')
HERE = {'data.sources': 'films', 'data.stride': 1, 'evaluation.split': 'test'}


def load(preset, here=False, name='video_scaling'):
  experiment = sweeps.load(f'{FOLDER}/{name}.py:{preset}',
                           HERE if here else None)
  return experiment, [(unit, experiment.resolve(unit))
                      for unit in experiment.units]


def size(config):
  return sizes.from_config(config.model)


def floats(config):
  return size(config).code_floats(config.data.frames, config.data.resolution)


@pytest.mark.parametrize('name', ['video_scaling', 'video_length'])
@pytest.mark.parametrize('preset', ['cpu', 'gpu1'])
def test_every_unit_can_run(preset, name):
  for _, config in load(preset, here=True, name=name)[1]:
    validation.check(config)


@pytest.mark.parametrize('preset', PRESETS)
def test_images_are_the_same_clips_and_codes_frame_by_frame(preset):
  _, units = load(preset)
  arm = [(unit, config) for unit, config in units
         if unit.factors.get('arm') == 'apart']
  law = [config for unit, config in units if unit.factors['role'] == 'law']
  assert len(arm) >= 3
  for unit, config in arm:
    assert config.model.window == 1 and size(config).tubelet == 1
    assert unit.factors['together'] == 1
    assert config.data.to_dict() == law[0].data.to_dict()
    assert config.total_steps == law[0].total_steps
  # Both series reach the same codes, so that none is extrapolated to another.
  ends = [(min(map(floats, side)), max(map(floats, side)))
          for side in (law, [config for _, config in arm])]
  assert max(low for low, _ in ends) < min(high for _, high in ends)


@pytest.mark.parametrize('preset', PRESETS[:3])
def test_equal_codes_are_reached_by_several_tubelets_and_patches(preset):
  ways = {}
  for unit, config in load(preset)[1]:
    if unit.factors['role'] == 'law':
      ways.setdefault(floats(config), set()).add(
          (size(config).tubelet, size(config).patch))
      wide = min(size(config).encoder.width, size(config).decoder.width)
      assert wide >= size(config).patch_dim
  assert len(ways) >= 4
  assert max(len(shapes) for shapes in ways.values()) >= 3


def test_paper_has_the_papers_ten_points():
  law = {unit.factors['configuration']: floats(config)
         for unit, config in load('paper')[1] if unit.factors['role'] == 'law'}
  assert law == {
      'p32q8c16': 2048, 'p32q4c16': 4096, 'p32q2c16': 8192,
      'p32q1c16': 16384, 'p16q8c16': 8192, 'p16q4c16': 16384,
      'p16q2c16': 32768, 'p8q8c16': 32768, 'p8q4c16': 65536,
      'p8q2c16': 131072}


@pytest.mark.parametrize('preset', PRESETS)
def test_checks_have_their_units(preset):
  _, units = load(preset)
  labels = [unit.factors['configuration'] for unit, _ in units
            if unit.factors['role'] == 'law']
  assert len(labels) - len(set(labels)) >= 3
  longer = {unit.factors['configuration'] for unit, _ in units
            if unit.factors['role'] == 'longer'}
  assert len(longer) >= 4 and sum('apart' in label for label in longer) == 1
  assert len({unit.factors['configuration'] for unit, _ in units
              if unit.factors['role'] == 'rate'}) == 2


def test_cpu_fits_twenty_minutes_on_two_cores():
  experiment, units = load('cpu')
  value = price_lib.price(experiment, device='h100')
  # 12.5 s per TFLOP, compiling included, is what two quiet cores took for the
  # image law.
  assert value['total']['train_flops'] < 80e12
  assert len({program.signature(config) for _, config in units}) <= 17


@pytest.mark.parametrize('preset', PRESETS)
def test_lengths_differ_in_nothing_but_what_attends_to_what(preset):
  units = [(unit, config) for unit, config in load(
      preset, name='video_length')[1] if unit.factors['role'] == 'law']
  lengths = {unit.factors['together'] for unit, _ in units}
  assert len(lengths) >= 3 and len(units) == 3 * len(lengths)
  assert max(lengths) == units[0][1].data.frames
  if preset == 'paper':
    assert lengths == {16, 32, 64}
  assert len({(floats(config), config.data.to_json()) for _, config in units}
             ) == 1
  for unit, config in units:
    assert unit.factors['together'] == (
        config.model.window * size(config).tubelet)


def test_lengths_at_cpu_fit_twenty_minutes_on_two_cores():
  value = price_lib.price(load('cpu', name='video_length')[0], device='h100')
  assert value['total']['train_flops'] < 80e12


@pytest.mark.parametrize('name', ['video_scaling', 'video_length'])
# (The paper's losses see every frame with VGG16: two nodes.)
@pytest.mark.parametrize('preset, count, limit', [
    ('gpu1', 1, 24), ('gpu', 8, 48), ('paper', 16, 24 * 14)])
def test_price_and_memory_fit_the_machine(preset, count, limit, name):
  value = price_lib.price(load(preset, name=name)[0], device='h100',
                          count=count)
  assert value['total']['hours'] < limit
  assert value['total']['bytes_per_device'] < 80e9
