"""Two processes with four devices each train as one with eight."""

import json

import numpy as np

from tests import sharded
from tests.multiprocess import launch

PROGRAM = '''
import json
from tests import sharded
assert jax.device_count() == 8 and jax.local_device_count() == 4
print(json.dumps(sharded.losses(sharded.config(2, 2, 2))))
'''


def test_losses_equal_those_of_one_process_with_one_device():
  first, second = (json.loads(one.stdout.splitlines()[-1])
                   for one in launch.run(PROGRAM))
  assert first == second
  np.testing.assert_allclose(
      first, sharded.losses(sharded.config()), rtol=1e-5)
