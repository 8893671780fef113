"""What programs share."""

import jax
import numpy as np

from tests import runs, stand_ins, tiny_run
from vitok import config as config_lib
from vitok import tasks
from vitok.data import codes
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


def test_programs_of_a_tokenizer_share_only_statistics_of_the_same_codes(
    tmp_path):
  with tiny_run.tokenized(tmp_path) as place:
    def of(**changes):
      return config_lib.override(runs.tiny(
          tokenizer__workdir=str(place / 'tokenizer')), tiny_run.DIT | {
              key.replace('__', '.'): value for key, value in changes.items()})
    sha256 = tasks.build(of()).weights['tokenizer'].sha256
    for name in 'ab':
      codes.write(tmp_path / name, 'train', 2, [
          (np.full((4, 4), i + ord(name), np.float32), 0) for i in range(2)],
                  {'sha256': sha256, 'tokenizer': ''})
    cached = {'tokenizer__sample': False, 'data__sources': tuple(
        f'codes:{tmp_path}/{name}' for name in 'ab')}
    for config in (
        of(diffusion__normalise=False), of(), of(tokenizer__sample=False),
        of(**cached), of(**cached, data__weights=(1., 2.))):
      served = program.Program(config, jax.devices()[:1]).frozen['tokenizer']
      expected = tasks.build(config).weights['tokenizer'].load()
      assert served.keys() == expected.keys()
      for name in expected.keys() - {'variables'}:
        np.testing.assert_array_equal(served[name], expected[name])
