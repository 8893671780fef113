"""`python -m vitok.reconstruct`: pictures and codes of any image or video."""

import fractions

import numpy as np
import pytest
import skimage.data
from PIL import Image

import vitok
from tests import films, runs, tiny_run
from vitok import errors, loading, reconstruct
from vitok.data import transforms, video_file
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


@pytest.fixture(scope='module')
def clips_workdir(tmp_path_factory):
  """Of a model of clips of 4 frames, every second frame of a video."""
  folder = tmp_path_factory.mktemp('clips')
  tiny_run.make(folder, model__name='P-N/2x8', model__positions='rope3d',
                data__frames=4, data__stride=2)
  return folder


def test_a_video_becomes_a_video_of_what_the_model_saw_and_gave(
    clips_workdir, photographs, tmp_path):
  film = films.write(tmp_path / 'film.mkv', films.images(21, (40, 32)), 'ffv1')
  lines = reconstruct.reconstruct(
      [photographs[0], str(film)], str(clips_workdir), out=str(tmp_path / 'o'),
      codes=str(tmp_path / 'codes.npz'))
  assert {path.name for path in (tmp_path / 'o').iterdir()} == {
      'cat.png', 'film.mp4'}
  assert ('film.mkv: 11 of 21 frames, 12.5 a second, 32x40, center crop 32x32 '
          'at 0,4, bilinear to 16x16; PSNR') in lines[1]

  # Plainly: every second frame, cropped, resized, in clips of four.
  seen = transforms.resize(films.images(21, (40, 32))[::2], (4, 0, 32, 32),
                           SIDE, 'bilinear')
  clips = np.concatenate([seen, seen[-1:]]).reshape(3, 4, SIDE, SIDE, 3)
  tokenizer = vitok.load(clips_workdir)
  expected = tokenizer.reconstruct(clips)
  mse = ((expected / 255. - clips / 255.)**2).reshape(12, -1).mean(1)[:11]
  psnr = float(lines[1].partition('PSNR ')[2].partition(' dB')[0])
  assert abs(psnr - np.mean(-10 * np.log10(mse))) < .05

  shown, times = films.decode(tmp_path / 'o' / 'film.mp4'), video_file.timeline(
      tmp_path / 'o' / 'film.mp4')
  assert shown.shape == (11, SIDE, 2 * SIDE + 4, 3)
  assert times.rate == fractions.Fraction(25, 2)
  for part, of in ((shown[:, :, :SIDE], seen), (
      shown[:, :, -SIDE:], expected.reshape(12, SIDE, SIDE, 3)[:11])):
    # The file is lossy and of little colour: compare brightness.
    assert (part.mean(-1) - of.mean(-1)).std() < 8
  with np.load(tmp_path / 'codes.npz') as stored:
    assert stored['z'].shape[0] == 1 + 3 and stored['grid'][0] == 2
    assert stored['names'].tolist() == [photographs[0]] + 3 * [str(film)]
    decoded = image_metrics.to_uint8(tokenizer.decode(stored['z'][1:]))
  assert np.abs(np.asarray(decoded).astype(int) - expected).max() <= 1


def test_a_video_of_an_image_model_is_reconstructed_frame_by_frame(
    workdir, tmp_path):
  film = films.write(tmp_path / 'a.mp4', films.images(9))
  (line, _) = reconstruct.reconstruct([str(film)], str(workdir),
                                      out=str(tmp_path / 'o'))
  assert '9 of 9 frames, 25 a second' in line
  assert len(films.decode(tmp_path / 'o' / 'a.mp4')) == 9


def test_a_frame_rate_is_kept(tmp_path):
  folder = tmp_path / 'run'
  folder.mkdir()
  config = tiny_run.make(folder, data__frame_rate=10.)
  film = films.write(tmp_path / 'a.mp4', films.flat(30))
  seen = reconstruct.see(str(film), config)
  assert seen.rate == 10 and '12 of 30 frames' in seen.told
  levels = [round(frame.mean() / 8) for frame in seen.frames()]
  assert levels == [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27]


def test_a_run_of_native_sizes_squeezes_neither_images_nor_videos(
    photographs, tmp_path):
  config = runs.tiny(evaluation__crop='native')
  film = films.write(tmp_path / 'a.mp4', films.images(2))
  for path in (photographs[0], str(film)):
    with pytest.raises(errors.InputError, match='--workdir.*own size.*load'):
      reconstruct.see(path, config)


