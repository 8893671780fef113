"""Stage 2: what each player does, on random images, through the trainer's
compiled step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import runs, tiny_run
from vitok import errors, tasks, validation
from vitok.tasks import adversarial, base
from vitok.training import mesh as mesh_lib
from vitok.training import preemption, starting, trainer
from vitok.training import program as program_lib
from vitok.training import step as step_lib

FREEZE = ({'match': '(encoder|bottleneck)/.*', 'frozen': True},)


OPTIONS = dict(
    schedule__start=1, schedule__ramp=2, width=1 / 64,
    optimizer__learning_rate=1e-3, optimizer__reference_batch=0,
    optimizer__warmup=0.0)


def tiny(changes=(), **options):
  """A config; `changes` go to it, `options` to its section `adversarial`."""
  return runs.tiny(task='adversarial', **(
      {'optimizer__groups': FREEZE} | dict(changes)
      | {f'adversarial__{key}': value
         for key, value in (OPTIONS | options).items()}))


def images(seed, size):
  """A batch as the pipeline makes it."""
  image = np.random.default_rng(seed).uniform(-1, 1, (size, 1, 16, 16, 3))
  return {'image': np.float32(image), 'mask': np.ones(size, bool),
          'index': np.arange(size), 'group': np.arange(size)}


PROGRAMS = {}  # Compiled once for all tests.


class Run:
  """A run's state; arguments as `tiny` takes them."""

  def __init__(self, changes=(), **opts):
    self.config = tiny(changes, **opts)
    name = repr((changes, sorted(opts.items())))
    if name not in PROGRAMS:
      PROGRAMS[name] = program_lib.Program(self.config, jax.devices()[:1])
    self.program = PROGRAMS[name]
    self.task = self.program.task
    self.arguments = self.program.run_arguments(self.config)

  @functools.cached_property
  def state(self):
    return self.program.init(self.arguments)

  def step(self, seed=0):
    """Metrics of one update on random images of 16 pixels."""
    batch = jax.device_put(images(seed, self.config.batch_size),
                           self.program.batch_sharding)
    step = self.program.compile_step(batch, self.arguments)
    self.state, metrics = step(self.state, batch, self.program.frozen,
                               self.arguments)
    return jax.device_get(metrics)

  def values(self, field='params'):
    """A copy: the step gives away the state's buffers."""
    return jax.tree.map(np.array, getattr(self.state, field))


def moved(before, after):
  return jax.tree.leaves(jax.tree.map(
      lambda a, b: bool((a != b).any()), before, after))


def test_two_steps_move_decoder_and_discriminator_but_not_the_encoder():
  run = Run()
  before = run.values()
  made = [run.step(seed) for seed in range(2)]
  after = run.values()
  for name in before['autoencoder']:
    frozen = name in adversarial.FROZEN
    parts = moved(before['autoencoder'][name], after['autoencoder'][name])
    assert not any(parts) if frozen else all(parts)
  assert np.mean(moved(before['discriminator'], after['discriminator'])) > 0.9
  # Of what does not move, the average is the value itself.
  average = run.values('ema')['autoencoder']
  for name in adversarial.FROZEN:
    jax.tree.map(np.testing.assert_array_equal, average[name],
                 after['autoencoder'][name])
  assert [m['committed'] for m in made] == [1, 2]
  assert np.isfinite([list(m.values()) for m in made]).all()
  # Off in the first update; then half of the ramp is behind it.
  assert [m['autoencoder/adversarial_weight'] for m in made] == [
      0, np.float32(0.025)]
  moments = sum(x.size for x in jax.tree.leaves(
      run.values('opt')['autoencoder']))
  trained = sum(x.size for name in ('decoder', 'bottleneck_up')
                for x in jax.tree.leaves(after['autoencoder'][name]))
  assert 2 * trained <= moments < 2 * trained + 10  # None for the encoder.


