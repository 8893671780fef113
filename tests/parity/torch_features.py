"""Published feature networks in PyTorch, written apart from the Linen ones.

Modules carry the names of the published files (torchvision's VGG and AlexNet,
pytorch-fid's Inception, the PyTorch port of I3D), so that their state dicts
are what the converters read. Images are channels-first and normalised.
"""

import torch
from torch import nn
from torch.nn import functional as F


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
  """He's weights, and biases and moments that hide no mistake."""
  generator = torch.Generator().manual_seed(seed)
  draw = lambda p: torch.randn(p.shape, generator=generator)
  for name, p in (*module.named_parameters(), *module.named_buffers()):
    leaf = name.split('.')[-1]
    with torch.no_grad():
      if p.ndim > 1:
        p.copy_(draw(p) * (2 / p[0].numel())**0.5)
      elif leaf in ('bias', 'running_mean'):
        p.copy_(0.3 * draw(p))
      elif leaf == 'running_var':
        p.copy_(1 + draw(p)**2)
  return module.eval()


class Sequence(nn.Module):
  """`features` of torchvision: convolutions, ReLUs and pools by number."""

  def __init__(self, *modules):
    super().__init__()
    self.features = nn.Sequential(*modules)

  def forward(self, x, taps):
    found = []
    for k, module in enumerate(self.features):
      x = module(x)
      if k in taps:
        found.append(x)
    return found


def vgg16():
  """The network, and which of its modules end a block."""
  modules, width = [], 3
  for block, (out, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3),
                                        (512, 3))):
    if block:
      modules.append(nn.MaxPool2d(2))
    for _ in range(depth):
      modules += [nn.Conv2d(width, out, 3, padding=1), nn.ReLU()]
      width = out
  return Sequence(*modules), (3, 8, 15, 22, 29)


def alexnet():
  """The network, and which of its modules follow a convolution."""
  return Sequence(
      nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
      nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
      nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(),
      nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(),
      nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU()), (1, 4, 7, 9, 11)


class Unit2d(nn.Module):

  def __init__(self, width, out, kernel, **options):
    super().__init__()
    self.conv = nn.Conv2d(width, out, kernel, bias=False, **options)
    self.bn = nn.BatchNorm2d(out, eps=1e-3)

  def forward(self, x):
    return F.relu(self.bn(self.conv(x)))


def _average(x):
  return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _padded_average(x):
  return F.avg_pool2d(x, 3, 1, 1)


class InceptionA(nn.Module):
  average = staticmethod(_average)

  def __init__(self, width, pool):
    super().__init__()
    self.branch1x1 = Unit2d(width, 64, 1)
    self.branch5x5_1 = Unit2d(width, 48, 1)
    self.branch5x5_2 = Unit2d(48, 64, 5, padding=2)
    self.branch3x3dbl_1 = Unit2d(width, 64, 1)
    self.branch3x3dbl_2 = Unit2d(64, 96, 3, padding=1)
    self.branch3x3dbl_3 = Unit2d(96, 96, 3, padding=1)
    self.branch_pool = Unit2d(width, pool, 1)

  def forward(self, x):
    return torch.cat([
        self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)),
        self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
        self.branch_pool(self.average(x))], 1)


class InceptionB(nn.Module):

  def __init__(self, width):
    super().__init__()
    self.branch3x3 = Unit2d(width, 384, 3, stride=2)
    self.branch3x3dbl_1 = Unit2d(width, 64, 1)
    self.branch3x3dbl_2 = Unit2d(64, 96, 3, padding=1)
    self.branch3x3dbl_3 = Unit2d(96, 96, 3, stride=2)

  def forward(self, x):
    double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
    return torch.cat([self.branch3x3(x), self.branch3x3dbl_3(double),
                      F.max_pool2d(x, 3, 2)], 1)


