"""Feature networks equal PyTorch ones on random weights, layer by layer.

To 1e-5 of the largest number of each layer. The weights pass through the
converters of published files. The twins of large networks compute in float32.
"""

import functools
import re

import jax
import numpy as np
import pytest
from flax import traverse_util

from vitok.interop import pickles
from vitok.losses import lpips
from vitok.models.features import alexnet, i3d, inception, layers, resnet, vgg

torch = pytest.importorskip('torch', reason='parity tests need torch')

from tests.parity import torch_features  # noqa: E402


def close(a, b, what):
  a, b = np.asarray(a), np.asarray(b)
  np.testing.assert_allclose(a / np.abs(b).max(), b / np.abs(b).max(), rtol=0,
                             atol=1e-5, err_msg=what)


def images(*shape):
  return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def first(x):
  """Channels to the front, for PyTorch."""
  return torch.tensor(np.moveaxis(np.array(x), -1, 1))


def last(x):
  return np.moveaxis(x.detach().numpy(), 1, -1)


def state_of(module):
  return {name: p.numpy() for name, p in module.state_dict().items()}


@functools.partial(jax.jit, static_argnums=(0, 3))
def capture(network, params, x, paths):
  """Its output, and the outputs of the modules at these paths."""
  out, captured = network.apply(
      {'params': params}, x,
      capture_intermediates=lambda module, _: module.path in paths)
  return out, captured['intermediates']


def check_layers(captured, twin, x, names):
  """Compares outputs of modules; `names`: ours (a path) to PyTorch's."""
  found, hooks = {}, []
  for name in names.values():
    module = twin.get_submodule(name)
    hooks.append(module.register_forward_hook(
        lambda _, __, y, name=name: found.update({name: last(y)})))
  with torch.no_grad():
    out = twin(x)
  for hook in hooks:
    hook.remove()
  captured = traverse_util.flatten_dict(captured)
  for path, name in names.items():
    close(captured[*path, '__call__'][0], found[name], name)
  return out


@pytest.mark.parametrize('network, package, twin', [
    (vgg.VGG16, vgg, torch_features.vgg16),
    (alexnet.AlexNet, alexnet, torch_features.alexnet)])
def test_lpips_and_its_features_equal_pytorch(network, package, twin):
  twin, taps = twin()
  torch_features.randomize(twin)
  params = package.from_torchvision(state_of(twin))
  x, y = (images(2, 2, 40, 48, 3) / 127.5 - 1).astype(np.float32)
  layers.check_params(network(), params, x)
  mean, deviation = (torch.tensor(np.float32(v)).view(3, 1, 1) for v in (
      (-.030, -.088, -.188), (.458, .448, .450)))
  twin.double()
  expected = [twin((first(z).double() - mean) / deviation, taps)
              for z in (x, y)]
  rng = np.random.default_rng(1)
  heads = {f'lin{k}.model.1.weight': rng.uniform(
      size=(1, width, 1, 1)).astype('f4')
           for k, width in enumerate(package.CHANNELS)}
  total = 0
  for a, b, head in zip(*expected, heads.values(), strict=True):
    a, b = (z / (z.square().sum(1, keepdim=True).sqrt() + 1e-10)
            for z in (a, b))
    total += torch.nn.functional.conv2d(
        (a - b)**2, torch.tensor(head).double()).mean((1, 2, 3))
  measure = lpips.LPIPS(network.__name__.lower())
  features, found = jax.jit(lambda params, x, y: (
      network().apply({'params': params['net']}, x),
      measure(params, x[:, None], y[:, None])))(
          {'net': params, 'heads': lpips.heads_from_torch(heads)}, x, y)
  for k in range(5):
    close(features[k], last(expected[0][k]), f'feature {k}')
  close(found, total.detach(), 'distance')


def test_inception_equals_pytorch_with_its_quirks():
  twin = torch_features.randomize(torch_features.Inception())
  params = inception.from_pytorch_fid(state_of(twin))
  network, x = inception.Inception(head=True), images(1, 60, 80, 3)
  layers.check_params(network, params, x)
  names = {path: '.'.join(path) for path in inception.NAMES}
  names |= {path[:1]: path[0] for path in inception.NAMES}
  out, captured = capture(network, params, x, tuple(names))
  resized = torch.nn.functional.interpolate(
      first(x).float(), (299, 299), mode='bilinear', align_corners=False)
  features, logits = check_layers(captured, twin, (resized - 128) / 128, names)
  close(out['features'], features, 'features')
  close(out['logits'], logits, 'logits')


