"""Analytic FLOPs against XLA's count of the unrolled program.

XLA counts one pass through a loop's body and every repeated product, so the
programs are unrolled and nothing is rematerialised, unless a test says so.
They are counted as they are lowered; `compiled`, as they are run.
"""

import functools

import pytest

from tests.accounting import programs
from vitok.accounting import flops

QLIP = {'positions': 'rope2d_learned', 'key_bias': False, 'sub_norm': True,
        'cls': True, 'projection': 'mlp', 'head': 'tanh'}


@functools.cache
def xla(name, resolution, make=programs.lowered, **options):
  program, spec = make(name, resolution, **options)
  return program.cost_analysis()['flops'], spec


def products(spec, train):
  return (flops.train_step if train else flops.forward)(spec)['total']


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('name, resolution', [
    ('Sw512d1h8-Sw512d2h8/16', 256), ('Sd1-Ld1/16', 128)])
def test_products_alone_are_within_1_percent_from_width_512(
    name, resolution, train):
  counted, spec = xla(name, resolution, train=train)
  assert products(spec, train) == pytest.approx(counted, rel=0.01)


def with_elementwise(spec, train):
  return products(spec, train) + flops.elementwise(spec, train)


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('name, resolution, options', [
    ('Sw512d1h8-Sw512d2h8/16', 256, {}),
    ('Sw512d1h8-A/16', 64, {'mlp': 'gelu'}),
    ('F-P/8', 32, {'batch': 3}),
    ('A-A/8', 32, {'positions': 'none', 'bottleneck': 'deterministic'}),
    ('A-A/8', 64, {'positions': 'learned'}),
    ('A-A/2x8', 64, {'positions': 'rope3d', 'frames': 4}),
    ('A-A/1x4x64', 32, {}),
    ('A-A/8+24', 32, {'keep': (8, 24)}),
    ('A-A/4+16', 32, {'positions': 'learned', 'bottleneck': 'layernorm'}),
    ('A-A/8', 64, {'layer_scale': 1e-4, 'qk_norm': True}),
    ('A-A/8', 64, {'block': 'parallel', 'bias': False, 'norm': 'rmsnorm',
                   'layer_scale': 1e-4, 'qk_norm': True, 'final_norm': False}),
    ('A-A/8', 64, {'key_bias': False, 'sub_norm': True}),
    ('A-A/8', 64, {'sub_norm': True, 'norm': 'rmsnorm'}),
    ('A-A/8', 32, {'cls': True, 'positions': 'sincos'}),
    ('A-A/8', 64, {'projection': 'mlp'}),
    ('A-Af99/8', 64, {'head': 'tanh'}),
    ('A-A/8+24', 64, {**QLIP, 'bottleneck': 'vq'}),
    ('A-A/1x8x28', 64, {**QLIP, 'bottleneck': 'bsq', 'quantizer.product': 28}),
])
def test_with_elementwise_work_within_1_percent_at_any_width(
    name, resolution, options, train):
  counted, spec = xla(name, resolution, train=train, **options)
  counted /= options.get('batch', 1)
  assert with_elementwise(spec, train) == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('options', [
    {'bottleneck': 'vq', 'quantizer.residual': 2},
    {'bottleneck': 'vq', 'quantizer.update': 'gradient'},
    {'bottleneck': 'bsq', 'quantizer.product': 16},
    {'bottleneck': 'bsq', 'quantizer.product': 2},
    {'bottleneck': 'lfq', 'quantizer.product': 2}])
def test_discrete_codes_with_all_losses_are_within_4_percent(options, train):
  counted, spec = xla('A-A/8', 64, train=train, **options)
  assert with_elementwise(spec, train) == pytest.approx(counted, rel=0.04)


@pytest.mark.parametrize('train', [False, True])
def test_what_is_left_after_optimising_is_within_1_percent(train):
  counted, spec = xla('A-A/4', 64, programs.compiled, train=train, mlp='gelu',
                      norm='rmsnorm')
  assert with_elementwise(spec, train) == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize('remat, make', [
    ('dots', programs.lowered),
    ('full', programs.compiled)])  # Optimising leaves the repetition there.
def test_recomputed_products_are_those_that_remat_repeats(remat, make):
  plain, spec = xla('F-F/8', 128, make, train=True)
  repeating, _ = xla('F-F/8', 128, make, train=True, remat=remat)
  # Element-wise work of the blocks is repeated too: 3% of their products.
  assert repeating - plain == pytest.approx(
      flops.recomputed(spec, remat), rel=0.15)


def test_xla_counts_one_block_of_a_scanned_tower():
  """Why the axis of a scaling law is never `cost_analysis`."""
  one, _ = xla('A-A/8', 32)
  four, spec = xla('Ad4-A/8', 32, scan=True)
  assert four == pytest.approx(one, rel=0.02)
  assert products(spec, False) > 1.5 * one


def test_backward_is_two_products_but_for_the_patch_embedding():
  _, spec = xla('F-P/8', 32, batch=3)
  embedding = 2 * spec.tokens * spec.size.patch_dim * spec.size.encoder.width
  assert flops.train_step(spec)['total'] == (
      3 * flops.forward(spec)['total'] - embedding)
