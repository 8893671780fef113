"""The loss of both stages, term by term."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import metrics

from tests import runs
from vitok import errors, tasks, validation
from vitok.interop import weights
from vitok.losses import lpips
from vitok.models import counting
from vitok.tasks import base, objective
from vitok.training import mesh, program

ALEXNET = 'lpips_alexnet'
ALL = {'data__resolution': 32, 'loss__lpips_network': ALEXNET,
       'loss__lpips_weight': 0.5, 'loss__ssim_weight': 0.25}
TILED = {'data__crop': 'native', 'data__resolution': 64,
         'loss__ssim_weight': 0.1, 'loss__lpips_weight': 1.0}


@functools.cache
def frozen():
  """Random parameters of AlexNet, by the name of its weights."""
  net = jax.jit(lpips.NETWORKS['alexnet']().init)(
      jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))['params']
  rng = np.random.default_rng(0)
  heads = {str(k): rng.uniform(size=width).astype(np.float32)
           for k, width in enumerate((64, 192, 384, 256, 256))}
  return {ALEXNET: {'net': net, 'heads': heads}}


def clips(count):
  image = np.random.default_rng(0).uniform(-1, 1, (count, 2, 2, 32, 32, 3))
  return image.astype(np.float32)


@functools.cache
def summed():
  """Jitted (original, made) -> (sum of the losses, terms), and its gradient."""
  mine = objective.Objective(runs.tiny(data__frames=2, **ALL))

  def total(made, original, frozen):
    total_B, terms = mine.image(original, made, frozen)
    return total_B.sum(), (total_B, terms)
  return jax.jit(jax.value_and_grad(total, has_aux=True))


def test_terms_are_what_they_say_and_the_loss_their_weighted_sum():
  original, made = clips(2)
  (_, (total, terms)), _ = summed()(made, original, frozen())
  assert set(terms) == {'l2', 'dssim', 'lpips'}
  ssim = [np.mean([metrics.structural_similarity(
      *((np.asarray(x[b, t], np.float64) + 1) / 2 for x in (original, made)),
      gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
      data_range=1, channel_axis=-1, full=True)[1][5:-5, 5:-5].mean()
      for t in range(2)]) for b in range(2)]
  np.testing.assert_allclose(terms['dssim'], 1 - np.array(ssim), atol=1e-5)
  np.testing.assert_allclose(
      terms['l2'], np.square(original - made).mean((1, 2, 3, 4)), rtol=1e-5)
  np.testing.assert_allclose(terms['lpips'], jax.jit(lpips.LPIPS('alexnet'))(
      frozen()[ALEXNET], original, made), rtol=1e-4)
  np.testing.assert_allclose(total, terms['l2'] + 0.25 * terms['dssim']
                             + 0.5 * terms['lpips'], rtol=1e-6)


@pytest.mark.parametrize('level', [None, 0.0, 1.0])
def test_gradients_of_equal_images_are_finite_and_vanish(level):
  image, _ = clips(2)
  image = image if level is None else np.full_like(image, level)
  (loss, _), gradient = summed()(image, image, frozen())
  assert abs(loss) < 1e-5
  assert np.isfinite(gradient).all() and np.abs(gradient).max() < 1e-5


def test_a_nat_costs_the_same_for_every_code_if_configured():
  code = type('Code', (), {'z': jnp.zeros((1, 4, 2)), 'losses': {
      'kl_sum': jnp.array([10.0]), 'kl_mean': jnp.array([1.25])}})
  for reduction, expected in (('mean', 1.25), ('sum', 10 / (32 * 32 * 3))):
    mine = objective.Objective(runs.tiny(
        loss__kl_reduction=reduction, loss__kl_weight=0.1,
        data__resolution=32))
    np.testing.assert_allclose(mine.code(code), [0.1 * expected], rtol=1e-6)


def test_both_stages_have_the_same_loss_and_gradient():
  """Stage 2 takes it at the image, stage 1 through everything at once."""
  changes = ALL | {'loss__kl_weight': 0.01, 'batch_size': 2}
  results = {}
  for name, more in (('reconstruction', {}), ('adversarial', {
      'adversarial__trained': 'all', 'adversarial__schedule__weight': 0.0})):
    task = tasks.build(runs.tiny(task=name, **changes, **more))
    rng = np.random.default_rng(1)
    image = rng.uniform(-1, 1, (2, 1, 32, 32, 3)).astype(np.float32)
    batch = {'image': image, 'mask': np.ones(2, bool), 'row': np.arange(2)}

    def grad(frozen, task=task, batch=batch):
      params, stats = mesh.unbox(task.init(jax.random.key(0)))
      state = base.State(jnp.zeros((), jnp.int32), params, {}, {}, stats)
      return task.players[0].grad(state, frozen, batch, jax.random.key(2), {})
    results[name] = jax.jit(grad)(frozen())
  one, other = results.values()
  for metric in ('loss', 'l2', 'dssim', 'lpips', 'kl_mean'):
    np.testing.assert_allclose(one.metrics[metric], other.metrics[metric],
                               rtol=1e-5)
  # Sums in another order: 1e-4 of the largest number of each array.
  for a, b in zip(jax.tree.leaves(one.grads), jax.tree.leaves(other.grads),
                  strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(a).max())


def test_absent_weights_are_refused_before_a_run_starts(
    tmp_path, monkeypatch):
  monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path))
  config = runs.tiny(**ALL)
  with pytest.raises(errors.InputError,
                     match='fetch_weights.py lpips_alexnet'):
    validation.check(config)
  assert tasks.build(config).cost()['losses']  # A price needs none.


def test_weights_reach_the_step_by_name_and_hash(tmp_path, monkeypatch):
  monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path))
  info = weights.save(ALEXNET, jax.device_get(frozen()[ALEXNET]), 'chance')
  built = program.Program(runs.tiny(**ALL), jax.devices()[:1])
  assert built.task.weights[ALEXNET].sha256 == info.sha256
  np.testing.assert_array_equal(
      built.frozen[ALEXNET]['net']['conv1']['kernel'],
      frozen()[ALEXNET]['net']['conv1']['kernel'])


def test_all_but_the_pixel_loss_see_the_tile():
  mine = objective.Objective(runs.tiny(**ALL | {'loss__pixel': 'charbonnier'}))
  wide = np.concatenate(clips(2), 3)  # Two clips side by side.
  original, made = wide, wide[:, ::-1]
  apply = jax.jit(mine.image, static_argnames='tile')
  _, whole = apply(original, made, frozen(), tile=lambda image: image)
  total, terms = apply(original, made, frozen(),
                       tile=lambda image: image[..., 32:, :])
  _, cut = apply(original[..., 32:, :], made[..., 32:, :], frozen())
  np.testing.assert_allclose(terms['charbonnier'], whole['charbonnier'])
  for name in ('dssim', 'lpips'):  # Sums in another order.
    np.testing.assert_allclose(terms[name], cut[name], rtol=1e-5)
    assert np.abs(cut[name] / whole[name] - 1).min() > 1e-3
  np.testing.assert_allclose(total, terms['charbonnier'] + 0.25 * terms['dssim']
                             + 0.5 * terms['lpips'], rtol=1e-6)


@pytest.mark.parametrize('changes, message', [
    ({'loss__lpips_weight': 1.0, 'data__resolution': 8},
     'resolution=8.*lpips_vgg16; nearest valid choice: 16'),
    ({'loss__lpips_weight': 1.0, 'loss__lpips_network': ALEXNET},
     'resolution=16.*lpips_alexnet; nearest valid choice: 31'),
    ({'loss__ssim_weight': 1.0, 'data__resolution': 8},
     'resolution=8.*SSIM; nearest valid choice: 11'),
    ({'loss__lpips_network': 'lpips_vgg'}, "'lpips_vgg'.*lpips_vgg16"),
    # At native sizes: none, through patches, too small, larger than an image.
    (TILED | {'loss__feature_tile': 0},
     'feature_tile=0.*lpips_vgg16.* 8 and 16 to 64 .*choice: 64'),
    (TILED | {'loss__feature_tile': 35}, 'feature_tile=35.*choice: 32'),
    (TILED | {'loss__feature_tile': 8}, 'feature_tile=8:.*choice: 16'),
    (TILED | {'loss__feature_tile': 72}, 'feature_tile=72.*choice: 64'),
    (TILED | {'data__resolution': 8},
     'resolution=8: .*lpips_vgg16; nearest valid choice: 16'),
])
def test_what_a_term_cannot_measure_is_refused(changes, message):
  with pytest.raises(errors.InputError, match=message):
    objective.Objective(runs.tiny(**changes))


def test_at_native_sizes_networks_cost_a_tile_and_no_square():
  tiled = {'data__crop': 'native', 'loss__feature_tile': 32}
  expected = tasks.build(runs.tiny(**ALL)).cost()['losses']
  for side in (32, 64):
    cost = tasks.build(runs.tiny(
        **ALL | tiled | {'data__resolution': side})).cost()
    assert cost['losses'] == expected
  whole = tasks.build(runs.tiny(**ALL | {'data__resolution': 64})).cost()
  assert whole['losses'][ALEXNET]['macs'] > expected[ALEXNET]['macs']


def test_lpips_costs_what_its_convolutions_do_and_is_apart():
  plain = tasks.build(runs.tiny(data__resolution=32)).cost()
  cost = tasks.build(runs.tiny(**ALL)).cost()
  # 7 x 7, 3 x 3 and three times 1 x 1 positions.
  by_hand = (49 * 11 * 11 * 3 * 64 + 9 * 25 * 64 * 192 + 9 * 192 * 384
             + 9 * 384 * 256 + 9 * 256 * 256)
  told = cost['losses'][ALEXNET]
  assert told['macs'] == by_hand and told['train_step'] == 6 * by_hand
  assert cost['flops'] == plain['flops'] and not plain['losses']
  assert (cost['memory']['total'] - plain['memory']['total']
          == cost['memory']['losses'] == told['memory'])


def test_vgg_at_256_pixels_is_20_gmac():
  counted = counting.count(lpips.NETWORKS['vgg16'](), (256, 256, 3))
  assert counted['macs'] / 1e9 == pytest.approx(20.0, abs=0.1)
