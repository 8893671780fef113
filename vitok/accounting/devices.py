"""Peak speed and memory of accelerators, and the hours that work takes there.

Peaks are dense (no structured sparsity), per JAX device, in FLOP/s of the
matrix units. `float32` is the speed that JAX's default matrix precision
reaches: one bfloat16 pass on TPUs, TF32 on Nvidia's GPUs. A device that is
not in the table has no known peak, and utilisation is then not reported
rather than guessed; the local CPU's peak is measured.
"""

import dataclasses
import os
import time

from vitok import errors

_GOOGLE = 'cloud.google.com/tpu/docs/{}, key chip specifications'


@dataclasses.dataclass(frozen=True)
class Device:
  """One JAX device.

  Attributes:
    name: key in `DEVICES`, or 'local'.
    peak: FLOP/s by dtype name.
    memory: bytes of HBM, or of RAM for a CPU.
    kinds: what `jax.Device.device_kind` says for it.
    source: where the numbers are from.
  """
  name: str
  peak: dict[str, float]
  memory: float
  kinds: tuple[str, ...]
  source: str


def _tpu(name, tflops, gib, kinds, page):
  peak = {'bfloat16': tflops * 1e12, 'float32': tflops * 1e12}
  return Device(name, peak, gib * 2**30, kinds, _GOOGLE.format(page))


def _gpu(name, bf16, tf32, gb, kinds, source):
  peak = {'bfloat16': bf16 * 1e12, 'float32': tf32 * 1e12}
  return Device(name, peak, gb * 1e9, kinds, f'Nvidia, {source}')


DEVICES = {device.name: device for device in (
    # A v3 chip (123 TFLOP/s, 32 GiB) is two JAX devices, one for each core;
    # from v4 on a chip is one device.
    _tpu('v3', 61.5, 16, ('TPU v3',), 'v3'),
    _tpu('v4', 275, 32, ('TPU v4',), 'v4'),
    _tpu('v5e', 197, 16, ('TPU v5 lite', 'TPU v5e'), 'v5e'),
    _tpu('v5p', 459, 95, ('TPU v5', 'TPU v5p'), 'v5p'),
    _tpu('v6e', 918, 32, ('TPU v6 lite', 'TPU v6e'), 'v6e'),
    _gpu('a100-40gb', 312, 156, 40,
         ('NVIDIA A100-SXM4-40GB', 'NVIDIA A100-PCIE-40GB'),
         'A100 datasheet, 2021'),
    _gpu('a100-80gb', 312, 156, 80,
         ('NVIDIA A100-SXM4-80GB', 'NVIDIA A100 80GB PCIe'),
         'A100 datasheet, 2021'),
    _gpu('h100', 989.4, 494.7, 80, ('NVIDIA H100 80GB HBM3',),
         'H100 architecture white paper, table 3 (SXM5)'),
    _gpu('h100-pcie', 756, 378, 80, ('NVIDIA H100 PCIe',),
         'H100 architecture white paper, table 3 (PCIe)'),
    _gpu('h200', 989.4, 494.7, 141, ('NVIDIA H200',),
         'H200 datasheet, 2024 (SXM)'),
)}


def named(name: str, key: str = '--device', dtype: str = 'float32') -> Device:
  """The device of that name; 'local' is looked up or measured.

  Raises:
    InputError: no device has the name.
  """
  if name == 'local':
    return local(dtype)
  errors.one_of(key, name, (*DEVICES, 'local'))
  return DEVICES[name]


def of_kind(kind: str) -> Device | None:
  """The device that JAX calls `kind`, or None where its peak is unknown."""
  for device in DEVICES.values():
    if kind in device.kinds:
      return device
  return None


def local(dtype: str = 'float32') -> Device:
  """This machine's first device; a CPU is measured with `matmul_peak`.

  Raises:
    InputError: an accelerator that the table does not have.
  """
  import jax  # Late: everything else here is arithmetic.
  device = jax.devices()[0]
  if device.platform != 'cpu':
    known = of_kind(device.device_kind)
    if known is None:
      raise errors.InputError(
          'device_kind', device.device_kind, 'has no entry in the peak table',
          errors.nearest(device.device_kind, DEVICES))
    return known
  memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return Device('local', {dtype: matmul_peak(dtype)}, memory,
                (device.device_kind,), 'XLA matrix product, measured')


def matmul_peak(dtype: str = 'float32', size: int = 1024,
                seconds: float = 0.5) -> float:
  """FLOP/s of XLA's square matrix product here: the best of many.

  The best and not the mean: a peak is what the machine can do when nobody
  else runs.
  """
  import jax
  import jax.numpy as jnp
  a_NxN = jnp.ones((size, size), dtype)
  product = jax.jit(jnp.matmul)
  product(a_NxN, a_NxN).block_until_ready()
  best, end = float('inf'), time.perf_counter() + seconds
  while time.perf_counter() < end:
    start = time.perf_counter()
    product(a_NxN, a_NxN).block_until_ready()
    best = min(best, time.perf_counter() - start)
  return 2 * size**3 / best


def hours(flops: float, device: Device, efficiency: float,
          dtype: str = 'float32', count: int = 1) -> float:
  """Hours that `count` devices need for `flops` at a share of their peak."""
  return flops / (device.peak[dtype] * efficiency * count) / 3600
