"""Which weights a number's network has, and what it is fed with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitok.interop import weights
from vitok.losses import lpips
from vitok.metrics import networks
from vitok.models import features

LEVELS = np.random.default_rng(0).integers(0, 256, (2, 2, 1, 32, 32, 3),
                                           np.uint8)


def test_lpips_of_levels_is_that_of_minus_one_to_one():
  net = features.AlexNet()
  params = {'net': net.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))[
      'params'], 'heads': {str(k): jnp.ones(width) for k, width in enumerate(
          (64, 192, 384, 256, 256))}}
  x, y = LEVELS
  found = networks.DISTANCES['lpips_alexnet'].apply(
      {'lpips_alexnet': params}, x, y)
  expected = lpips.LPIPS('alexnet')(params, *(
      jnp.asarray(z / 127.5 - 1, jnp.float32) for z in (x, y)))
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize('name, files, side, width', [
    ('inception_fid', {'inception_fid': {}}, 32, 2048),
    ('inception_fid_head', {'inception_fid': {}, 'inception_fid_head': {
        'head': {'kernel': (2048, 1008)}}}, 32, 1008),
    ('i3d', {'i3d': {}}, 32, 400)])
def test_features_have_the_axis_of_frames(name, files, side, width):
  clips = name == 'i3d'
  network = features.I3D() if clips else features.Inception()
  x = jax.ShapeDtypeStruct((2, 9, side, side, 3), jnp.uint8)
  one = x if clips else jax.ShapeDtypeStruct(x.shape[1:], jnp.uint8)
  trunk = jax.eval_shape(network.init, jax.random.key(0), one)['params']
  frozen = {file: jax.tree.map(
      lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32), more,
      is_leaf=lambda leaf: isinstance(leaf, tuple)) or trunk
            for file, more in files.items()}
  assert networks.files(name) == tuple(files)
  out = jax.eval_shape(networks.FEATURES[name].apply, frozen, x)
  assert out.shape == (2, 1 if clips else 9, width)


def test_what_is_missing_is_named_with_its_command(monkeypatch, tmp_path):
  monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path))
  assert networks.missing('') == ''
  assert networks.missing('inception_fid_head') == (
      'get its network with `python tools/fetch_weights.py inception_fid`; '
      'get its network with `python tools/fetch_weights.py inception_fid_head`')
  first = weights.save('inception_fid', {'a': np.zeros(1, np.float32)}, 'x')
  assert networks.missing('inception_fid') == ''
  assert networks.missing('inception_fid_head').count('get its network') == 1
  second = weights.save('inception_fid_head',
                        {'b': np.zeros(1, np.float32)}, 'x')
  assert networks.sha256('inception_fid_head') == (
      f'{first.sha256}+{second.sha256}')