class InceptionC(nn.Module):
  average = staticmethod(_average)

  def __init__(self, c):
    super().__init__()
    row = dict(kernel=(1, 7), padding=(0, 3))
    column = dict(kernel=(7, 1), padding=(3, 0))
    self.branch1x1 = Unit2d(768, 192, 1)
    self.branch7x7_1 = Unit2d(768, c, 1)
    self.branch7x7_2 = Unit2d(c, c, **row)
    self.branch7x7_3 = Unit2d(c, 192, **column)
    self.branch7x7dbl_1 = Unit2d(768, c, 1)
    self.branch7x7dbl_2 = Unit2d(c, c, **column)
    self.branch7x7dbl_3 = Unit2d(c, c, **row)
    self.branch7x7dbl_4 = Unit2d(c, c, **column)
    self.branch7x7dbl_5 = Unit2d(c, 192, **row)
    self.branch_pool = Unit2d(768, 192, 1)

  def forward(self, x):
    double = self.branch7x7dbl_1(x)
    for k in range(2, 6):
      double = getattr(self, f'branch7x7dbl_{k}')(double)
    single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
    return torch.cat([self.branch1x1(x), single, double,
                      self.branch_pool(self.average(x))], 1)


class InceptionD(nn.Module):

  def __init__(self):
    super().__init__()
    self.branch3x3_1 = Unit2d(768, 192, 1)
    self.branch3x3_2 = Unit2d(192, 320, 3, stride=2)
    self.branch7x7x3_1 = Unit2d(768, 192, 1)
    self.branch7x7x3_2 = Unit2d(192, 192, (1, 7), padding=(0, 3))
    self.branch7x7x3_3 = Unit2d(192, 192, (7, 1), padding=(3, 0))
    self.branch7x7x3_4 = Unit2d(192, 192, 3, stride=2)

  def forward(self, x):
    long = self.branch7x7x3_2(self.branch7x7x3_1(x))
    return torch.cat([self.branch3x3_2(self.branch3x3_1(x)),
                      self.branch7x7x3_4(self.branch7x7x3_3(long)),
                      F.max_pool2d(x, 3, 2)], 1)


class InceptionE(nn.Module):

  def __init__(self, width, pool):
    super().__init__()
    self.pool = pool
    self.branch1x1 = Unit2d(width, 320, 1)
    self.branch3x3_1 = Unit2d(width, 384, 1)
    self.branch3x3_2a = Unit2d(384, 384, (1, 3), padding=(0, 1))
    self.branch3x3_2b = Unit2d(384, 384, (3, 1), padding=(1, 0))
    self.branch3x3dbl_1 = Unit2d(width, 448, 1)
    self.branch3x3dbl_2 = Unit2d(448, 384, 3, padding=1)
    self.branch3x3dbl_3a = Unit2d(384, 384, (1, 3), padding=(0, 1))
    self.branch3x3dbl_3b = Unit2d(384, 384, (3, 1), padding=(1, 0))
    self.branch_pool = Unit2d(width, 192, 1)

  def forward(self, x):
    single = self.branch3x3_1(x)
    double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
    return torch.cat([
        self.branch1x1(x), self.branch3x3_2a(single),
        self.branch3x3_2b(single), self.branch3x3dbl_3a(double),
        self.branch3x3dbl_3b(double), self.branch_pool(self.pool(x))], 1)


