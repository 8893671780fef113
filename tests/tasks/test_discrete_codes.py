"""Auto-encoders of discrete codes: trained, resumed, opened, decoded."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vitok
from tests import runs, tiny_run
from vitok import config as config_lib
from vitok import data, encode, errors, models, tasks
from vitok.data import codes, packing
from vitok.interop import saved
from vitok.tasks import objective
from vitok.training import step

KINDS = {
    'vq': {'model.name': 'A-A/1x8x4', 'model.bottleneck': 'vq',
           'model.quantizer.size': 16, 'model.quantizer.product': 2,
           'model.quantizer.residual': 2,
           'model.quantizer.update': 'gradient'},
    'bsq_36': {'model.name': 'A-A/1x8x36', 'model.bottleneck': 'bsq',
               'model.quantizer.product': 36},
}


def config(kind, **changes):
  return config_lib.override(runs.tiny(total_steps=4, checkpoint__every=2,
                                       **changes), KINDS[kind])


@pytest.fixture(scope='module', params=KINDS)
def trained(request, tmp_path_factory):
  """(kind, workdir of four updates)."""
  workdir = tmp_path_factory.mktemp(request.param) / 'run'
  tiny_run.train(config(request.param), workdir)
  return request.param, workdir


def test_a_run_logs_the_losses_and_the_use_of_its_codes(trained):
  kind, workdir = trained
  line = next({key.removeprefix('train/'): value for key, value in
               line.items()} for line in runs.lines(workdir)
              if line.get('step') == 4 and 'train/loss' in line)
  names = {'usage', 'code_entropy', 'commitment'} | {
      'vq': {'codebook'},
      'bsq_36': {'entropy', 'sample_entropy', 'codebook_entropy'}}[kind]
  assert names <= line.keys()
  loss = line['l2'] + sum(
      weight * line.get(name, 0) for name, weight in (
          ('commitment', 0.01), ('codebook', 1.0), ('entropy', 0.1)))
  assert line['loss'] == pytest.approx(loss, rel=1e-5)
  model = json.loads((workdir / 'model.json').read_text())
  bits = {'vq': 4 * 4, 'bsq_36': 36}[kind]
  assert model['code_bits'] == model['tokens'] * bits


def test_a_resumed_run_is_the_run_with_its_codebook_and_counts(
    trained, tmp_path):
  kind, workdir = trained
  again = tmp_path / 'again'
  tiny_run.resume(config(kind), workdir, again)
  runs.assert_same(again, workdir)
  stats, _, _ = saved.restore_params(again, 'autoencoder', field='stats')
  counts = stats['stats']['bottleneck']['counts']
  assert not np.allclose(counts, counts.mean())  # Training moved them.


def test_integers_alone_packed_into_bytes_give_the_same_images(trained):
  kind, workdir = trained
  tokenizer = vitok.load(workdir)
  images = np.random.default_rng(0).integers(
      0, 256, (3, tiny_run.SIDE, tiny_run.SIDE, 3), np.uint8)
  code = tokenizer.encode(images)
  ids = np.asarray(code.ids)
  packed = packing.pack(ids, tokenizer.radices)
  bits = {'vq': 16, 'bsq_36': 36}[kind]
  assert len(packed) == -(-ids.shape[0] * ids.shape[1] * bits // 8)
  back = packing.unpack(packed, ids.shape[:2], tokenizer.radices)
  np.testing.assert_array_equal(tokenizer.decode(back), tokenizer.decode(code))
  for wrong in (ids[..., :1] if ids.shape[-1] > 1 else ids[0],
                ids + np.max(tokenizer.radices), ids - 40):
    with pytest.raises(errors.InputError, match='code'):
      tokenizer.decode(wrong)


def test_codes_are_cached_as_packed_integers_and_generators_read_them(
    trained, tmp_path):
  kind, workdir = trained
  made = encode.encode(workdir, tmp_path, batch_size=8)['test']
  tokenizer = vitok.load(workdir)
  assert tuple(made['radices']) == tokenizer.radices
  own = config_lib.override(config(kind), {
      key: value for key, value in tiny_run.DIT.items()
      if not key.startswith('model')} | {
          'tokenizer.workdir': str(workdir), 'tokenizer.sample': False,
          'data.sources': (f'codes:{tmp_path}',), 'data.split': 'test',
          'evaluation.split': 'test'})
  images = config(kind, data__crop='center', data__split='test',
                  data__flip=False)
  coded, seen = data.host_batch(own, 0), data.host_batch(images, 0)
  np.testing.assert_array_equal(coded['index'], seen['index'])
  code = tokenizer.encode(seen['image'])
  assert coded['code'].dtype == np.int32
  np.testing.assert_array_equal(coded['code'], code.ids)
  bits = {'vq': 16, 'bsq_36': 36}[kind]
  record = codes.pack(coded['code'][0], 0, tokenizer.radices)
  assert len(record) == 16 + -(-code.ids.shape[1] * bits // 8)
  task = tasks.build(own)
  z = jax.jit(lambda frozen, batch: task.generator.tokenizer.encode(
      frozen, batch, None))(task.weights['tokenizer'].load(), {
          'code': coded['code']})
  np.testing.assert_array_equal(z, code.z)


def test_integers_are_no_code_of_a_model_of_floats(tmp_path):
  tiny_run.make(tmp_path / 'run')
  tokenizer = vitok.load(tmp_path / 'run')
  assert tokenizer.radices == ()
  with pytest.raises(errors.InputError, match='integers'):
    tokenizer.decode(np.zeros((1, 4, 1), int))


def test_a_decoder_is_compiled_and_differentiated_by_others(tmp_path):
  tiny_run.make(tmp_path / 'run', model__bottleneck='fsq',
                model__quantizer__levels=(4, 4, 4, 4))
  tokenizer = vitok.load(tmp_path / 'run')
  z = np.zeros((1, 4, 4), np.float32)
  np.testing.assert_allclose(jax.jit(tokenizer.decode)(z),
                             tokenizer.decode(z), rtol=1e-4, atol=1e-5)
  assert jax.grad(lambda z: tokenizer.decode(z).sum())(jnp.array(z)).any()


def test_the_gradient_of_fsq_is_a_mean_over_parts_of_a_batch():
  made = runs.tiny(model__bottleneck='fsq', optimizer__accumulate=2,
                   model__quantizer__levels=(4, 4, 4, 4))
  step.check_accumulation(tasks.build(made), 2)


@pytest.mark.parametrize('kind', KINDS)
def test_accumulation_is_refused_where_codes_are_counted_over_a_batch(kind):
  made = config(kind, optimizer__accumulate=2)
  with pytest.raises(errors.InputError, match='config.optimizer.accumulate'):
    step.check_accumulation(tasks.build(made), 2)


def test_a_loss_without_weight_does_not_count():
  code = models.Code(np.zeros((2, 3, 4)), losses={
      'commitment': np.array([1.0, 2.0]), 'entropy': np.array([5.0, 7.0])})
  made = config('vq', loss__commitment_weight=0.5, loss__entropy_weight=0.0)
  np.testing.assert_allclose(objective.Objective(made).code(code), [0.5, 1.0])
