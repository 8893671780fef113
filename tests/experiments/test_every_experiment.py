"""Whatever lies in experiments/ can be listed and priced, at every preset."""

import pytest

from tests import designs
from vitok import config as config_lib
from vitok import sweep
from vitok.sweeps import price as price_lib

EVERY = [(path.stem, preset) for path in sorted(designs.FOLDER.glob('*.py'))
         for preset in config_lib.load_module(path, 'EXPERIMENT').PRESETS]


def test_every_experiment_has_a_preset_for_newcomers_and_one_for_a_gpu():
  names = {name for name, _ in EVERY}
  assert len(names) >= 4
  for name in names:
    assert {(name, 'cpu'), (name, 'gpu1')} <= set(EVERY)


@pytest.mark.parametrize('name, preset', EVERY)
def test_list_and_price_say_what_it_is_and_costs(name, preset, capsys):
  assert sweep.main(['list', f'{designs.FOLDER / name}.py:{preset}']) == 0
  listed = capsys.readouterr().out.splitlines()[1:]
  assert [line.split()[0] for line in listed] == [
      str(index) for index in range(len(listed))]
  shown = price_lib.show(designs.price(name, preset)).splitlines()
  assert [line.split()[1] for line in listed] == [
      line.split()[0] for line in shown[1:len(listed) + 1]]
  assert shown[len(listed) + 1].startswith('total')
  assert 'smallest effect' in '\n'.join(shown)
