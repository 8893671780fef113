"""Numbers of features, measured by two processes and by one."""

import json

import numpy as np
import pytest

from tests import runs, tiny_run
from tests.multiprocess import launch
from vitok import config as config_lib
from vitok import evaluate

CHANGES = {
    'tokenizer': {'evaluation.numbers': ('rkid', 'lpips_alex')},
    'dit': {'evaluation.numbers': ('gkid',)},
}

PROGRAM = '''
import json
import pytest
from tests import stand_ins
from vitok import evaluate
place, changes = sys.argv[2], json.loads(sys.argv[3])
with pytest.MonkeyPatch.context() as patch:
  stand_ins.install(patch, place + '/weights')
  print(json.dumps([evaluate.evaluate(f'{place}/{name}', None, changes[name])
                    ['metrics'] for name in changes]))
'''


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder with a finished 'tokenizer' and a 'dit' on its codes."""
  with tiny_run.tokenized(tmp_path_factory.mktemp('measured'),
                          data__resolution=32) as folder:
    tiny_run.train(config_lib.override(runs.tiny(
        tokenizer__workdir=str(folder / 'tokenizer')), tiny_run.DIT | {
            'data.resolution': 32, 'total_steps': 1}), folder / 'dit')
    yield folder


def test_two_processes_measure_what_one_does(place):
  changes = {name: {key: list(value) for key, value in one.items()}
             for name, one in CHANGES.items()}
  first, second = (json.loads(one.stdout.splitlines()[-1]) for one in
                   launch.run(PROGRAM, str(place), json.dumps(changes)))
  for name, found, other in zip(CHANGES, first, second, strict=True):
    alone = evaluate.evaluate(place / name, None, CHANGES[name] | {
        'evaluation.reference': str(place / 'alone')})['metrics']
    measured = {key: value for key, value in alone.items()
                if not isinstance(value, str)}
    assert any('kid' in key for key in measured)
    for key, value in measured.items():
      np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-7,
                                 err_msg=key)
      if key in other:
        np.testing.assert_allclose(other[key], value, rtol=1e-5, atol=1e-7)
