"""Shows images and videos through a tokenizer:

  python -m vitok.reconstruct FILE... --workdir=DIR

  --checkpoint=STEP   this one; by default the newest whole one
  --out=DIR           where the pictures go; by default
                      <workdir>/reconstructions
  --codes=FILE.npz    also writes the codes
  --length=N          tokens of the code that are kept, of a model that was
                      trained with `config.model.keep`: one of those lengths

A file of any size is treated as the run's evaluation treats it: the crop of
`config.evaluation.crop` (the largest centred square by default) is resized
with `config.evaluation.filter` to the trained resolution. Each picture has what
the model saw on the left and its reconstruction on the right, and is printed
with its PSNR and SSIM.

A video becomes a video (.mp4). Its frames are taken at the run's
`config.data.stride` or `frame_rate` and cut into clips of `config.data.frames`,
one after the other; the last clip is filled up with its last frame, which
is neither shown nor measured again. A model of clips sees an image as it does
in training: as a still clip, of which the first frame is shown.

The codes: `z` (N, L, c) float32 (latent means), `ids` if the code is discrete,
`names` (N,) (a video has a row for each clip), `step`, and `grid`, in which the
L tokens lie: (3,) along time, height and width, in this order, or (1,), only L,
where they are a list: of a model with latent tokens, and where `--length` cuts
the code. `vitok.load(workdir).decode(z)` inverts them.

N: images or clips. B: rows of a batch. T: frames of a clip. S: side, pixels.
"""

import contextlib
import dataclasses
import fractions
import itertools
import math
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from vitok import config as config_lib
from vitok import errors

_BATCH = 8  # Of one size, so that any number of clips compiles once.
_GAP = 4  # White pixels between original and reconstruction.