def test_every_option_together_trains_the_encoder_too():
  run = Run({'optimizer__groups': ()}, trained='all',
            discriminator='patch', loss='non_saturating', adaptive=True,
            r1=1.0, r1_every=2, lecam=0.01)
  before = run.values()
  made = [run.step(seed) for seed in range(2)]
  assert all(moved(before['autoencoder'], run.values()['autoencoder']))
  assert np.isfinite([list(m.values()) for m in made]).all()
  assert made[0]['discriminator/r1'] > 0 == made[1]['discriminator/r1']
  # The adaptive factor is far from one: pixels' gradients differ in size.
  factor = made[1]['autoencoder/adversarial_weight'] / 0.025
  assert factor > 0 and abs(np.log(factor)) > 0.1
  assert 0 < run.values('stats')['discriminator']['weight'] < 1


def test_gradients_are_those_of_the_two_losses_together():
  """The sum at the image equals differentiating the sum of both losses."""
  run = Run()
  task, state = run.task, run.values()
  rows, key = np.arange(3), jax.random.key(5)
  batch = images(3, 3) | {'row': rows, 'mask': np.array([1, 1, 0])}
  whole = run.state.replace(step=jnp.int32(2))  # The whole weight.
  found = jax.jit(lambda s, b: task._generate(s, {}, b, key, {}))(whole, batch)

  def loss(trained):
    params = dict(state['autoencoder'], **trained)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
    fake, _ = task.model.apply({'params': params}, batch['image'], keys, True)
    logits = task._discriminator.apply(
        {'params': state['discriminator']}, fake)
    each = jnp.square(fake - batch['image']).mean((1, 2, 3, 4)) - (
        0.05 * logits.mean(1))
    return each[:2].mean()
  trained = {name: state['autoencoder'][name]
             for name in ('decoder', 'bottleneck_up')}
  for a, b in zip(*(jax.tree.leaves(tree) for tree in (
      {name: found.grads[name] for name in trained},
      jax.jit(jax.grad(loss))(trained))), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)
  z = np.asarray(found.carry['z'])
  latent = task._observe(whole, {}, batch, key, found.carry).stats
  np.testing.assert_allclose(latent['mean'], z.mean((0, 1)), atol=1e-6)
  np.testing.assert_allclose(latent['variance'], z.var((0, 1)), rtol=1e-5)


def test_last_layers_gradient_is_that_of_its_kernel():
  run = Run()
  params = run.values()['autoencoder']
  image = images(0, 2)['image']
  push = images(1, 2)['image']  # Any gradient at the reconstruction.

  def made(kernel):
    decoder = dict(params['decoder'], unembed=dict(
        params['decoder']['unembed'], kernel=kernel))
    fake, out = run.task.model.apply(
        {'params': dict(params, decoder=decoder)}, image)
    return jnp.vdot(fake, push), out['decoder']
  expected, tokens = jax.jit(jax.grad(made, has_aux=True))(
      params['decoder']['unembed']['kernel'])
  np.testing.assert_allclose(run.task._last_layer(tokens, push), expected,
                             rtol=1e-4, atol=1e-5)


def test_latent_moments_are_those_of_all_batches_together():
  run = Run()
  z = np.random.default_rng(0).normal(3, 2, (4, 6, 5, 4))
  z += np.arange(4)[:, None, None, None]  # Means differ between batches.
  state = run.state
  for batch in jnp.float32(z):
    stats = run.task._observe(state, {}, {}, None, {'z': batch}).stats
    state = state.replace(stats=dict(state.stats, latent=stats))
  np.testing.assert_allclose(stats['mean'], z.mean((0, 1, 2)), rtol=1e-5)
  np.testing.assert_allclose(stats['variance'], z.var((0, 1, 2)), rtol=1e-4)