def test_torchvisions_inception_equals_pytorch():
  twin = torch_features.torchvision_inception()
  params = inception.from_torchvision(state_of(twin))
  network = inception.Inception(head=True, torchvision=True)
  x = images(1, 60, 80, 3)
  layers.check_params(network, params, x)
  out = jax.jit(lambda params, x: network.apply({'params': params}, x))(
      params, x)
  resized = torch.nn.functional.interpolate(
      first(x).float() / 255, (299, 299), mode='bilinear', align_corners=True)
  mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (
      (.485, .456, .406), (.229, .224, .225)))
  normal = (resized - mean) / deviation
  with torch.no_grad():  # `transform_input` of torchvision, then the network.
    features, logits = twin(normal * (deviation / .5) + (mean - .5) / .5)
  close(out['features'], features, 'features')
  close(out['logits'], logits + twin.fc.bias.detach(), 'logits')


def test_i3d_equals_pytorch_with_tensorflows_padding():
  twin = torch_features.randomize(torch_features.I3D())
  params = i3d.from_torchscript(state_of(twin))
  x = images(1, 10, 60, 80, 3)  # 10, 5, 3, 2 steps.
  names = {path: re.sub(r'(branch_.)_', r'\1.', '.'.join(path))
           for path in i3d.NAMES}
  names |= {path[:1]: path[0] for path in i3d.NAMES}
  out, captured = capture(i3d.I3D(), params, x, tuple(names))
  resized = torch.nn.functional.interpolate(
      first(x).float(), (10, 224, 224), mode='trilinear', align_corners=False)
  logits = check_layers(captured, twin, resized / 127.5 - 1, names)
  close(out, logits, 'logits')


def test_resnet_equals_pytorch():
  twin = torch_features.randomize(torch_features.ResNet50())
  params = resnet.from_keras(twin.keras_arrays())
  levels = images(2, 64, 96, 3)
  x = (levels / 127.5 - 1).astype(np.float32)
  network = resnet.ResNet50()
  layers.check_params(network, params, x)
  names = {(name,): f'blocks.{name}' for name in twin.blocks}
  out, captured = capture(network, params, x, tuple(names))
  mean = torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
  tokens, logits = check_layers(
      captured, twin, first(levels[..., ::-1]) - mean, names)
  close(out['tokens'], last(tokens), 'tokens')
  close(out['features'], tokens.mean((2, 3)), 'features')
  close(out['logits'], logits, 'logits')


@pytest.mark.parametrize('size', [(20, 30), (400, 350), (299, 299)])
@pytest.mark.parametrize('ours, corners', [
    (layers.resize, False), (layers.resize_corners, True)])
def test_resize_equals_pytorch(size, ours, corners):
  x = images(1, *size, 3)
  # With corners aligned its float32 places are off, by up to .008 of a level.
  given = first(x).double() if corners else first(x).float()
  expected = torch.nn.functional.interpolate(
      given, (299, 299), mode='bilinear', align_corners=corners)
  np.testing.assert_allclose(jax.jit(ours, static_argnums=1)(x, 299),
                             last(expected), atol=2e-4)


@pytest.mark.filterwarnings('ignore:.torch.jit.script. is deprecated')
def test_torchscript_archives_and_state_dicts_are_read_as_pytorch_does(
    tmp_path):
  nn = torch.nn
  module = torch_features.randomize(nn.Sequential(
      nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3), nn.Sequential(nn.Linear(3, 4))))
  with torch.no_grad():  # Not contiguous.
    module[2][0].weight = nn.Parameter(module[2][0].weight.T.contiguous().T)
  torch.jit.script(module).save(str(tmp_path / 'module.pt'))
  torch.save(module.state_dict(), tmp_path / 'state.pth')
  expected = state_of(module)
  read = pickles.read_torchscript(tmp_path / 'module.pt')
  assert [name for name in read if name in expected] == list(expected)
  for found in (read, pickles.read_state_dict(tmp_path / 'state.pth')):
    for name, array in expected.items():
      np.testing.assert_array_equal(found[name], array, err_msg=name)
