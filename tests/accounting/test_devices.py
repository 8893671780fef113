"""The peak table: what JAX calls a device is found, what it does not is not."""

import pytest

from vitok import errors
from vitok.accounting import devices


@pytest.mark.parametrize('kind, name', [
    ('TPU v3', 'v3'), ('TPU v4', 'v4'), ('TPU v5 lite', 'v5e'),
    ('TPU v5', 'v5p'), ('TPU v6 lite', 'v6e'),
    ('NVIDIA A100-SXM4-80GB', 'a100-80gb'), ('NVIDIA H100 80GB HBM3', 'h100'),
    ('NVIDIA H100 PCIe', 'h100-pcie'), ('NVIDIA H200', 'h200')])
def test_devices_are_found_by_what_jax_calls_them(kind, name):
  assert devices.of_kind(kind).name == name


def test_an_unknown_device_has_no_peak():
  assert devices.of_kind('NVIDIA GeForce RTX 4090') is None


def test_every_row_has_a_source_and_dense_peaks():
  kinds = [kind for d in devices.DEVICES.values() for kind in d.kinds]
  assert len(kinds) == len(set(kinds))
  for device in devices.DEVICES.values():
    assert device.source and 0 < device.memory < 200e9
    assert 50e12 < device.peak['float32'] <= device.peak['bfloat16'] < 1e15


def test_hours_are_flops_over_speed():
  one = devices.named('v4')
  assert devices.hours(275e12 * 3600, one, 1.0) == pytest.approx(1)
  assert devices.hours(275e12 * 3600, one, 0.4, count=8) == pytest.approx(
      1 / 0.4 / 8)
  h100 = devices.named('h100')
  assert devices.hours(1e18, h100, 0.5) == pytest.approx(
      2 * devices.hours(1e18, h100, 0.5, 'bfloat16'))


def test_a_misspelt_device_is_refused():
  with pytest.raises(errors.InputError, match='h100'):
    devices.named('h10')


def test_the_local_cpu_is_measured():
  local = devices.named('local')
  assert local.name == 'local' and local.memory > 2**30
  assert 1e9 < local.peak['float32'] < 1e14