class Inception(nn.Module):
  """pytorch-fid's `fid_inception_v3`; takes 299 x 299 pixels in [-1, 1]."""

  def __init__(self):
    super().__init__()
    self.Conv2d_1a_3x3 = Unit2d(3, 32, 3, stride=2)
    self.Conv2d_2a_3x3 = Unit2d(32, 32, 3)
    self.Conv2d_2b_3x3 = Unit2d(32, 64, 3, padding=1)
    self.Conv2d_3b_1x1 = Unit2d(64, 80, 1)
    self.Conv2d_4a_3x3 = Unit2d(80, 192, 3)
    self.Mixed_5b = InceptionA(192, 32)
    self.Mixed_5c = InceptionA(256, 64)
    self.Mixed_5d = InceptionA(288, 64)
    self.Mixed_6a = InceptionB(288)
    self.Mixed_6b = InceptionC(128)
    self.Mixed_6c = InceptionC(160)
    self.Mixed_6d = InceptionC(160)
    self.Mixed_6e = InceptionC(192)
    self.Mixed_7a = InceptionD()
    self.Mixed_7b = InceptionE(1280, _average)
    self.Mixed_7c = InceptionE(2048, lambda x: F.max_pool2d(x, 3, 1, 1))
    self.fc = nn.Linear(2048, 1008)

  def forward(self, x):
    """Features, and logits without the bias."""
    for name, module in self.named_children():
      if name == 'fc':
        break
      x = module(x)
      if name in ('Conv2d_2b_3x3', 'Conv2d_4a_3x3'):
        x = F.max_pool2d(x, 3, 2)
    x = x.mean((2, 3))
    return x, x @ self.fc.weight.T


def torchvision_inception():
  """torchvision's `inception_v3`; takes 299 x 299 pixels in [-1, 1]."""
  network = Inception()
  for module in network.modules():
    if isinstance(module, InceptionA | InceptionC):
      module.average = _padded_average
  network.Mixed_7b = InceptionE(1280, _padded_average)
  network.Mixed_7c = InceptionE(2048, _padded_average)
  network.fc = nn.Linear(2048, 1000)
  randomize(network)
  with torch.no_grad():  # `randomize` leaves scales alone.
    for name, p in network.named_parameters():
      if name.endswith('bn.weight'):
        p.mul_(1 + 0.3 * torch.sin(torch.arange(len(p))))
  return network


