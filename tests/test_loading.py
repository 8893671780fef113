"""`vitok.load`: a run's tokenizer, with the parameters it is judged by."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitok
from tests import tiny_run
from vitok import errors


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  tiny_run.make(folder / 'plain', steps=(3, 7), ema_decay=0.)
  tiny_run.make(folder / 'averaged')
  tiny_run.make(folder / 'cut', model__name='A-A/1x8x4+6',
                model__keep=(2, 6), ema_decay=0.)
  return folder


def _images(count=3, side=tiny_run.SIDE):
  return np.random.default_rng(0).integers(
      0, 256, (count, side, side, 3)).astype(np.uint8)




def test_three_lines_give_the_models_own_code_and_images(workdir):
  tokenizer = vitok.load(workdir / 'plain')
  code = tokenizer.encode(_images())
  images = tokenizer.decode(code)

  clips = jnp.asarray(_images()[:, None] / 127.5 - 1, jnp.float32)
  expected, out = tokenizer.model.apply(tokenizer.variables, clips)
  # Compiled in two parts and not at all: sums are ordered differently.
  np.testing.assert_allclose(code.z, out['code'].z, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(images, expected, rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(images, tokenizer.decode(code.z))


def test_newest_checkpoint_is_the_default_and_any_can_be_named(workdir):
  newest = vitok.load(workdir / 'plain')
  first = vitok.load(workdir / 'plain', 3)
  assert (newest.step, first.step) == (7, 3)
  for a, b in zip(jax.tree.leaves(newest.variables),
                  jax.tree.leaves(first.variables), strict=True):
    np.testing.assert_allclose(a / 1.7, b / 1.3, rtol=1e-5)


def test_moving_average_is_restored_if_the_run_keeps_one(workdir):
  plain = vitok.load(workdir / 'plain', 3)
  averaged = vitok.load(workdir / 'averaged', 3)
  for a, b in zip(jax.tree.leaves(plain.variables),
                  jax.tree.leaves(averaged.variables), strict=True):
    np.testing.assert_allclose(a, 2 * b, rtol=1e-6)


def test_reconstruct_keeps_shape_and_kind(workdir):
  tokenizer = vitok.load(workdir / 'plain')
  images = _images()
  as_levels = tokenizer.reconstruct(images)
  assert as_levels.dtype == np.uint8 and as_levels.shape == images.shape
  as_floats = tokenizer.reconstruct(images[:, None] / 127.5 - 1)
  assert as_floats.shape == images[:, None].shape
  np.testing.assert_allclose(  # Half a level, and what sums differ by.
      as_levels[:, None] / 127.5 - 1, np.clip(as_floats, -1, 1),
      atol=.5 / 127.5 + 1e-4)


def test_other_sizes_that_the_patch_divides_are_reconstructed(workdir):
  images = np.zeros((1, 32, 24, 3), np.uint8)
  assert vitok.load(workdir / 'plain').reconstruct(
      images).shape == images.shape


def test_codes_are_cut_where_the_model_was_trained_for_it(workdir):
  tokenizer = vitok.load(workdir / 'cut')
  short = tokenizer.encode(_images(), length=2)
  whole = tokenizer.encode(_images())
  assert short.z.shape == (3, 2, 4) and whole.z.shape == (3, 6, 4)
  np.testing.assert_array_equal(short.z, whole.z[:, :2])
  # Compiled apart: sums are ordered differently.
  for images in (tokenizer.decode(short), tokenizer.decode(whole, length=2),
                 tokenizer.reconstruct(_images() / 127.5 - 1, 2)[:, None]):
    np.testing.assert_allclose(images, tokenizer.decode(short.z), atol=1e-4)
  assert np.abs(tokenizer.decode(short) - tokenizer.decode(whole)).max() > 1e-3
  with pytest.raises(errors.InputError, match='length=7.*choice: 6'):
    tokenizer.decode(whole, length=7)
  with pytest.raises(errors.InputError, match='length=0.*choice: 1'):
    tokenizer.encode(_images(), length=0)
  with pytest.raises(errors.InputError, match='whole codes.*keep.*choice: 4'):
    vitok.load(workdir / 'averaged').decode(short)


@pytest.mark.parametrize('images, message', [
    (np.zeros((16, 16, 3), np.uint8), 'is not the shape'),
    (np.zeros((1, 16, 16, 4), np.uint8), 'is not the shape'),
    (np.zeros((1, 20, 16, 3), np.uint8), 'images.height=20.*choice: 16'),
    (np.full((1, 16, 16, 3), 255.), 'far outside'),
    (np.zeros((1, 16, 16, 3), int), 'neither uint8 nor floating'),
])
def test_images_that_do_not_fit_are_refused(workdir, images, message):
  with pytest.raises(errors.InputError, match=message):
    vitok.load(workdir / 'plain').encode(images)


def test_wrong_workdirs_and_checkpoints_are_refused_with_the_nearest(workdir):
  with pytest.raises(errors.InputError, match='not a folder.*plain'):
    vitok.load(workdir / 'plian')
  with pytest.raises(errors.InputError, match='holds no run'):
    vitok.load(workdir)
  with pytest.raises(errors.InputError, match='--checkpoint=5.*choice: [37]'):
    vitok.load(workdir / 'plain', 5)
