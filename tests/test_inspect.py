"""`inspect` shows the batch that training would be fed."""

import json

import numpy as np
import pytest
from PIL import Image

from vitok import config as config_lib
from vitok import data, inspect

FLAGS = ['--config=configs/vitok.py:S-B/16', '--config.data.resolution=64',
         '--config.batch_size=16']


def test_the_picture_has_a_line_of_images_for_each_device(tmp_path):
  out = tmp_path / 'batch.png'
  inspect.main(['batch', *FLAGS, '--step=3', f'--out={out}'])
  picture = np.asarray(Image.open(out))
  assert picture.shape == (8 * (64 + 14), 2 * 64, 3)
  config = config_lib.load('configs/vitok.py:S-B/16')
  config.data.resolution, config.batch_size = 64, 16
  batch = data.host_batch(config, 3)['image'][:, 0]
  for row in range(16):
    top, left = row // 2 * 78 + 14, row % 2 * 64
    np.testing.assert_array_equal(
        picture[top:top + 64, left:left + 64],
        np.rint((batch[row] + 1) * 127.5))


def test_rates_are_printed_as_json(monkeypatch, capsys):
  monkeypatch.setattr(inspect.rate, '__defaults__', (.2,))
  inspect.main(['rate', *FLAGS])
  rates = json.loads(capsys.readouterr().out)['examples_per_second']
  assert rates['one_core'] > 0 and rates['delivered'] > 0


@pytest.mark.parametrize('flags', [
    ['--config.data.sources=folder:/nowhere'], ['--step=-1'],
    ['--config.data.filter=linear']])
def test_bad_input_is_one_line_and_exit_code_2(flags, capsys):
  with pytest.raises(SystemExit) as left:
    inspect.main(['batch', *FLAGS, *flags])
  assert left.value.code == 2
  assert capsys.readouterr().err.count('\n') == 1
