"""A generator of codes: what it is trained on, and samples that are its own."""

import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from tests import runs, tiny_run
from vitok import config as config_lib
from vitok import data, encode, errors, evaluate, files, sample, tasks
from vitok.data import codes
from vitok.interop import saved
from vitok.tasks import base, generation, samples
from vitok.training import program, trainer


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder with the finished 'tokenizer', of initial parameters."""
  with tiny_run.tokenized(tmp_path_factory.mktemp('generation')) as folder:
    yield folder


def config(place, **changes):
  return config_lib.override(runs.tiny(
      tokenizer__workdir=str(place / 'tokenizer')), tiny_run.DIT | {
          key.replace('__', '.'): value for key, value in changes.items()})


def labelled(root):
  """A source of twelve images of two classes, in a new folder `root`."""
  for i in range(12):
    image = root / 'train' / 'ab'[i % 2] / f'{i:02}.png'
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(i).integers(
        0, 256, (20, 16, 3), np.uint8)).save(image)
  return f'folder:{root}'


def guided(place, **changes):
  """Of images with labels, and numbers of guided samples."""
  return config(place, **{
      'data__sources': (f'folder:{place}/images',), 'diffusion__classes': 2,
      'evaluation__split': 'train', 'evaluation__numbers': ('gkid', 'gfid'),
      'generation__guidance': (2.0,), **changes})


@pytest.fixture(scope='module')
def trained(place):
  """The workdir of four updates, with numbers of stand-ins at the end."""
  labelled(place / 'images')
  tiny_run.train(guided(place), place / 'run')
  return place / 'run'


def built(place, **changes):
  made = config(place, **changes)
  task = tasks.build(made)
  return task, {name: ref.load() for name, ref in task.weights.items()}


def test_codes_are_posterior_samples_of_their_own_keys(place):
  task, frozen = built(place)
  frozen = frozen['tokenizer']
  batch = data.host_batch(config(place), 0)
  keys = base.example_keys(jax.random.key(3), jnp.arange(8))
  codes_of = jax.jit(lambda frozen, image, keys: task.generator.codes(
      frozen, {'image': image}, keys))
  made = np.asarray(codes_of(frozen, batch['image'], keys))
  code = jax.jit(lambda variables, image, keys:
                 task.generator.tokenizer.model.apply(
                     variables, image, keys=keys, train=True, method='encode')
                 )(frozen['variables'], batch['image'], keys)
  np.testing.assert_allclose(
      made, (code.z - frozen['mean']) / frozen['deviation'], atol=1e-5)
  # Of an example, not of its place in a batch.
  np.testing.assert_allclose(
      codes_of(frozen, batch['image'][::-1], keys[::-1])[::-1], made, atol=1e-5)
  other = codes_of(frozen, batch['image'], keys[::-1])
  assert np.abs(other - made).max() > 0.1


def test_channels_have_mean_0_and_variance_1_on_the_tokenizers_data(place):
  task, frozen = built(place, tokenizer__sample=False)
  image = np.concatenate([data.host_batch(config(
      place, batch_size=32), step)['image'] for step in range(2)])
  both = jax.jit(lambda frozen: [of(frozen, {'image': image}, None) for of in (
      task.generator.tokenizer.encode, task.generator.codes)])
  z, normal = (np.asarray(z, np.float64).reshape(-1, 4)
               for z in both(frozen['tokenizer']))
  found = json.loads((place / 'tokenizer/latents/3-mean.json').read_text())
  np.testing.assert_allclose(found['mean'], z.mean(0), atol=1e-6)
  np.testing.assert_allclose(found['deviation'], z.std(0), rtol=1e-5)
  np.testing.assert_allclose(normal.std(0), 1, atol=1e-4)


def test_statistics_are_measured_once(place, monkeypatch):
  _, first = built(place)
  monkeypatch.setattr(data, 'host_batch', None)  # The data may be gone.
  _, second = built(place)
  for name in ('mean', 'deviation'):
    np.testing.assert_array_equal(first['tokenizer'][name],
                                  second['tokenizer'][name])


def test_a_new_dit_is_as_wrong_as_the_noise_is_large(place):
  """It outputs zero, so its loss is the mean square of what it predicts."""
  task, frozen = built(place)
  batch = dict(data.host_batch(config(place), 0),
               row=jnp.arange(8, dtype=jnp.int32))
  key = jax.random.key(7)

  @jax.jit
  def first(frozen, batch):
    params, stats = task.init(jax.random.key(0))
    state = base.State(
        step=jnp.int32(0), params=program.mesh_lib.unbox(params), opt={},
        ema={}, stats=stats)
    keys = base.example_keys(jax.random.fold_in(key, 0), batch['row'])
    noise = jax.vmap(lambda key: jax.random.normal(
        jax.random.fold_in(key, 1), (4, 4)))(keys)
    return task.players[0].grad(state, frozen, batch, key, {}), noise

  result, noise = first(frozen, batch)
  np.testing.assert_allclose(result.metrics['loss'], np.square(noise).mean(),
                             rtol=1e-5)
  # Only what comes after zeros has a gradient.
  assert np.abs(result.grads['unembed']['bias']).max() > 1e-3
  assert not np.abs(result.grads['embed']['kernel']).any()


def test_labels_that_are_none_count_as_the_null_class(place):
  label = jnp.array([-1, 0, 2])
  for classes, seen in ((3, [3, 0, 2]), (0, [0, 0, 0])):
    made = config(place, diffusion__classes=classes)
    task = tasks.build(made)
    assert task.generator.labels({'label': label}).tolist() == seen
    assert task.generator.network.classes == classes


def test_guidance_of_1_is_none_and_no_sample_depends_on_its_batch(place):
  task, frozen = built(place, diffusion__classes=3)
  generator = task.generator
  rng = np.random.default_rng(0)  # Nothing zero: neither gates nor output.
  params = jax.tree.map(
      lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32),
      program.mesh_lib.unbox(jax.eval_shape(generator.init,
                                            jax.random.key(0))))

  @jax.jit
  def make(numbers, scale):
    keys = base.example_keys(jax.random.key(1), numbers)
    return generator.sample(params, frozen['tokenizer'], keys, numbers % 3,
                            scale)

  numbers = np.arange(16)
  everything = np.asarray(make(numbers, np.float32(2)))
  scale = np.abs(everything).max()
  for start in (0, 13):
    np.testing.assert_allclose(
        make(numbers[start:start + 3], np.float32(2)) / scale,
        everything[start:start + 3] / scale, atol=2e-5)
  unguided = np.asarray(jax.jit(lambda numbers: generator.sample(
      params, frozen['tokenizer'], base.example_keys(
          jax.random.key(1), numbers), numbers % 3, 1))(numbers))
  np.testing.assert_allclose(make(numbers, np.float32(1)) / scale,
                             unguided / scale, atol=2e-5)
  assert np.abs(unguided - everything).max() > 1e-2 * scale


def test_a_run_logs_losses_by_noise_and_numbers_by_guidance(trained):
  line = runs.lines(trained)[-1]
  assert {f'eval/loss@{time}' for time in samples.TIMES} <= line.keys()
  assert line['eval/gkid'] == line['eval/gkid@2'] and 'eval/gfid' in line
  assert line['eval/count'] == 4
  stored = json.loads((trained / 'evaluation/protocol.json').read_text())
  assert stored['ids']['gkid'] == line['eval/gkid_protocol']
  assert stored['numbers']['gkid']['data'] == (
      'samples of labels 0..1 in turn, by ddim in 3 steps, guidance 2 at times '
      '0 to 1')
  assert stored['numbers']['gkid']['count'] == 5
  assert (trained / 'evaluation/4.png').exists()
  model = json.loads((trained / 'model.json').read_text())
  assert model['tokenizer']['encode'] > 0 and model['code_floats'] == 16


def test_a_scale_of_guidance_has_one_protocol_whatever_is_beside_it(trained):
  alone = json.loads((trained / 'evaluation/protocol.json').read_text())['ids']
  both = evaluate.evaluate(trained, devices=jax.devices()[:1], changes={
      'generation.guidance': (1.0, 2.0)})['protocol']['ids']
  assert alone['gkid'] != alone['gfid'] and both['gkid@1'] != both['gkid@2']
  assert both['gkid@2'] == alone['gkid@2']
  # The plain name is that of the first scale.
  numbers = json.loads(
      (trained / 'evaluation/protocol.json').read_text())['numbers']
  assert numbers['gkid'] == numbers['gkid@2']


def test_the_tokenizer_is_in_no_checkpoint_but_its_hash_is(place, trained):
  _, meta, _ = saved.restore_params(trained)
  ref = tasks.build(config(place)).weights['tokenizer']
  assert meta['frozen']['tokenizer'] == ref.content
  assert {name.split('/')[1] for name in runs.leaves(trained)} == {'dit'}


def test_a_resumed_run_is_the_run_and_takes_no_other_tokenizer(
    place, trained, tmp_path):
  again = tmp_path / 'again'
  tiny_run.resume(guided(place), trained, again)
  runs.assert_same(again, trained)
  (again / trainer.DONE).unlink()
  other = tmp_path / 'tokenizer'
  tiny_run.make(other, seed=1, data__crop='center', data__flip=False)
  files.write_text(other / trainer.DONE, '{}')
  stored = (again / 'config.json').read_text()
  files.write_text(again / 'config.json', stored.replace(
      str(place / 'tokenizer'), str(other)))
  with pytest.raises(saved.CheckpointError, match='another network'):
    tiny_run.train(guided(place, tokenizer__workdir=str(other)), again)


def test_a_signal_is_seen_between_two_batches_of_samples(
    place, tmp_path, monkeypatch):
  made, batches = [], samples.Samples.samples

  def signalled(self, *arguments):
    for image in batches(self, *arguments):
      made.append(len(image))
      signal.raise_signal(signal.SIGTERM)
      yield image
  monkeypatch.setattr(samples.Samples, 'samples', signalled)
  stopped = tiny_run.train(config(place, generation__count=24), tmp_path)
  assert stopped == {'step': 0, 'preempted': True}
  assert made == [8]  # Of three such batches.
  assert saved.restore_params(tmp_path)[2] == 0


def test_numbers_do_not_depend_on_the_batch_size_or_the_devices(
    place, trained):
  one = evaluate.evaluate(trained, changes={  # Of eight devices.
      'generation.batch_size': 16})['metrics']
  other = runs.lines(trained)[-1]  # Of one device and batches of eight.
  for name in ('gkid@2', 'gfid@2', 'loss'):
    # Samples differ by 1e-5, which moves a level of 255 now and then.
    assert one[f'eval/{name}'] == pytest.approx(other[f'eval/{name}'],
                                                rel=1e-4, abs=1e-6)


def test_samples_that_are_made_otherwise_replace_no_numbers_of_the_run(
    trained):
  before = (trained / 'evaluation/protocol.json').read_text()
  found = evaluate.evaluate(trained, devices=jax.devices()[:1], changes={
      'diffusion.sampler': 'euler', 'diffusion.steps': 2})
  assert found['folder'].startswith(str(trained / 'evaluations'))
  assert (trained / 'evaluation/protocol.json').read_text() == before
  ids = json.loads(before)['ids']
  assert ids['gkid'] != found['protocol']['ids']['gkid']
  assert ids['psnr'] == found['protocol']['ids']['psnr']  # Of the originals.


def test_the_command_writes_the_samples_that_training_shows(trained, tmp_path):
  one = jax.devices()[:1]
  made = sample.sample(trained, tmp_path, devices=one, count=3, batch_size=2)
  assert made['images'].shape == (3, 1, 16, 16, 3)
  stored = np.load(tmp_path / 'samples.npz')
  np.testing.assert_array_equal(stored['images'], made['images'])
  assert sorted(path.name for path in tmp_path.glob('*.png')) == [
      '00000.png', '00001.png', '00002.png', 'grid.png']
  other = sample.sample(trained, tmp_path, devices=one, count=1, seed=1)
  assert (other['images'] != made['images'][:1]).any()
  for changes, flag in ((dict(steps=0), '--steps'), (dict(count=0), '--count'),
                        (dict(sampler='ddmp'), '--sampler'),
                        (dict(labels=(3,)), '--labels')):
    with pytest.raises(errors.InputError) as caught:
      sample.sample(trained, tmp_path / 'other', **changes)
    assert caught.value.key == flag and not (tmp_path / 'other').exists()


def test_a_tokenizers_numbers_and_native_crops_are_not_taken_over(tmp_path):
  tiny_run.finished(tmp_path, data__crop='native', evaluation__crop='native',
                    evaluation__numbers=('released_psnr',))
  made = config_lib.load(f'configs/dit.py:F:{tmp_path}')
  assert made.model.name == runs.TINY['model.name']
  assert made.evaluation.numbers == ()
  assert made.data.crop == made.evaluation.crop == 'center'


def test_samples_are_of_one_scale(trained, tmp_path):
  with pytest.raises(errors.InputError, match='--guidance=.*than one scale'):
    sample.sample(trained, tmp_path / 'other', guidance='1,2')


def test_samples_without_classes_are_not_guided(place, tmp_path):
  (tmp_path / 'checkpoints/4').mkdir(parents=True)
  files.write_text(tmp_path / 'config.json', config_lib.to_json(config(place)))
  with pytest.raises(errors.InputError, match='--guidance=.*needs classes'):
    sample.sample(tmp_path, guidance=2.0)


def test_cached_codes_train_as_codes_made_in_the_step(place, tmp_path):
  source = labelled(tmp_path / 'images')  # Of photographs one sees windows.
  folder = tmp_path / 'codes'
  made = encode.encode(place / 'tokenizer', folder, batch_size=8,
                       source=source, split='train')['train']
  assert made['shape'] == [4, 4] and made['labelled'] and made['count'] == 12
  same = dict(tokenizer__sample=False, evaluation__split='train',
              diffusion__classes=2)
  direct = config(place, data__sources=(source,), **same)
  cached = config(place, data__sources=(f'codes:{folder}',), **same)
  _, frozen = built(place, tokenizer__sample=False)
  encoded = jax.jit(lambda frozen, batch: tasks.build(
      direct).generator.codes(frozen, batch, None))
  for step in (0, 5):
    one, other = data.host_batch(direct, step), data.host_batch(cached, step)
    for name in ('index', 'label'):
      np.testing.assert_array_equal(one[name], other[name])
    z = encoded(frozen['tokenizer'], {'image': one['image']})
    cut = encoded(frozen['tokenizer'], {'code': other['code']})
    np.testing.assert_allclose(z, cut, atol=1e-5)
  tiny_run.train(cached, tmp_path / 'cached')
  line = runs.lines(tmp_path / 'cached')[-1]
  assert line['train/loss'] < 2 and line['eval/loss'] < 2
  with pytest.raises(errors.InputError, match='holds means'):
    tasks.build(config(place, data__sources=(f'codes:{folder}',),
                       evaluation__split='train'))
  path = folder / 'codes-train.json'
  path.write_text(path.read_text().replace(made['sha256'], 'f' * 64))
  with pytest.raises(errors.InputError, match='another tokenizer'):
    tasks.build(cached)


def test_a_split_of_codes_without_its_manifest_is_refused(tmp_path):
  rows = [(np.full((2, 3), i, np.float32), i) for i in range(3)]
  codes.write(tmp_path, 'train', 4, [*rows, None], {'sha256': ''})
  source = codes.Codes(str(tmp_path), 'train', 0, False)
  assert len(source) == 3 and source.classes is None
  assert [source.read(i, None)[1] for i in range(3)] == [0, 1, 2]
  np.testing.assert_array_equal(source.read(2, None)[0], rows[2][0])
  with pytest.raises(errors.InputError, match='found 1 split'):
    codes.Codes(str(tmp_path), 'test', 0, False)
  (tmp_path / 'codes-train.json').unlink()
  with pytest.raises(errors.InputError, match='no finished codes'):
    codes.Codes(str(tmp_path), 'train', 0, False)


def test_two_clusters_of_codes_are_both_generated_by_their_labels(place):
  """300 updates; within 4 deviations of a cluster, and all of its label."""
  made = config(place, diffusion__classes=2, diffusion__schedule='flow',
                diffusion__prediction='velocity', diffusion__normalise=False,
                diffusion__sampler='euler', diffusion__steps=16)
  task = tasks.build(made)
  generator, frozen = task.generator, {'tokenizer': {}}
  centre = jnp.array([[-2.0] * 4, [2.0] * 4])
  optimizer = optax.adam(3e-3)
  params, _ = jax.jit(lambda key: program.mesh_lib.unbox(task.init(key)))(
      jax.random.key(0))

  def batch(key, size):
    label = jnp.arange(size) % 2
    return dict(code=centre[label][:, None] + 0.1 * jax.random.normal(
        key, (size, 4, 4)), label=label, mask=jnp.ones(size, bool),
        row=jnp.arange(size, dtype=jnp.int32))

  @jax.jit
  def train(params):
    def update(carry, number):
      params, opt = carry
      key = jax.random.fold_in(jax.random.key(1), number)
      state = base.State(step=number, params=params, opt={}, ema={},
                         stats={generation.PLAYER: {}})
      result = task.players[0].grad(state, frozen, batch(key, 64), key, {})
      updates, opt = optimizer.update({generation.PLAYER: result.grads}, opt)
      return (optax.apply_updates(params, updates), opt), result.metrics['loss']
    return jax.lax.scan(update, (params, optimizer.init(params)),
                        jnp.arange(300))

  (params, _), loss = train(params)
  assert loss[-20:].mean() < 0.15 * loss[0]
  generator.tokenizer.decode = lambda frozen, z: z
  keys = base.example_keys(jax.random.key(2), jnp.arange(60))
  label = jnp.arange(60) % 3 - 1  # No class, the first, the second.
  z = np.asarray(jax.jit(lambda params: generator.sample(
      params, {}, keys, label, 1))(params[generation.PLAYER])).mean((1, 2))
  near = np.abs(np.abs(z) - 2) < 0.4
  assert near[label >= 0].all() and near.mean() > 0.9
  np.testing.assert_array_equal(z[label >= 0] > 0, label[label >= 0] == 1)
  # Without a class both come; 20 fair draws are all alike once in 500 000.
  assert len(set(z[label < 0] > 0)) == 2
