"""A run of two processes diverges by the rows of one, and both go back."""

import json

import numpy as np

from tests import runs, tiny_run
from tests.multiprocess import job, launch
from vitok import data

# Without noise, which is another after a rewind. Reads its metrics at 2, 3, 4
# and 6, as `tests/training/test_divergence.py` does, and saves at 3.
CHANGES = {'evaluation__every': 0, 'evaluation__count': 16,
           'model__bottleneck': 'deterministic', 'divergence__action': 'rewind'}
BROKEN = 4

# It skips the interpreter's end, in which a native thread was seen to abort one
# of 40 processes that had done all this ('FATAL: exception not rethrown').
PROGRAM = '''
import json, os
from tests.multiprocess import job, test_divergence
from vitok import data
from vitok.training import trainer
taken = []
data.train_batches = job.broken(
    taken, test_divergence.BROKEN, here=jax.process_index() == 1)
config = job.config(2, 2, 2, **test_divergence.CHANGES)
done = trainer.train(config, sys.argv[2])
print(json.dumps(dict(taken=taken, rewinds=done['rewinds'])), flush=True)
jax.distributed.shutdown()
os._exit(0)
'''


def test_a_nan_in_the_rows_of_one_process_takes_both_back_as_it_does_one(
    tmp_path, monkeypatch):
  first, second = (json.loads(one.stdout.splitlines()[-1]) for one in
                   launch.run(PROGRAM, str(tmp_path / 'two'), timeout=200))
  taken = []
  monkeypatch.setattr(data, 'train_batches', job.broken(taken, BROKEN, True))
  done = tiny_run.train(job.config(1, 1, 1, **CHANGES), tmp_path / 'one')
  assert taken == [0, 1, 2, 3, 4, 5, 3, 4, 5]
  assert first == second and first['taken'] == taken
  for rewinds in (first['rewinds'], done['rewinds']):
    assert [(one['from'], one['to']) for one in rewinds] == [(6, 3)]
  two, one = (runs.leaves(tmp_path / name) for name in ('two', 'one'))
  assert two.keys() == one.keys()
  for name, leaf in one.items():
    # Gradients are summed in another order on another mesh. Adam makes steps of
    # 7e-4 also of those that are zero but for that (of keys' biases, 1e-6 was
    # seen); its own averages differ by 1e-5 of their largest.
    most = 1e-5 if name.startswith(('params', 'ema')) else (
        1e-4 * np.abs(leaf).max())
    assert np.abs(two[name] - leaf).max() <= most, name
  for line, other in zip(*(runs.lines(tmp_path / name) for name in (
      'two', 'one')), strict=True):
    assert line.keys() == other.keys()
    for name in ('step', 'train/loss', 'train/rewinds', 'eval/psnr'):
      if name in line:
        np.testing.assert_allclose(line[name], other[name], rtol=1e-5,
                                   err_msg=f'{name}, step {line["step"]}')
