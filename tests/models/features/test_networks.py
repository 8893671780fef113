"""Shapes, refusals and check values of the published networks."""

import jax
import numpy as np
import pytest
import skimage.data
from PIL import Image

from tests import real_weights
from vitok.models import features
from vitok.models.features import i3d, inception


def shapes(network, x):
  """Of its outputs; computes nothing."""
  init = lambda x: network.init_with_output(jax.random.key(0), x)[0]
  return jax.tree.map(lambda y: y.shape, jax.eval_shape(init, x))


def test_vgg_gives_the_end_of_each_block():
  assert shapes(features.VGG16(), np.zeros((2, 48, 32, 3), 'f4')) == tuple(
      (2, 48 >> k, 32 >> k, c) for k, c in enumerate((64, 128, 256, 512, 512)))


def test_alexnet_gives_each_convolution():
  assert shapes(features.AlexNet(), np.zeros((2, 64, 64, 3), 'f4')) == (
      (2, 15, 15, 64), (2, 7, 7, 192), (2, 3, 3, 384), (2, 3, 3, 256),
      (2, 3, 3, 256))


def test_the_smallest_images_give_features_and_smaller_ones_are_refused():
  for network, side in ((features.VGG16(), 16), (features.AlexNet(), 31),
                        (features.ResNet50(), 32)):
    extents = jax.tree.leaves(shapes(network, np.zeros((1, side, side, 3),
                                                       'f4')))
    assert min(extents) == 1
    with pytest.raises(ValueError, match=f'needs {side} x {side} pixels'):
      shapes(network, np.zeros((1, side - 1, side, 3), 'f4'))


def test_metric_networks_resize_any_image_and_take_levels_only():
  x = np.zeros((2, 20, 30, 3), np.uint8)
  assert shapes(features.Inception(), x) == {'features': (2, 2048)}
  assert shapes(features.Inception(head=True), x) == {
      'features': (2, 2048), 'logits': (2, 1008)}
  assert shapes(features.I3D(), np.stack([x] * 16, 1)) == (2, 400)
  for network, y in ((features.Inception(), x),
                     (features.I3D(), np.stack([x] * 16, 1))):
    with pytest.raises(ValueError, match='takes uint8 levels, got float32'):
      shapes(network, y.astype('f4'))


def test_clips_that_leave_the_head_nothing_are_refused():
  clip = lambda frames: np.zeros((1, frames, 8, 8, 3), np.uint8)
  assert shapes(features.I3D(), clip(9)) == (1, 400)
  with pytest.raises(ValueError, match='needs 9 frames, got 8'):
    shapes(features.I3D(), clip(8))


def test_resnet_gives_tokens_features_and_logits():
  assert shapes(features.ResNet50(), np.zeros((2, 64, 96, 3), 'f4')) == {
      'tokens': (2, 2, 3, 2048), 'features': (2, 2048), 'logits': (2, 1000)}


def test_files_with_other_convolutions_are_not_converted():
  unit = {'conv.weight': np.ones((4, 3, 1, 1, 1), 'f4'),
          'bn.bias': np.ones(4), 'bn.running_mean': np.ones(4),
          'bn.running_var': np.ones(4)}
  state = {f'{k}.{name}': array for k in range(len(i3d.NAMES))
           for name, array in unit.items()}
  head = {'head.weight': np.ones((400, 4, 1, 1, 1)), 'head.bias': np.ones(400)}
  with pytest.raises(ValueError, match='conv3d_0c_1x1/kernel has shape'):
    i3d.from_torchscript({**state, **head})
  del state['0.conv.weight']
  with pytest.raises(ValueError, match='argument'):
    i3d.from_torchscript({**state, **head})
  with pytest.raises(ValueError, match='argument'):
    inception.from_torchscript({'a.weight': np.ones((4, 3, 1, 1))})


def test_the_published_inception_gives_its_features():
  """Values: the TorchScript archive that PyTorch runs, on the same image."""
  params = real_weights.load('inception_fid')
  image = skimage.data.chelsea()[20:276, 100:356]
  found = jax.jit(features.Inception().apply)({'params': params}, image[None])
  found = np.asarray(found['features'][0])
  np.testing.assert_allclose(
      found[:6], [0.4339755, 0.71832633, 0.43093112, 0.11359357, 0.11853224,
                  0.06897217], rtol=0, atol=2e-5)
  np.testing.assert_allclose(found.sum(), 421.2724, rtol=1e-5)
  np.testing.assert_allclose(np.linalg.norm(found), 14.916115, rtol=1e-5)


def test_the_published_resnet_knows_a_cat_and_a_coffee():
  params = real_weights.load('resnet50')
  x = np.stack([np.asarray(Image.fromarray(photograph()).resize((224, 224)))
                for photograph in (skimage.data.chelsea, skimage.data.coffee)])
  out = jax.jit(features.ResNet50().apply)(
      {'params': params}, (x / 127.5 - 1).astype(np.float32))
  classes = out['logits'].argmax(1)
  assert classes.tolist() == [285, 967]  # Egyptian cat, espresso.
