"""FID, KID, Inception score and pooled PSNR against torchmetrics, and FID by
pytorch-fid's formula, on the same features."""

import numpy as np
import pytest
import scipy.linalg

from vitok.metrics import frechet, inception_score, kernel, moments, numbers

torch = pytest.importorskip('torch', reason='needs the extra [parity]')
pytest.importorskip('torchmetrics', reason='needs the extra [parity]')
from torchmetrics.image.fid import FrechetInceptionDistance  # noqa: E402
from torchmetrics.image.inception import InceptionScore  # noqa: E402
from torchmetrics.image.kid import KernelInceptionDistance  # noqa: E402
from torchmetrics.image.psnr import PeakSignalNoiseRatio  # noqa: E402

N, M, D = 300, 260, 24
RELATIVE = 1e-10


class _AsTheyAre(torch.nn.Module):
  """The network whose features are its inputs."""
  num_features = D

  def forward(self, features):
    return features


def _pair():
  """Features like Inception's: not negative, correlated, some often zero."""
  rng = np.random.default_rng(0)
  mix = rng.normal(size=(D, D)) * np.exp(-.1 * np.arange(D))
  x = np.maximum(rng.normal(size=(N, D)) @ mix + .3, 0)
  y = np.maximum(rng.normal(size=(M, D)) @ mix * .9 + .2, 0)
  return x.astype(np.float32), y.astype(np.float32)


def _double(x):
  return torch.from_numpy(x.astype(np.float64))


def _stream(rows, size):
  """Moments of float32 rows in padded batches."""
  stream = moments.Stream()
  for start in range(0, len(rows), size):
    part = rows[start:start + size]
    stream.add(np.pad(part, ((0, size - len(part)), (0, 0)),
                      constant_values=np.nan), np.arange(size) < len(part))
  return stream.moments()


@pytest.mark.parametrize('size', [1, 7, 64])
def test_frechet_distance_equals_torchmetrics(size):
  x, y = _pair()
  metric = FrechetInceptionDistance(feature=_AsTheyAre())
  metric.set_dtype(torch.float64)
  for start in range(0, N, 50):
    metric.update(_double(x[start:start + 50]), real=False)
    metric.update(_double(y[start:start + 50]), real=True)
  np.testing.assert_allclose(
      frechet.distance(_stream(x, size), _stream(y, size)),
      metric.compute().item(), rtol=RELATIVE)


@pytest.mark.parametrize('size', [1, 7, 64])
def test_frechet_distance_equals_pytorch_fid(size):
  """Its formula: the trace of the principal root of S1 S2, as it is."""
  x, y = _pair()
  (mean_x, cov_x), (mean_y, cov_y) = (
      (a.mean(0), np.cov(a, rowvar=False)) for a in (
          x.astype(np.float64), y.astype(np.float64)))
  root = scipy.linalg.sqrtm(cov_x @ cov_y).real
  expected = ((mean_x - mean_y) @ (mean_x - mean_y) + np.trace(cov_x)
              + np.trace(cov_y) - 2 * np.trace(root))
  np.testing.assert_allclose(
      frechet.distance(_stream(x, size), _stream(y, size)), expected,
      rtol=RELATIVE)


def test_kernel_distance_equals_torchmetrics():
  """One subset of everything, so that its random order does not matter."""
  x, y = _pair()
  metric = KernelInceptionDistance(feature=_AsTheyAre(), subsets=1,
                                   subset_size=M)
  metric.update(_double(x[:M]), real=False)
  metric.update(_double(y), real=True)
  np.testing.assert_allclose(kernel.kid(x[:M], y)[0], metric.compute()[0],
                             rtol=RELATIVE)


@pytest.mark.parametrize('splits', [1, 10])
def test_inception_score_equals_torchmetrics(splits):
  x, _ = _pair()
  logits = 3 * x
  metric = InceptionScore(feature=_AsTheyAre(), splits=splits)
  metric.update(_double(logits))
  torch.manual_seed(0)
  expected = metric.compute()[0]
  torch.manual_seed(0)
  order = torch.randperm(N).numpy()  # It shuffles before it splits.
  np.testing.assert_allclose(
      inception_score.inception_score(logits[order], splits)[0], expected,
      rtol=RELATIVE)


@pytest.mark.parametrize('batch', [1, 7, 64])
def test_pooled_psnr_equals_torchmetrics_batch_by_batch(batch):
  """As the released code does it: a value per batch, then their mean."""
  rng = np.random.default_rng(0)
  x = rng.uniform(size=(20, 3, 8, 8))
  y = x + rng.normal(size=x.shape) * rng.uniform(.01, .2, (20, 1, 1, 1))
  metric = PeakSignalNoiseRatio(data_range=1.0)
  values = [metric(torch.from_numpy(y[i:i + batch]),
                   torch.from_numpy(x[i:i + batch])).item()
            for i in range(0, 20, batch)]
  mse = np.square(x - y).mean((1, 2, 3))
  np.testing.assert_allclose(numbers.pooled_psnr(mse, batch), np.mean(values),
                             rtol=1e-6)  # Theirs is in float32.