def test_a_shorter_code_is_reconstructed_at_a_trained_length(
    photographs, tmp_path, monkeypatch, workdir):
  run = tmp_path / 'run'
  tiny_run.make(run, model__name='A-A/1x8x4+4', model__keep=(2, 4))
  codes, pictures = tmp_path / 'codes.npz', tmp_path / 'out'
  reconstruct.main([photographs[0], f'--workdir={run}', f'--codes={codes}',
                    f'--out={pictures}', '--length=2'])
  tokenizer = vitok.load(run)
  seen, _ = reconstruct.read(photographs[:1], tokenizer.config)
  with np.load(codes) as stored:
    np.testing.assert_allclose(stored['z'], tokenizer.encode(seen, 2).z,
                               atol=1e-5)
  shown = np.asarray(Image.open(pictures / 'cat.png'))[:, -SIDE:].astype(int)
  made = tokenizer.reconstruct(seen, 2)[0, 0]
  assert np.abs(shown - made).max() <= 1
  assert np.abs(made - tokenizer.reconstruct(seen)[0, 0].astype(int)).max() > 1

  monkeypatch.setattr(loading, 'load', lambda *_: pytest.fail('loaded'))
  for folder, words in ((run, r'--length=3.*keep=\(2, 4\).*choice: 2'),
                        (workdir, r'--length=3.*keep=\(\)')):
    with pytest.raises(errors.InputError, match=words):
      reconstruct.reconstruct(photographs[:1], str(folder), length=3)


@pytest.mark.parametrize('name, keep, length, grid', [
    ('A-A/1x8x4', (), None, [1, 2, 2]), ('A-A/1x8x4', (3, 4), 3, [3]),
    ('A-A/1x8x4+4', (), None, [4]), ('A-A/1x8x4+5', (2, 5), 2, [2])])
def test_a_grid_of_codes_is_that_of_their_tokens(
    photographs, tmp_path, name, keep, length, grid):
  tiny_run.make(tmp_path / 'run', model__name=name, model__keep=keep)
  reconstruct.reconstruct(
      photographs[:2], str(tmp_path / 'run'), out=str(tmp_path / 'out'),
      codes=str(tmp_path / 'codes.npz'), length=length)
  with np.load(tmp_path / 'codes.npz') as stored:
    assert stored['grid'].tolist() == grid
    assert stored['z'].shape == (2, np.prod(stored['grid']), 4)
    assert vitok.load(tmp_path / 'run').decode(stored['z']).shape == (
        2, 1, SIDE, SIDE, 3)


@pytest.mark.parametrize('content', [b'', b'not a video'])
def test_an_unreadable_video_is_refused_before_anything_is_loaded(
    workdir, tmp_path, monkeypatch, capsys, content):
  monkeypatch.setattr(loading, 'load', lambda *_: pytest.fail('loaded'))
  (tmp_path / 'a.mp4').write_bytes(content)
  with pytest.raises(SystemExit) as left:
    reconstruct.main([str(tmp_path / 'a.mp4'), f'--workdir={workdir}'])
  assert left.value.code == 2
  error = capsys.readouterr().err
  assert 'a.mp4: cannot be read as a video' in error.replace("'", '')
  assert error.count('\n') == 1


def test_pictures_never_replace_what_they_show(workdir, photographs, tmp_path):
  before = {path: open(path, 'rb').read() for path in photographs}
  with pytest.raises(errors.InputError, match='clear.png.*reconstructions'):
    reconstruct.reconstruct([photographs[2]], str(workdir), out=str(tmp_path))
  assert {path: open(path, 'rb').read() for path in photographs} == before


@pytest.mark.parametrize('flag', ['out', 'codes'])
def test_outputs_that_cannot_be_written_are_refused_first(
    workdir, photographs, tmp_path, flag):
  below = f'{photographs[0]}/x' + '/codes.npz' * (flag == 'codes')
  with pytest.raises(errors.InputError, match=f'--{flag}.*cannot be made'):
    reconstruct.reconstruct(photographs[:1], str(workdir), **{
        'out': str(tmp_path / 'o'), flag: below})
