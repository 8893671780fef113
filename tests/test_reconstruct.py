"""`python -m vitok.reconstruct`: pictures and codes of any image."""

import numpy as np
import pytest
import skimage.data
from PIL import Image

import vitok
from tests import tiny_run
from vitok import errors, loading, reconstruct
from vitok.metrics import image as image_metrics

SIDE = tiny_run.SIDE


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  tiny_run.make(folder)
  return folder


@pytest.fixture
def photographs(tmp_path):
  """Images of several sizes, modes and formats, two of one stem."""
  image = Image.fromarray(skimage.data.chelsea())
  (tmp_path / 'grey').mkdir()
  paths = [tmp_path / 'cat.jpg', tmp_path / 'grey' / 'cat.png',
           tmp_path / 'clear.png', tmp_path / 'small.png']
  image.save(paths[0])
  image.convert('L').rotate(90, expand=True).save(paths[1])
  image.convert('RGBA').save(paths[2])
  image.resize((9, 12)).save(paths[3])
  return [str(path) for path in paths]


def test_side_by_side_shows_what_the_model_saw_and_gave(workdir, photographs,
                                                        tmp_path):
  out, codes = tmp_path / 'out', tmp_path / 'codes.npz'
  lines = reconstruct.reconstruct(photographs, str(workdir), out=str(out),
                                  codes=str(codes))
  assert {path.name for path in out.iterdir()} == {
      'cat.png', 'cat_2.png', 'clear.png', 'small.png'}
  assert '451x300, center crop 300x300 at 75,0, bilinear to 16x16' in lines[0]
  assert 'PSNR' in lines[0] and 'SSIM' in lines[0]

  tokenizer = vitok.load(workdir)
  with np.load(codes) as stored:
    assert stored['names'].tolist() == photographs
    assert stored['grid'].tolist() == [1, 2, 2] and stored['step'] == 3
    decoded = image_metrics.to_uint8(tokenizer.decode(stored['z']))
  for i, name in enumerate(('cat', 'cat_2', 'clear', 'small')):
    picture = np.asarray(Image.open(out / f'{name}.png'))
    assert picture.shape[:2] == (SIDE, 2 * SIDE + 4)
    left, right = picture[:, :SIDE], picture[:, -SIDE:]
    difference = np.abs(right.astype(int) - np.asarray(decoded)[i, 0])
    assert difference.max() <= 1  # Another batch size, another rounding.
    seen, _ = reconstruct.read([photographs[i]], tokenizer.config)
    np.testing.assert_array_equal(left, seen[0, 0])


def test_more_images_than_a_batch_are_all_reconstructed(workdir, photographs,
                                                        tmp_path):
  many = photographs * 3
  reconstruct.reconstruct(many, str(workdir), out=str(tmp_path / 'out'))
  assert len(list((tmp_path / 'out').iterdir())) == len(many)


def test_pictures_lie_in_the_workdir_by_default(workdir, photographs):
  reconstruct.reconstruct(photographs[:1], str(workdir))
  assert (workdir / 'reconstructions' / 'cat.png').exists()


@pytest.mark.parametrize('name, content, message', [
    ('broken.png', b'not an image', 'cannot be read as an image'),
    ('cut.jpg', None, 'cannot be read as an image'),
    ('cta.jpg', '', 'no such file.*cat.jpg'),
])
def test_an_unreadable_image_is_refused_before_anything_is_loaded(
    workdir, photographs, tmp_path, monkeypatch, capsys, name, content,
    message):
  monkeypatch.setattr(loading, 'load', lambda *_: pytest.fail('loaded'))
  path = tmp_path / name
  if content != '':
    path.write_bytes(content or open(photographs[0], 'rb').read()[:5000])
  with pytest.raises(SystemExit) as left:
    reconstruct.main([photographs[0], str(path), f'--workdir={workdir}'])
  assert left.value.code == 2
  error = capsys.readouterr().err
  assert name in error and error.count('\n') == 1
  with pytest.raises(errors.InputError, match=message):
    reconstruct.read([str(path)], loading.read_config(workdir))


def test_a_trained_model_takes_no_config(workdir, photographs, capsys):
  with pytest.raises(SystemExit) as left:
    reconstruct.main([*photographs, f'--workdir={workdir}',
                      '--config.seed=1'])
  assert left.value.code == 2
  assert '--config.seed' in capsys.readouterr().err