def _same(x, kernel, strides, value=0.0):
  """Pads (N, C, T, H, W) as TensorFlow's SAME."""
  pads = []
  for n, k, s in zip(x.shape[2:], kernel, strides, strict=True):
    total = max((-(-n // s) - 1) * s + k - n, 0)
    pads = [total // 2, total - total // 2, *pads]  # Last axis first.
  return F.pad(x, pads, value=value)


def _pool3d(x, kernel, strides):
  return F.max_pool3d(_same(x, kernel, strides), kernel, strides)  # x >= 0.


class Unit3d(nn.Module):

  def __init__(self, width, out, kernel=1, stride=1):
    super().__init__()
    self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
    self.conv3d = nn.Conv3d(width, out, kernel, stride, bias=False)
    self.batch3d = nn.BatchNorm3d(out, eps=1e-3)

  def forward(self, x):
    x = self.conv3d(_same(x, self.kernel, self.stride))
    return F.relu(self.batch3d(x))


class Mixed(nn.Module):

  def __init__(self, width, a, b, c, d, e, f):
    super().__init__()
    self.branch_0 = Unit3d(width, a)
    self.branch_1 = nn.Sequential(Unit3d(width, b), Unit3d(b, c, 3))
    self.branch_2 = nn.Sequential(Unit3d(width, d), Unit3d(d, e, 3))
    self.branch_3 = nn.Sequential(nn.Identity(), Unit3d(width, f))

  def forward(self, x):
    pooled = _pool3d(x, (3, 3, 3), (1, 1, 1))
    return torch.cat([self.branch_0(x), self.branch_1(x), self.branch_2(x),
                      self.branch_3(pooled)], 1)


class I3D(nn.Module):
  """Takes (N, 3, T, 224, 224) in [-1, 1], gives 400 logits."""

  def __init__(self):
    super().__init__()
    self.conv3d_1a_7x7 = Unit3d(3, 64, 7, 2)
    self.conv3d_2b_1x1 = Unit3d(64, 64)
    self.conv3d_2c_3x3 = Unit3d(64, 192, 3)
    self.mixed_3b = Mixed(192, 64, 96, 128, 16, 32, 32)
    self.mixed_3c = Mixed(256, 128, 128, 192, 32, 96, 64)
    self.mixed_4b = Mixed(480, 192, 96, 208, 16, 48, 64)
    self.mixed_4c = Mixed(512, 160, 112, 224, 24, 64, 64)
    self.mixed_4d = Mixed(512, 128, 128, 256, 24, 64, 64)
    self.mixed_4e = Mixed(512, 112, 144, 288, 32, 64, 64)
    self.mixed_4f = Mixed(528, 256, 160, 320, 32, 128, 128)
    self.mixed_5b = Mixed(832, 256, 160, 320, 32, 128, 128)
    self.mixed_5c = Mixed(832, 384, 192, 384, 48, 128, 128)
    self.conv3d_0c_1x1 = nn.ModuleDict({'conv3d': nn.Conv3d(1024, 400, 1)})

  def forward(self, x):
    pools = {'conv3d_1a_7x7': ((1, 3, 3), (1, 2, 2)),
             'conv3d_2c_3x3': ((1, 3, 3), (1, 2, 2)),
             'mixed_3c': ((3, 3, 3), (2, 2, 2)),
             'mixed_4f': ((2, 2, 2), (2, 2, 2))}
    for name, module in self.named_children():
      if name == 'conv3d_0c_1x1':
        break
      x = module(x)
      if name in pools:
        x = _pool3d(x, *pools[name])
    x = F.avg_pool3d(x, (2, 7, 7), 1)
    return self.conv3d_0c_1x1['conv3d'](x).squeeze((3, 4)).mean(2)


class Bottleneck(nn.Module):
  """Keras' block: biases, the stride on the first convolution."""

  def __init__(self, width, inner, stride, projects):
    super().__init__()
    conv = lambda *spec, **more: nn.Sequential(
        nn.Conv2d(*spec, **more), nn.BatchNorm2d(spec[1], eps=1e-3))
    self.a = conv(width, inner, 1, stride)
    self.b = conv(inner, inner, 3, padding=1)
    self.c = conv(inner, 4 * inner, 1)
    self.shortcut = (conv(width, 4 * inner, 1, stride) if projects
                     else nn.Identity())

  def forward(self, x):
    y = self.c(F.relu(self.b(F.relu(self.a(x)))))
    return F.relu(y + self.shortcut(x))


class ResNet50(nn.Module):
  """Takes BGR levels minus their means; gives tokens and logits."""

  def __init__(self):
    super().__init__()
    self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3),
                              nn.BatchNorm2d(64, eps=1e-3))
    self.blocks = nn.ModuleDict()
    width = 64
    for stage, (inner, depth) in enumerate(
        ((64, 3), (128, 4), (256, 6), (512, 3)), 2):
      for k in range(depth):
        stride = 2 if k == 0 and stage > 2 else 1
        self.blocks[f'{stage}{chr(97 + k)}'] = Bottleneck(
            width, inner, stride, k == 0)
        width = 4 * inner
    self.fc = nn.Linear(2048, 1000)

  def forward(self, x):
    x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
    for block in self.blocks.values():
      x = block(x)
    return x, self.fc(x.mean((2, 3)))

  def keras_arrays(self):
    """The parameters by Keras' names, in Keras' layout."""
    units = {('conv1', 'bn_conv1'): self.stem}
    for name, block in self.blocks.items():
      branches = {'2a': block.a, '2b': block.b, '2c': block.c}
      if name.endswith('a'):
        branches['1'] = block.shortcut
      for branch, unit in branches.items():
        units[f'res{name}_branch{branch}', f'bn{name}_branch{branch}'] = unit
    arrays = {'fc1000/kernel': self.fc.weight.T, 'fc1000/bias': self.fc.bias}
    for (conv, norm), (a, b) in units.items():
      arrays[f'{conv}/kernel'] = a.weight.permute(2, 3, 1, 0)
      arrays[f'{conv}/bias'] = a.bias
      arrays[f'{norm}/gamma'] = b.weight
      arrays[f'{norm}/beta'] = b.bias
      arrays[f'{norm}/moving_mean'] = b.running_mean
      arrays[f'{norm}/moving_variance'] = b.running_var
    return {name: array.detach().numpy() for name, array in arrays.items()}