def test_the_control_has_no_discriminator_and_the_same_noise():
  """Before the adversary has a weight, both runs are the same run."""
  run = Run()
  control = Run(schedule__weight=0.0)
  assert 'discriminator' not in control.state.params
  made, plain = run.step(), control.step()
  shared = [name for name in plain if name.startswith('autoencoder/')]
  assert 'autoencoder/loss' in shared
  for name in shared:
    np.testing.assert_allclose(made[name], plain[name], rtol=1e-6)
  for a, b in zip(jax.tree.leaves(run.values()['autoencoder']),
                  jax.tree.leaves(control.values()['autoencoder']),
                  strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
  """From stage 1's parameters; discriminator, its optimizer, LeCam's memory
  and the latent's moments are in the checkpoint."""
  tiny_run.make(tmp_path / 'stage1')
  config = tiny({'init_from': str(tmp_path / 'stage1'), 'evaluation__every': 0,
                 'evaluation__count': 16}, r1=1.0, lecam=0.01)
  programs = {program_lib.signature(config): program_lib.Program(
      config, jax.devices()[:1])}
  trainer.train(config, tmp_path / 'whole', programs=programs)
  polls = iter(range(99))
  with monkeypatch.context() as patch:
    # Between steps 3 and 4: a checkpoint that no cadence asks for.
    patch.setattr(preemption.Preemption, 'preempted',
                  lambda self: next(polls) >= 5)
    stopped = trainer.train(config, tmp_path / 'stopped', programs=programs)
  assert stopped['preempted'] and stopped['step'] == 4
  trainer.train(config, tmp_path / 'stopped', programs=programs)
  runs.assert_same(tmp_path / 'stopped', tmp_path / 'whole')
  saved = '\n'.join(runs.leaves(tmp_path / 'whole'))
  for name in ('/discriminator/logit', '/discriminator/real',
               '/latent/variance', '/autoencoder/decoder'):
    assert name in saved
  first, last = (runs.leaves(tmp_path / name) for name in ('stage1', 'whole'))
  for name in first:  # What stage 1 is evaluated with, as it was.
    field, _, part, *_ = name.split('/')
    if field == 'ema':
      for now in (name, name.replace('ema/', 'params/')):
        same = (first[name] == last[now]).all()
        assert same == (part in adversarial.FROZEN), now


def test_a_broken_discriminator_stops_both_players():
  run = Run()
  params = run.state.params
  params['discriminator']['logit']['bias'] = jnp.full((1,), jnp.nan)
  before = run.values()
  made = run.step()
  assert made['committed'] == 0
  assert not any(moved(before['autoencoder'], run.values()['autoencoder']))
  assert run.values('stats')['latent']['batches'] == 0


def test_micro_batches_are_accepted_where_gradients_are_means():
  """Traced: the trainer's own tests compare the values."""
  run = Run({'batch_size': 16, 'optimizer__accumulate': 2},
            r1=1.0, r1_every=1)
  state, _ = jax.eval_shape(
      step_lib.make(run.task, run.config), run.program.abstract,
      images(0, 16), {}, run.arguments)
  assert all(jax.tree.leaves(jax.tree.map(
      lambda a, b: a.shape == b.shape, state, run.program.abstract)))


def test_cost_tells_the_discriminator_and_spares_the_frozen_encoder():
  run = Run()
  costs = [adversarial.Adversarial(tiny(**opts)).cost()
           for opts in ({}, {'trained': 'all'}, {'schedule__weight': 0.0})]
  frozen, full, control = costs
  forward = full['flops']['by_part']['forward']
  size = run.task.model.size
  # Two products for each of the forward pass, but the patch embedding and the
  # code have no gradient to pass on.
  spared = 2 * forward['encoder'] - 2 * full['tokens'] * (
      size.patch_dim * size.encoder.width
      - size.channels * (4 * size.encoder.width + size.decoder.width))
  assert full['flops']['train_step'] - frozen['flops']['train_step'] == spared
  assert frozen['flops']['by_part']['train_step']['total'] == sum(
      frozen['flops']['by_part']['train_step'][part]
      for part in ('encoder', 'bottleneck', 'decoder'))
  told = frozen['losses']['discriminator']
  assert told['parameters'] == sum(
      x.size for x in jax.tree.leaves(run.state.params['discriminator']))
  assert told['train_step'] == 16 * told['macs'] > 0
  assert not control['losses'] and not control['memory']['losses']


def test_a_frozen_codebook_stays_as_it_is_and_its_decoder_accumulates():
  config = tiny({'model__name': 'A-A/1x8x4', 'model__bottleneck': 'vq',
                 'model__quantizer__size': 16, 'optimizer__accumulate': 2})
  task = tasks.build(config)
  step_lib.check_accumulation(task, 2)
  params, stats = (mesh_lib.unbox(tree) for tree in jax.jit(task.init)(
      jax.random.key(0)))
  state = base.State(step=jnp.int32(0), params=params, opt={}, ema={},
                     stats=stats)
  batch = images(0, 4) | {'row': np.arange(4)}
  result = jax.jit(task.players[0].grad)(
      state, {}, batch, jax.random.key(1), {})
  jax.tree.map(np.testing.assert_array_equal, result.stats,
               stats['autoencoder'])
  assert all(x.any() for x in jax.tree.leaves(result.grads['bottleneck_up']))
  parts = task.cost()['flops']['by_part']['train_step']
  assert parts.pop('total') == sum(parts.values())


def test_without_a_source_only_an_evaluation_is_accepted(tmp_path):
  with pytest.raises(errors.InputError, match="init_from=''.*trained='all'"):
    validation.check(tiny())
  validation.check(tiny(), 'evaluation')
  validation.check(tiny({'optimizer__groups': ()}, trained='all'))
  validation.check(tiny({'init_from': '@after'}))


@pytest.mark.parametrize('changes, told', [
    ({'model__positions': 'rope1d'}, "positions='rope1d'.*choice: rope2d$"),
    ({'model__encoder__heads': 1}, 'encoder.heads=1.*choice: 0$'),
    ({'model__name': 'Ah1-A/1x8x4'}, "name='Ah1-A/1x8x4'.*choice: A-A/1x8x4$"),
    ({'model__name': 'A-Ad2/1x8x4', 'model__decoder__heads': 1,
      'model__remat': 'full', 'model__keep': (2, 4)}, ''),
])
def test_stage_2_keeps_the_encoder_of_its_source(tmp_path, changes, told):
  """Also where parameters of another one have the same names and shapes."""
  tiny_run.make(tmp_path / 'stage1')
  for source in ('stage1', 'stage1/checkpoints/3'):
    start = changes | {'init_from': f'{tmp_path}/{source}'}
    if told:
      with pytest.raises(errors.InputError, match=told):
        trainer.train(tiny(start), tmp_path / 'run')
      start |= {'optimizer__groups': ()}
    validation.check_workdir(tmp_path / 'run', tiny(
        start, trained='all' if told else 'decoder'))


@pytest.mark.parametrize('source, subtree, message', [
    ({}, 'autoencoder/encoder', 'init_subtree.*bottleneck.*autoencoder$'),
    ({'model__encoder__depth': 2}, '', 'init_from.*encoder/blocks.*for'),
])
def test_a_frozen_part_that_is_not_taken_whole_is_refused(
    tmp_path, source, subtree, message):
  tiny_run.make(tmp_path, **source)
  run = Run()
  config = tiny({'init_from': str(tmp_path), 'init_subtree': subtree})
  with pytest.raises(errors.InputError, match=message):
    starting.from_run(run.state, config, print)
  config.adversarial.trained = 'all'
  starting.from_run(run.state, config, print)


@pytest.mark.parametrize('changes, opts, message', [
    ({'optimizer__groups': ()}, {}, 'groups.*does not freeze the encoder'),
    ({'optimizer__groups': ({'match': 'encoder/.*', 'frozen': True},)}, {},
     'groups.*does not freeze bottleneck/down/'),
    ({}, {'trained': 'both'}, "trained='both'"),
    ({}, {'schedule__start': -1}, 'schedule.start=-1'),
    ({}, {'loss': 'wgan'}, "loss='wgan'"),
    ({'batch_size': 16, 'optimizer__accumulate': 2}, {'lecam': 0.1},
     "accumulate=2.*'discriminator'"),
    ({'batch_size': 16, 'optimizer__accumulate': 2}, {'adaptive': True},
     "accumulate=2.*'autoencoder'"),
])
def test_impossible_options_are_refused(changes, opts, message):
  with pytest.raises(errors.InputError, match=message):
    Run(changes, **opts)
