"""Names of models: one grammar, read and printed in one place."""

import dataclasses
import itertools
import math
import subprocess
import sys

import pytest

from vitok import config as config_lib
from vitok import errors, sizes


def test_the_papers_names_mean_the_papers_sizes():
  size = sizes.parse('S-L/16')
  assert size.encoder == sizes.Tower(768, 6, 12)
  assert size.decoder == sizes.Tower(1152, 24, 16)
  assert (size.tubelet, size.patch, size.channels) == (1, 16, 16)
  assert size.encoder.head_dim == 64 and size.decoder.head_dim == 72


def test_two_numbers_are_tubelet_and_patch_three_add_channels():
  assert sizes.parse('S-B/4x16') == dataclasses.replace(
      sizes.parse('S-B/16'), tubelet=4)
  assert sizes.parse('S-B/1x16x64') == dataclasses.replace(
      sizes.parse('S-B/16'), channels=64)


@pytest.mark.parametrize('written, printed', [
    ('S-B/16', 'S-B/16'), ('L-L/8', 'L-L/8'), ('S-B/4x16', 'S-B/4x16'),
    ('S-B/1x16x64', 'S-B/1x16x64'), ('S-B/1x16', 'S-B/16'),
    ('S-B/1x16x16', 'S-B/16'), ('S-B/4x16x16', 'S-B/4x16'),
    ('Bd6-Sd12/16', 'S-B/16'), ('Bd3-Bm2.0/16', 'Sd3-Bm2/16'),
    ('Nw96-A/4', 'F-A/4'), ('Fw144d1-A/4', 'Aw144-A/4'),
    ('S-B/1x16+128', 'S-B/16+128'), ('S-B/4x8x64+32', 'S-B/4x8x64+32'),
    ('S-B/16+0', 'S-B/16'), ('Lw1024d24f9-Sd12m2/8', 'Lw1024f9-Bm2/8'),
])
def test_canonical_name_is_the_shortest(written, printed):
  assert str(sizes.parse(written)) == printed


def test_every_size_round_trips():
  towers = list(sizes.TOWERS.values())
  towers += [sizes.Tower(144, 3, 9), sizes.Tower(768, 6, 12, 2.5),
             sizes.Tower(64, 1, 1, 0.125), sizes.Tower(64, 1, 1, 1e-5),
             sizes.Tower(1024, 24, 16, mlp_width=2730)]
  for encoder, decoder, q, p, c, latents in itertools.product(
      towers, towers, (1, 4), (1, 16), (1, 16, 64), (0, 128)):
    size = sizes.Size(encoder, decoder, q, p, c, latents)
    assert sizes.parse(sizes.name(size)) == size


def test_vitok_v2s_letters_have_their_own_widths_and_hidden_units():
  size = sizes.parse_v2('Ld4-Ld24/1x16x64')
  assert str(size) == 'Lw1024d4m4.005-Lw1024m4.005/1x16x64'
  assert sizes.parse(str(size)) == size
  assert (size.patch, size.channels) == (16, 64)
  hidden = {}
  for letter, tower in sizes.V2_TOWERS.items():
    decoder = sizes.parse_v2(f'Bd4-{letter}/16').decoder
    assert (decoder.width, decoder.depth, decoder.heads) == (
        tower.width, tower.depth, tower.heads)
    hidden[letter] = decoder.hidden('swiglu')
    # As the release rounds.
    assert hidden[letter] == (int(2.67 * tower.width) + 8) // 16 * 16
  assert hidden == dict(B=2048, L=2736, G=4608, T=8208, E=10944)
  assert sizes.parse_v2('Bm4-B/16').encoder.hidden('swiglu') == 3072
  with pytest.raises(errors.InputError, match='B, L, G, T, E'):
    sizes.parse_v2('S-B/16')


def test_grid_tokens_and_code_size():
  image, video = sizes.parse('S-B/16'), sizes.parse('S-B/4x8')
  assert image.grid(1, 256) == (1, 16, 16)
  assert image.tokens(1, 512) == 1024
  assert image.code_floats(1, 256) == 4096
  assert image.patch_dim == 768
  assert video.grid(16, 128) == (4, 16, 16)
  assert video.patch_dim == 3 * 4 * 64


