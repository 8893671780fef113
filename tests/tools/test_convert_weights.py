"""`tools/convert_weights.py`: a release becomes a run, and a run a release."""

import dataclasses
import shutil

import numpy as np
import pytest
import safetensors.numpy

import vitok
from tests import tiny_run
from tools import convert_weights
from vitok import config as config_lib
from vitok import encode, errors, sizes, tasks
from vitok.interop import saved, vitok_v2, weights
from vitok.tasks import tokenizer

SIZE = sizes.parse_v2('Bw64d2h2-Bw96d1h3/1x8x4')


def write(folder, size=SIZE, change=None):
  """The files of a release with random tensors; `change` edits them."""
  rng = np.random.default_rng(0)
  tensors = {part: {
      name: (rng.standard_normal(shape) / 8).astype(np.float32)
      for name, shape in vitok_v2.shapes(size, part).items()}
      for part in vitok_v2.PARTS}
  if change:
    change(tensors)
  for part, arrays in tensors.items():
    safetensors.numpy.save_file(arrays, folder / f'{part}.safetensors')
  return tensors


def convert(folder, *arguments):
  convert_weights.main(['vitok_v2', f'--encoder={folder}/encoder.safetensors',
                        f'--decoder={folder}/decoder.safetensors',
                        f'--out={folder}/run', *arguments])


def test_a_release_loads_as_a_run_and_is_written_again(tmp_path, capsys):
  tensors = write(tmp_path)
  convert(tmp_path, '--resolution=32')
  tokenizer = vitok.load(tmp_path / 'run')
  assert tokenizer.step == 0 and tokenizer.model.size == SIZE
  image = np.random.default_rng(1).integers(0, 256, (1, 32, 48, 3), np.uint8)
  code = tokenizer.encode(image)
  assert code.z.shape == (1, 24, 4)
  np.testing.assert_allclose(code.z.mean(-1), 0, atol=1e-5)
  assert tokenizer.reconstruct(image).shape == image.shape

  again = tmp_path / 'again'
  convert_weights.main(['vitok_v2', f'--workdir={tmp_path}/run',
                        f'--out={again}'])
  assert 'step 0' in capsys.readouterr().out
  for part, given in tensors.items():
    found = safetensors.numpy.load_file(again / f'{part}.safetensors')
    assert found.keys() == given.keys()
    for name, x in found.items():
      np.testing.assert_array_equal(x, given[name], name)


def test_tubelets_of_several_frames_are_not_cut_to_the_first(tmp_path):
  tensors = write(tmp_path)
  params = vitok_v2.from_published(*(tensors[p] for p in vitok_v2.PARTS))
  for part, name, axis in (('encoder', 'embed', 0), ('decoder', 'unembed', 1)):
    layer = params[part][name]
    layer['kernel'] = layer['kernel'].repeat(2, axis)
  params['decoder']['unembed']['bias'] = np.zeros(2 * 3 * 8 * 8, np.float32)
  with pytest.raises(errors.InputError, match='2x8x4.*tubelets of 2 frames'):
    vitok_v2.to_published(params, dataclasses.replace(SIZE, tubelet=2))


def test_a_release_is_encoded_and_generated_from(tmp_path, monkeypatch):
  monkeypatch.setattr(tokenizer, 'EXAMPLES', 32)
  write(tmp_path)
  convert(tmp_path, '--resolution=32')
  made = encode.encode(tmp_path / 'run', tmp_path / 'codes', 'photographs',
                       split='test[:8]', batch_size=8)['test']
  assert made['shape'] == [16, 4] and made['count'] == 8

  def loaded(**changes):
    own = config_lib.read(tmp_path / 'run/config.json')
    config = config_lib.override(own, tiny_run.DIT | {
        'tokenizer.workdir': str(tmp_path / 'run'), 'tokenizer.sample': False,
        'data.split': 'test', **changes})
    return tasks.build(config).generator.tokenizer.reference.load()

  with pytest.raises(errors.InputError, match='without --source.*codes:DIR'):
    loaded()
  assert 'mean' not in loaded(**{'diffusion.normalise': False})
  found = loaded(**{'data.sources': (f'codes:{tmp_path}/codes',)})
  np.testing.assert_allclose(found['mean'], made['mean'], rtol=1e-5, atol=1e-7)
  shutil.rmtree(tmp_path / 'run')
  convert(tmp_path, '--resolution=32', '--source=photographs')
  assert loaded()['mean'].shape == (4,)


