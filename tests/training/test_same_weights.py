"""Which networks are cached must be the same on every process of a job."""

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from tests import runs, stand_ins
from vitok import errors
from vitok.interop import weights
from vitok.training import program


@pytest.fixture
def job(monkeypatch, tmp_path):
  """Function of what process 1 has: this process is the other of two."""
  stand_ins.install(monkeypatch, tmp_path)
  config = runs.tiny(evaluation__numbers=('rkid',))

  def other(digests):
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    monkeypatch.setattr(multihost_utils, 'process_allgather', lambda mine: (
        np.stack([mine, digests(mine)])))
    return program.Program(config, jax.devices()[:1])
  return other


def test_processes_with_other_networks_are_refused_by_all(job):
  with pytest.raises(errors.InputError) as error:
    job(lambda mine: mine + np.uint8(1))
  for words in (weights.CACHE_VARIABLE, 'process 1', 'inception_fid',
                'the same files'):
    assert words in str(error.value)


def test_processes_with_the_same_networks_go_on(job):
  assert set(job(lambda mine: mine).frozen) == {'inception_fid'}