def test_latent_tokens_are_the_code_whatever_the_patches():
  size = sizes.parse('S-B/1x16x8+128')
  for resolution in (256, 512):
    assert size.tokens(1, resolution) == 128
    assert size.code_floats(1, resolution) == 1024
    assert size.patches(1, resolution) == (resolution // 16)**2


@pytest.mark.parametrize('name, frames, resolution, key, nearest', [
    ('S-B/16', 1, 250, 'config.data.resolution', 256),
    ('S-B/16', 1, 0, 'config.data.resolution', 16),
    ('S-B/4x16', 1, 256, 'config.data.frames', 4),
    ('S-B/4x16', 18, 256, 'config.data.frames', 16),
])
def test_patch_and_tubelet_must_divide(name, frames, resolution, key, nearest):
  with pytest.raises(errors.InputError) as caught:
    sizes.parse(name).grid(frames, resolution)
  assert (caught.value.key, caught.value.nearest) == (key, nearest)


def test_swiglu_costs_what_gelu_costs():
  assert sizes.TOWERS['B'].hidden('swiglu') == 2048
  assert sizes.TOWERS['L'].hidden('swiglu') == 3072
  assert sizes.TOWERS['B'].hidden('gelu') == 3072
  assert sizes.Tower(64, 1, 1).hidden('swiglu') == 176  # 170.7 rounded.


def test_no_mlp_is_without_hidden_units():
  tower = sizes.Tower(64, 1, 1, 0.001)
  assert (tower.hidden('gelu'), tower.hidden('swiglu')) == (1, 16)


@pytest.mark.parametrize('mlp', ['swiglu', 'gelu'])
def test_hidden_units_may_be_stated_to_the_unit(mlp):
  assert sizes.parse('Lw1024f2730-B/14').encoder.hidden(mlp) == 2730
  model = config_lib.default().model
  model.decoder.mlp_width = 2049
  size = sizes.from_config(model)
  assert size.decoder.hidden(mlp) == 2049 and str(size) == 'S-Bf2049/16'
  model.decoder.mlp_ratio = 2.0
  with pytest.raises(errors.InputError, match='mlp_ratio=2.0.*not read'):
    sizes.from_config(model)
  model.name = 'S-Bf2049/16'  # What a config says replaces what a name says.
  model.decoder.mlp_width = 0
  assert str(sizes.from_config(model)) == 'S-Bm2/16'
  model.decoder.update(mlp_ratio=0.0, mlp_width=-1)
  with pytest.raises(errors.InputError, match='decoder.mlp_width=-1'):
    sizes.from_config(model)


def test_heads_are_whole_on_every_device():
  size = sizes.parse('S-L/16')  # 12 and 16 heads.
  size.check_tensor(4)
  with pytest.raises(errors.InputError, match='mesh.tensor=8.*choice: 4'):
    size.check_tensor(8)


@pytest.mark.parametrize('name, nearest', [
    ('S-B', 'S-B/8'), ('s-b/16', None), ('S-Z/16', 'S-T/16'), ('', None),
    ('S-B/0', 'S-B/1'), ('S-B/1x16x0', 'S-B/1x16x1'), ('S-B/0x16', 'S-B/16'),
    ('S-B/16x', None), ('S-B/16 ', 'S-B/16'), ('Bh5-B/16', 'heads 4'),
    ('S-B/16+', None), ('S-B/16+9999999', 'S-B/16+1048576'),
    ('Bd0-B/16', None), ('S-B/1x2x3x4', None), (None, None),
])
def test_a_wrong_name_is_refused_with_a_right_one(name, nearest):
  with pytest.raises(errors.InputError) as caught:
    sizes.parse(name)
  assert caught.value.key == 'config.model.name'
  if nearest:
    assert caught.value.nearest == nearest
  assert '\n' not in str(caught.value)


def test_config_overrides_the_name():
  model = config_lib.default().model
  assert sizes.from_config(model) == sizes.parse('S-B/16')
  model.encoder.depth = 3
  model.decoder.mlp_ratio = 2.0
  size = sizes.from_config(model)
  assert str(size) == 'Sd3-Bm2/16'
  assert size.encoder == sizes.Tower(768, 3, 12)
  model.latents = 32
  assert str(sizes.from_config(model)) == 'Sd3-Bm2/16+32'
  model.name = 'S-B/16+64'
  assert sizes.from_config(model).latents == 32
  model.latents = 0
  assert sizes.from_config(model).latents == 64


def test_an_impossible_override_names_its_key():
  model = config_lib.default().model
  model.decoder.heads = 7
  with pytest.raises(errors.InputError, match='config.model.decoder.heads=7'):
    sizes.from_config(model)
  model.decoder.update(heads=0, width=1000)
  with pytest.raises(errors.InputError, match='decoder.width=1000.*width 996'):
    sizes.from_config(model)
  model.decoder.heads = -1
  with pytest.raises(errors.InputError, match='decoder.heads=-1.*choice: 1'):
    sizes.from_config(model)
  model.decoder.update(heads=0, width=0, mlp_ratio=math.nan)
  with pytest.raises(errors.InputError, match='decoder.mlp_ratio=nan'):
    sizes.from_config(model)
  model.latents = -1
  model.decoder.mlp_ratio = 0.0
  with pytest.raises(errors.InputError, match='model.latents=-1.*choice: 0'):
    sizes.from_config(model)


def test_sizes_import_no_jax():
  code = 'import sys, vitok.sizes; sys.exit("jax" in sys.modules)'
  assert subprocess.run([sys.executable, '-c', code]).returncode == 0