def test_half_precision_files_are_read(tmp_path):
  import ml_dtypes
  x = np.array([1.5, -2.0], ml_dtypes.bfloat16)
  safetensors.numpy.save_file({'a': x, 'b': x.astype(np.float16)},
                              tmp_path / 'x.safetensors')
  for found in weights.read(tmp_path / 'x.safetensors').values():
    assert found.dtype == np.float32 and found.tolist() == [1.5, -2.0]


def pop(part, name):
  return lambda tensors: tensors[part].pop(name)


def put(part, name, *shape):
  return lambda tensors: tensors[part].update(
      {name: np.zeros(shape, np.float32)})


@pytest.mark.parametrize('change, words', [
    (pop('encoder', 'to_code.bias'), 'encoder: to_code.bias: is missing'),
    (pop('encoder', 'patch_embed.weight'), 'no tensor patch_embed.weight'),
    (pop('decoder', 'decoder_blocks.0.attn.norm_q.weight'),
     'no tensor decoder_blocks.0.attn.norm_q.weight'),
    (pop('encoder', 'encoder_blocks.0.ffn.fc1.weight'),
     r'encoder_blocks.0.ffn.fc1.weight: is missing'),
    (put('decoder', 'norm.weight', 96), 'norm.weight: is not a tensor'),
    (put('encoder', 'encoder_blocks.3.norm1.weight', 64),
     r'encoder_blocks.2.* is missing \(and 14 more'),
    (put('decoder', 'decoder_embed.weight', 96, 5),
     r'decoder_embed.weight: has shape \(96, 5\), expected \(96, 4\)'),
    (put('encoder', 'patch_embed.weight', 64, 100), 'square RGB patch'),
    (put('encoder', 'encoder_blocks.1.layer_scale.gamma', 32),
     r'gamma: has shape \(32,\), expected \(64,\)'),
])
def test_files_of_another_model_are_one_clear_error(tmp_path, change, words):
  write(tmp_path, change=change)
  with pytest.raises(errors.InputError, match=words):
    tensors = [weights.read(tmp_path / f'{part}.safetensors')
               for part in vitok_v2.PARTS]
    vitok_v2.from_published(*tensors)
  with pytest.raises(SystemExit):
    convert(tmp_path)
  assert not (tmp_path / 'run').exists()


def test_command_lines_that_cannot_work_are_refused(tmp_path, capsys):
  (tmp_path / 'x').write_text('not a tensor')
  for arguments, word in (
      ([], '--encoder'), (['--encoder=a'], '--decoder'),
      (['--file=a'], '--encoder'),
      (['--encoder=a', '--decoder=b', '--workdir=c'], 'either'),
      ([f'--encoder={tmp_path}/x', '--decoder=b'], 'no safetensors file'),
      ([f'--encoder={tmp_path}/absent', '--decoder=b'], 'absent'),
      ([f'--workdir={tmp_path}/absent'], 'absent'),
      ([f'--workdir={tmp_path}/run'], 'config.model.norm')):
    if word == 'config.model.norm':  # A run of ViTok, not of ViTok-v2.
      config = config_lib.default()
      config.model.name = 'A-A/8'
      (tmp_path / 'run').mkdir()
      (tmp_path / 'run/config.json').write_text(config_lib.to_json(config))
      (tmp_path / 'run' / saved.DIRECTORY / '0').mkdir(parents=True)
    with pytest.raises(SystemExit):
      convert_weights.main(['vitok_v2', f'--out={tmp_path}/o', *arguments])
    assert word in capsys.readouterr().err
