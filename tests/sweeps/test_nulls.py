import json
import pathlib

import numpy as np
import pytest

from tests import stand_ins
from vitok import data, errors, sweeps
from vitok.metrics import protocol
from vitok.models import autoencoder
from vitok.sweeps import nulls

TINY = str(pathlib.Path(__file__).with_name('tiny.py'))


@pytest.fixture(scope='module')
def swept(tmp_path_factory):
  """The tiny experiment with its null models: (configs, workdir)."""
  patch = pytest.MonkeyPatch()
  patch.setattr(nulls, 'TRAIN_IMAGES', 64)
  workdir = tmp_path_factory.mktemp('sweep')
  experiment = sweeps.load(TINY)
  nulls.write(experiment, workdir, lambda line: None)
  patch.undo()
  return [experiment.resolve(unit) for unit in experiment.units], workdir


@pytest.mark.parametrize('tubelet, patch', [(1, 4), (2, 8)])
def test_patches_are_taken_apart_and_put_together(tubelet, patch):
  image = np.random.default_rng(0).random((2, 4, 16, 8, 3), np.float32)
  x = autoencoder.patchify(image, tubelet, patch)
  assert x.shape == (2, 4 // tubelet * (16 // patch) * (8 // patch),
                     3 * tubelet * patch**2)
  np.testing.assert_array_equal(
      nulls._unpatchify(x, image, tubelet, patch), image)
  # The first patch is the first corner, pixels by frame, row, column, colour.
  np.testing.assert_array_equal(
      x[0, 0], image[0, :tubelet, :patch, :patch].ravel())


def test_pca_is_that_of_scikit_learn(swept):
  from sklearn.decomposition import PCA
  config = swept[0][0]
  patch = pytest.MonkeyPatch()
  patch.setattr(nulls, 'TRAIN_IMAGES', 16)
  mean_D, basis_DxD = nulls.fit_pca(config, 1, 4)
  patch.undo()
  x_NxD = np.concatenate([
      autoencoder.patchify(
          data.host_batch(config, step)['image'], 1, 4).reshape(-1, 48)
      for step in range(4)])
  reference = PCA(8, svd_solver='full').fit(x_NxD.astype(np.float64))
  np.testing.assert_allclose(mean_D, reference.mean_, atol=1e-6)
  overlap = np.abs(np.sum(basis_DxD[:, :8] * reference.components_.T, 0))
  np.testing.assert_allclose(overlap, 1, atol=1e-4)


def test_all_components_give_the_image_back():
  image = np.random.default_rng(0).uniform(-1, 1, (2, 1, 8, 8, 3))
  basis, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(48, 48)))
  mean = np.full(48, 0.1, np.float32)

  def project(keep):
    return nulls.project(image.astype(np.float32), mean,
                         basis.astype(np.float32), keep, tubelet=1, patch=4)
  np.testing.assert_allclose(project(48), image, atol=1e-5)
  np.testing.assert_allclose(project(0), 0.1, atol=1e-6)


def test_mean_colour_is_one_colour_a_patch():
  image = np.random.default_rng(0).random((1, 1, 8, 8, 3), np.float32)
  flat = np.asarray(nulls.mean_colour(image, tubelet=1, patch=4))
  np.testing.assert_allclose(flat[0, 0, :4, :4], np.broadcast_to(
      image[0, 0, :4, :4].mean((0, 1)), (4, 4, 3)), atol=1e-6)


@pytest.mark.parametrize('floats, frames, resolution, small', [
    (256, 1, 32, (1, 9, 9)), (3072, 1, 32, (1, 32, 32)),
    (9999, 1, 32, (1, 32, 32)), (27, 1, 32, (1, 3, 3)), (2, 1, 32, None),
    (3 * 8 * 16**2, 16, 32, (8, 16, 16)), (3, 1, 4, (1, 1, 1))])
def test_a_small_image_never_has_more_floats(floats, frames, resolution,
                                             small):
  assert nulls.small_shape(floats, frames, resolution) == small
  if small:
    assert 3 * np.prod(small) <= floats