@dataclasses.dataclass(frozen=True)
class Seen:
  """A file as the model sees it.

  Attributes:
    path: of the file.
    told: how it was cut, for people.
    frames: makes its frames, uint8 (S, S, 3).
    rate: frames a second of a video; `None` for an image.
  """
  path: str
  told: str
  frames: Callable[[], Iterator[np.ndarray]]
  rate: fractions.Fraction | None = None

  def clips(self, length: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields (uint8 (T, S, S, 3), how many of its frames are the file's)."""
    frames = self.frames()
    while clip := list(itertools.islice(frames, length)):
      yield np.stack(clip + [clip[-1]] * (length - len(clip))), len(clip)


def see(path: str, config: Any) -> Seen:
  """Looks at an image or a video as the evaluation of a run does.

  Args:
    path: an image file in any format that Pillow reads, or a video file in any
      that FFmpeg reads, told apart by their endings.
    config: of the run.

  Raises:
    InputError: a file that is missing or cannot be read, or a run that keeps
      images at their own size.
  """
  from vitok.data import video_file
  if pathlib.Path(path).suffix.lower() in video_file.ENDINGS:
    return _see_video(path, config)
  images, (told,) = read([path], config)
  return Seen(path, told, lambda: iter(images[0]))


def read(paths: Sequence[str], config: Any) -> tuple[np.ndarray, list[str]]:
  """Reads images as the evaluation of a run does.

  Args:
    paths: image files in any format that Pillow reads.
    config: of the run.

  Returns:
    uint8 (N, 1, S, S, 3), and one line for each: how it was cut.

  Raises:
    InputError: a file that is missing or cannot be read, or a run that keeps
      images at their own size.
  """
  from vitok.data import transforms
  evaluation, size = config.evaluation, config.data.resolution
  _check_crop(config)
  crop_of = transforms.crop(evaluation.crop)
  images, told = [], []
  for path in paths:
    path = _file(path)
    seen = []

    def crop(height, width, rng, seen=seen):
      seen[:] = height, width, crop_of(height, width, rng)
      return seen[-1]

    try:
      images.append(transforms.decode(path.read_bytes(), crop, None, size,
                                      evaluation.filter, fast=False))
    except Exception as error:  # Pillow raises many kinds for broken files.
      raise errors.InputError(
          'FILE', str(path),
          f'cannot be read as an image: {type(error).__name__}: {error}'
      ) from error
    told.append(_told(config, *seen))
  return np.stack(images), told


def names(paths: Sequence[str]) -> list[str]:
  """File names for what is written: stems, numbered where two are equal."""
  taken: list[str] = []
  for path in paths:
    stem = name = pathlib.Path(path).stem
    number = 2
    while name in taken:
      name, number = f'{stem}_{number}', number + 1
    taken.append(name)
  return taken


def reconstruct(paths: Sequence[str], workdir: str,
                checkpoint: int | None = None, out: str = '',
                codes: str = '', length: int | None = None) -> list[str]:
  """Writes a side-by-side of each file; returns a line about each.

  Args:
    paths: of the files.
    workdir: of the run.
    checkpoint: step; by default the newest whole checkpoint.
    out: folder of the pictures; by default `<workdir>/reconstructions`.
    codes: file of the codes; '': they are not written.
    length: tokens of the code that are kept; `None` is all.

  Raises:
    InputError: before a device is touched, for a file that cannot be read, no
      run, no such checkpoint, or a length that the run was not trained with.
  """
  from vitok import loading
  from vitok.data import video_file
  from vitok.metrics import files as metric_files
  config = loading.read_config(workdir, checkpoint)
  _check_length(length, config.model.keep)
  files = [see(path, config) for path in paths]
  out = epath.Path(out or epath.Path(workdir) / 'reconstructions')
  _check_outputs(paths, out, codes)
  tokenizer = loading.load(workdir, checkpoint)
  measured = [_Measured() for _ in files]
  images = [i for i, seen in enumerate(files) if seen.rate is None]
  stills = (clip for i in images for clip in files[i].clips(config.data.frames))
  taken = dict(enumerate(names(paths)))
  for i, row in zip(images, _rows(tokenizer, stills, length), strict=True):
    (picture,) = measured[i].add(row)
    metric_files.write_png(out / f'{taken[i]}.png', picture)
  for i, seen in enumerate(files):
    if seen.rate is not None:
      clips = _rows(tokenizer, seen.clips(config.data.frames), length)
      video_file.write(out / f'{taken[i]}.mp4', (
          picture for row in clips for picture in measured[i].add(row)),
          seen.rate)
  lines = [f'{seen.path}: {seen.told}; {quality}'
           for seen, quality in zip(files, measured, strict=True)]
  if codes:
    rows = [row for quality in measured for row in quality.codes]
    arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    metric_files.write_arrays(codes, {
        **arrays, 'names': np.array([
            str(path) for path, quality in zip(paths, measured, strict=True)
            for _ in quality.codes]),
        'grid': np.array(_grid(tokenizer.model, arrays['z'].shape[1])),
        'step': np.array(tokenizer.step)})
    lines.append(f'codes {arrays["z"].shape}: {codes}')
  return [*lines, f'pictures: {out}']


def _grid(model, tokens):
  """In which tokens of a code lie; a list has no more than a length."""
  whole = tokens == math.prod(model.grid) and not model.size.latents
  return model.grid if whole else (tokens,)


def _check_crop(config):
  """Refuses to cut squares for a model of images at their own size."""
  from vitok.data import native
  if config.evaluation.crop == native.CROP:
    raise errors.InputError(
        '--workdir', None, 'holds a run that keeps images at their own size',
        'vitok.load(workdir).reconstruct(images)')


def _check_length(length, keep):
  if length is not None and length not in keep:
    raise errors.InputError(
        '--length', length, f'is none of config.model.keep={tuple(keep)}, to '
        'which codes were cut in training',
        min(keep, key=lambda n: abs(n - length), default=None))


def _check_outputs(paths, out, codes):
  """Refuses folders that cannot be made, and pictures in place of a file."""
  for key, folder in (('--out', out), ('--codes', pathlib.Path(codes).parent)):
    try:
      epath.Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise errors.InputError(
          key, codes if key == '--codes' else str(out),
          f'{folder} cannot be made: {error.strerror or error}') from error
  for path in map(pathlib.Path, paths):
    if path.resolve().parent == pathlib.Path(out).resolve():
      raise errors.InputError('--out', str(out), f'holds {path}, which a '
                              'picture could replace', f'{out}/reconstructions')


class _Measured:
  """Quality and codes of one file, as its clips come in.

  Attributes:
    codes: {'z' (L, c), perhaps 'ids'} of each clip.
  """

  def __init__(self):
    self.codes, self._psnr, self._ssim = [], [], []

  def add(self, row):
    """Takes a row of `_rows`; yields its frames, side by side."""
    original, decoded, psnr_T, ssim_T, code, count = row
    self.codes.append(code)
    self._psnr += psnr_T[:count].tolist()
    self._ssim += ssim_T[:count].tolist()
    white = np.full((original.shape[1], _GAP, 3), 255, np.uint8)
    for x, y in zip(original[:count], decoded[:count], strict=True):
      yield np.concatenate([x, white, y], axis=1)

  def __str__(self):
    told = f'PSNR {np.mean(self._psnr):.2f} dB'
    return told + f', SSIM {np.mean(self._ssim):.4f}' * bool(self._ssim)


def _rows(tokenizer: Any, clips: Iterable[tuple[np.ndarray, int]],
          length: int | None):
  """Reconstructs clips, `_BATCH` at a time.

  Yields:
    (clip and its reconstruction uint8 (T, S, S, 3), PSNR (T,), SSIM (T,) or
    (0,), code {'z' (L, c), 'ids'}, how many frames count).
  """
  from vitok.metrics import image as metrics
  clips = iter(clips)
  while group := list(itertools.islice(clips, _BATCH)):
    batch = np.stack([clip for clip, _ in group])
    batch = np.pad(batch, [(0, _BATCH - len(group))] + 4 * [(0, 0)])
    code = tokenizer.encode(batch, length)
    decoded = metrics.to_uint8(tokenizer.decode(code))
    # Each frame as an image: the frames that fill up a clip do not count.
    x, y = (a.reshape(-1, 1, *a.shape[2:]) for a in (batch, decoded))
    psnr_BxT = np.asarray(metrics.psnr(x, y)).reshape(_BATCH, -1)
    ssim_BxT = (np.asarray(metrics.ssim(x, y)).reshape(_BATCH, -1)
                if metrics.has_ssim(x.shape) else np.zeros((_BATCH, 0)))
    decoded = np.asarray(decoded)
    arrays = {name: np.asarray(array) for name, array in
              (('z', code.z), ('ids', code.ids)) if array is not None}
    for i, (clip, count) in enumerate(group):
      yield (clip, decoded[i], psnr_BxT[i], ssim_BxT[i],
             {name: array[i] for name, array in arrays.items()}, count)


def _see_video(path, config):
  from vitok.data import clips, transforms, video_file
  data, evaluation = config.data, config.evaluation
  _check_crop(config)
  _file(path)
  with _reading(path):
    times = video_file.timeline(path)
    numbers = clips.Clips(
        stride=data.stride, frame_rate=data.frame_rate).along(
            len(times), times.seconds).tolist()
    height, width, _ = next(video_file.frames(path, times, numbers)).shape
  box = transforms.crop(evaluation.crop)(height, width, None)

  def frames():
    with _reading(path):
      for image in video_file.frames(path, times, numbers):
        yield transforms.resize(image[None], box, data.resolution,
                                evaluation.filter)[0]
  rate = (fractions.Fraction(data.frame_rate) if data.frame_rate
          else times.rate / data.stride)
  told = f'{len(numbers)} of {len(times)} frames, {float(rate):.4g} a second, '
  return Seen(path, told + _told(config, height, width, box), frames, rate)


@contextlib.contextmanager
def _reading(path):
  try:
    yield
  except Exception as error:  # FFmpeg raises many kinds for broken files.
    raise errors.InputError(
        'FILE', str(path),
        f'cannot be read as a video: {type(error).__name__}: {error}'
    ) from error


def _file(path):
  path = pathlib.Path(path)
  if not path.is_file():
    folder = path.parent if path.parent.is_dir() else pathlib.Path('.')
    near = errors.nearest(path.name, sorted(
        f.name for f in folder.iterdir() if f.is_file()))
    raise errors.InputError('FILE', str(path), 'no such file',
                            near and str(folder / near))
  return path


def _told(config, height, width, box):
  evaluation, size = config.evaluation, config.data.resolution
  return (f'{width}x{height}, {evaluation.crop} crop {box[3]}x{box[2]} at '
          f'{box[1]},{box[0]}, {evaluation.filter} to {size}x{size}')


def main(arguments=None):
  with errors.exits_on_input_error():
    changes, rest = config_lib.split_flags(
        sys.argv[1:] if arguments is None else arguments)
    for key in changes:
      raise errors.InputError(f'--config.{key}', None,
                              'a trained model has its config', '--workdir')
    parser = errors.Parser(prog='python -m vitok.reconstruct',
                           description=__doc__)
    parser.add_argument('files', nargs='+', metavar='FILE')
    parser.add_argument('--workdir', required=True)
    parser.add_argument('--checkpoint', type=int)
    parser.add_argument('--out', default='')
    parser.add_argument('--codes', default='')
    parser.add_argument('--length', type=int)
    flags = parser.parse_args(rest)
    from vitok.training import runtime
    runtime.prepare()
    for line in reconstruct(flags.files, flags.workdir, flags.checkpoint,
                            flags.out, flags.codes, flags.length):
      print(line)


if __name__ == '__main__':
  main()
