"""What happens to a gradient: accumulation, commit, sharing of programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs
from vitok import data
from vitok.training import program as program_lib
from vitok.training import starting, trainer

GROUPS = ({'match': '.*encoder/blocks/.*', 'layer_decay': 0.5},)


def on_one_device(**options):
  """The programs of a tiny run; to compile for eight devices takes longer."""
  config = runs.tiny(**options)
  return {program_lib.signature(config): program_lib.Program(
      config, jax.devices()[:1])}


def after(steps, **options):
  """(state, metrics of each step) of a run on one device."""
  config = runs.tiny(**options)
  program, = on_one_device(**options).values()
  run = program.run_arguments(config)
  state, found = program.init(run), []
  batches = data.train_batches(config, program.batch_sharding)
  for _ in range(steps):
    batch = next(batches)
    step = program.compile_step(batch, run)
    state, metrics = step(state, batch, program.frozen, run)
    found.append(jax.device_get(metrics))
  batches.close()
  return jax.device_get(state), found


def test_accumulated_gradients_equal_the_big_batch():
  options = dict(optimizer__clip=0.05, optimizer__groups=GROUPS,
                 model__encoder__depth=2)
  whole, one = after(3, **options)
  parts, two = after(3, optimizer__accumulate=4, **options)
  for a, b in zip(one, two, strict=True):
    assert a['loss'] == pytest.approx(b['loss'], rel=1e-6)
    assert a['gradient_norm'] == pytest.approx(b['gradient_norm'], rel=1e-5)
    assert a['gradient_norm'] > 0.05  # The clip is at work.
  for field in ('params', 'ema'):
    # Adam divides by the gradient's own size: what is nearly zero is noise.
    for a, b in zip(jax.tree.leaves(getattr(whole, field)),
                    jax.tree.leaves(getattr(parts, field)), strict=True):
      np.testing.assert_allclose(a, b, atol=3e-5)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run of two steps: its workdir, and the programs compiled for it."""
  workdir, programs = tmp_path_factory.mktemp('trained'), on_one_device()
  trainer.train(runs.tiny(total_steps=2), workdir, programs=programs)
  return workdir, programs


def test_an_update_with_an_infinite_gradient_changes_nothing(trained):
  config = runs.tiny()
  program, = trained[1].values()
  run = program.run_arguments(config)
  state = program.init(run)
  before = jax.device_get(state)
  batches = data.train_batches(config, program.batch_sharding)
  batch = dict(next(batches))
  batches.close()
  image = np.array(batch['image'])
  image[0] = 3e38  # Its square overflows.
  batch['image'] = jax.device_put(image, batch['image'].sharding)
  step = program.compile_step(batch, run)
  state, metrics = step(state, batch, program.frozen, run)
  assert int(metrics['committed']) == 0
  for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state),
                  strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_shared_program_gives_what_its_own_would(trained, tmp_path):
  other = dict(seed=3, total_steps=4, optimizer__learning_rate=2e-3)
  programs = trained[1]
  trainer.train(runs.tiny(**other), tmp_path / 'shared', programs=programs)
  assert len(programs) == 1
  trainer.train(runs.tiny(**other), tmp_path / 'own',
                programs=on_one_device())
  runs.assert_same(tmp_path / 'shared', tmp_path / 'own')


def test_a_start_from_another_run_takes_its_values_exactly(trained):
  workdir, programs = trained
  config = runs.tiny(seed=5, init_from=str(workdir),
                     init_subtree='autoencoder/encoder')
  program, = programs.values()
  fresh = program.init(program.run_arguments(config))
  fresh_decoder = jax.device_get(fresh.params['autoencoder']['decoder'])
  state, origin = starting.from_run(fresh, config, print)
  assert origin['step'] == 2 and origin['workdir'] == str(workdir)
  stored = runs.leaves(workdir)
  for path, leaf in jax.tree_util.tree_leaves_with_path(
      state.params['autoencoder']['encoder']):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    np.testing.assert_array_equal(
        leaf, stored[f'ema/autoencoder/encoder/{name}'])
  jax.tree.map(np.testing.assert_array_equal, fresh_decoder,
               jax.device_get(state.params['autoencoder']['decoder']))


def test_noise_differs_between_steps_seeds_and_rows():
  from vitok.tasks import base
  rows = jnp.arange(3)
  keys = {
      (seed, step): jax.random.key_data(base.example_keys(
          jax.random.fold_in(jax.random.fold_in(
              jax.random.key(seed), 1), step), rows)).tolist()
      for seed in range(3) for step in range(3)}
  flat = [tuple(key) for found in keys.values() for key in found]
  assert len(set(flat)) == len(flat) == 27
