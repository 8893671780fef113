"""What programs share."""

import jax
import numpy as np

from tests import runs, stand_ins
from vitok.interop import weights
from vitok.training import program


def test_programs_share_the_weights_of_frozen_networks(tmp_path, monkeypatch):
  stand_ins.install(monkeypatch, tmp_path)
  program._placed.cache_clear()  # Other tests have the same stand-ins.
  read, load = [], weights.load
  monkeypatch.setattr(weights, 'load', lambda name: (
      read.append(name), load(name))[1])
  one, other = (program.Program(
      runs.tiny(evaluation__numbers=('rkid',), batch_size=size),
      devices=jax.devices()[:1]) for size in (8, 16))
  assert read == ['inception_fid']
  assert one.frozen['inception_fid'] is other.frozen['inception_fid']
  weights.save('inception_fid', {'w': np.zeros((3, 4), np.float32)}, 'another')
  third = program.Program(runs.tiny(evaluation__numbers=('rkid',)),
                          devices=jax.devices()[:1])
  assert not third.frozen['inception_fid']['w'].any()