def test_more_components_never_reconstruct_worse(swept):
  rows = json.loads((swept[1] / 'nulls.json').read_text())['rows']
  mse = {row['channels']: row['mse'] for row in rows if row['model'] == 'pca'}
  assert list(mse) == [4, 8] and mse[8] < mse[4]


def test_latent_tokens_have_the_pca_of_as_many_floats(swept, monkeypatch):
  monkeypatch.setattr(nulls, 'TRAIN_IMAGES', 16)
  config = swept[0][0].copy_and_resolve_references()
  config.evaluation.count = 2
  found = []
  for name in ('A-A/1x8x4', 'A-A/1x8x8+3', 'A-A/1x8x1+3'):  # 4 patches.
    config.model.name = name
    rows = nulls.compute([config])[0]['rows']
    found.append([row['code_floats'] for row in rows if row['model'] == 'pca'])
  assert found == [[16], [24], []]


def test_rows_and_arrays_have_the_schema_of_the_report(swept):
  configs, workdir = swept
  held = json.loads((workdir / 'nulls.json').read_text())
  assert held['train_images'] == 64
  arrays = np.load(workdir / 'nulls.npz')
  assert [row['model'] for row in held['rows']] == [
      'mean', 'pca', 'pca', 'downsample', 'downsample']
  mean, pca, _, small, _ = held['rows']
  assert (mean['tokens'], mean['code_floats']) == (4, 12)
  assert (pca['tubelet'], pca['patch'], pca['code_floats']) == (1, 8, 16)
  assert (small['patch'], small['code_floats']) == (0, 12)
  for row in held['rows']:
    values = arrays[f'{row["key"]}/psnr']
    assert values.shape == arrays['index'].shape == (12,)
    assert np.isclose(values.mean(), row['psnr'])
  measured = protocol.Protocol.from_config(
      configs[0], 12, data.fingerprint(configs[0], 'evaluation'))
  assert held['protocol'] == measured.id


def test_numbers_of_networks_are_measured_of_null_models_too(
    swept, monkeypatch, tmp_path):
  stand_ins.install(monkeypatch, tmp_path)
  monkeypatch.setattr(nulls, 'TRAIN_IMAGES', 16)
  config = swept[0][0].copy_and_resolve_references()
  config.unlock()
  config.evaluation.count, config.evaluation.features = 8, 4
  config.evaluation.numbers = ('lpips_alex', 'rkid', 'ris')  # No network: ris.
  held, arrays = nulls.compute([config])
  assert set(held['ids']) == {'lpips_alex', 'rkid'}
  psnr, lpips, rkid = ([row[name] for row in held['rows'] if
                        row['model'] != 'downsample'] for name in (
                            'psnr', 'lpips_alex', 'rkid'))
  best, worst = np.argmax(psnr), np.argmin(psnr)
  assert lpips[best] < lpips[worst] and rkid[best] < rkid[worst]
  for row in held['rows']:
    values = arrays[f'{row["key"]}/lpips_alex']
    assert values.shape == (8,) and np.isclose(values.mean(),
                                               row['lpips_alex'])
  fewer = config.copy_and_resolve_references()
  fewer.evaluation.count = 4
  again = nulls.compute([fewer])[0]
  assert again['ids']['rkid'] == held['ids']['rkid']
  assert [row['rkid'] for row in again['rows']] == [
      row['rkid'] for row in held['rows']]


def test_null_models_are_computed_once(swept):
  before = (swept[1] / 'nulls.json').stat().st_mtime_ns
  nulls.write(sweeps.load(TINY), swept[1], pytest.fail)
  assert (swept[1] / 'nulls.json').stat().st_mtime_ns == before


def test_units_with_other_data_have_no_null_model_in_common(swept):
  other = swept[0][0].copy_and_resolve_references()
  other.unlock()
  other.evaluation.count = 5
  with pytest.raises(errors.InputError, match='config.evaluation'):
    nulls.compute([swept[0][0], other])
