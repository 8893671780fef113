"""Shows images through a tokenizer:

  python -m vitok.reconstruct IMAGE... --workdir=DIR

  --checkpoint=STEP   this one; by default the newest whole one
  --out=DIR           where the pictures go; by default
                      <workdir>/reconstructions
  --codes=FILE.npz    also writes the codes

An image of any size is treated as the run's evaluation treats it: the crop of
`config.evaluation.crop` (the largest centred square by default) is resized
with `config.evaluation.filter` to the trained resolution. Each picture has what
the model saw on the left and its reconstruction on the right, and is printed
with its PSNR and SSIM.

The codes: `z` (N, L, c) float32 (latent means; L tokens ordered by time, row,
column), `ids` if the code is discrete, `names` (N,), `grid` (3,) tokens along
time, height and width, `step`. `vitok.load(workdir).decode(z)` inverts them.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from vitok import config as config_lib
from vitok import errors

_BATCH = 8  # Of one size, so that any number of images compiles once.
_GAP = 4  # White pixels between original and reconstruction.


def read(paths: Sequence[str], config: Any) -> tuple[np.ndarray, list[str]]:
  """Reads images as the evaluation of a run does.

  Args:
    paths: image files in any format that Pillow reads.
    config: of the run.

  Returns:
    uint8 (N, 1, S, S, 3), and one line for each: how it was cut.

  Raises:
    InputError: a file that is missing or cannot be read.
  """
  from vitok.data import transforms
  evaluation, size = config.evaluation, config.data.resolution
  crop_of = transforms.crop(evaluation.crop)
  images, told = [], []
  for path in paths:
    path = pathlib.Path(path)
    if not path.is_file():
      folder = path.parent if path.parent.is_dir() else pathlib.Path('.')
      near = errors.nearest(path.name, sorted(
          f.name for f in folder.iterdir() if f.is_file()))
      raise errors.InputError('IMAGE', str(path), 'no such file',
                              near and str(folder / near))
    seen = []

    def crop(height, width, rng, seen=seen):
      box = crop_of(height, width, rng)
      seen[:] = [f'{width}x{height}', f'{box[3]}x{box[2]} at {box[1]},{box[0]}']
      return box

    try:
      images.append(transforms.decode(path.read_bytes(), crop, None, size,
                                      evaluation.filter, fast=False))
    except Exception as error:  # Pillow raises many kinds for broken files.
      raise errors.InputError(
          'IMAGE', str(path),
          f'cannot be read as an image: {type(error).__name__}: {error}'
      ) from error
    told.append(f'{seen[0]}, {evaluation.crop} crop {seen[1]}, '
                f'{evaluation.filter} to {size}x{size}')
  return np.stack(images), told


def names(paths: Sequence[str]) -> list[str]:
  """File names for the pictures: the stems, numbered where two are equal."""
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
                codes: str = '') -> list[str]:
  """Writes a side-by-side of each image; returns a line about each.

  Raises:
    InputError: before a device is touched, for a file that cannot be read, no
      run, no such checkpoint, or a run of clips.
  """
  from etils import epath

  from vitok import loading
  from vitok.metrics import files as metric_files
  from vitok.metrics import image as metrics
  config = loading.read_config(workdir, checkpoint)
  if config.data.frames != 1:
    raise errors.InputError('--workdir', workdir, 'is a run on clips of '
                            f'{config.data.frames} frames, not on images')
  images, told = read(paths, config)
  tokenizer = loading.load(workdir, checkpoint)
  out = epath.Path(out or epath.Path(workdir) / 'reconstructions')
  pictures = [out / f'{name}.png' for name in names(paths)]
  lines, stored = [], []
  for start in range(0, len(images), _BATCH):
    batch = images[start:start + _BATCH]
    count = len(batch)
    batch = np.pad(batch, [(0, _BATCH - count)] + 4 * [(0, 0)])
    code = tokenizer.encode(batch)
    decoded = metrics.to_uint8(tokenizer.decode(code))
    psnr = metrics.psnr(batch, decoded)
    ssim = (metrics.ssim(batch, decoded) if metrics.has_ssim(batch.shape)
            else None)
    stored.append({name: np.asarray(array)[:count] for name, array in
                   (('z', code.z), ('ids', code.ids)) if array is not None})
    for i in range(count):
      quality = f'PSNR {psnr[i]:.2f} dB'
      quality += f', SSIM {ssim[i]:.4f}' if ssim is not None else ''
      lines.append(f'{paths[start + i]}: {told[start + i]}; {quality}')
    decoded = np.asarray(decoded)
    white = np.full((batch.shape[2], _GAP, 3), 255, np.uint8)
    for i in range(count):
      metric_files.write_png(pictures[start + i], np.concatenate(
          [batch[i, 0], white, decoded[i, 0]], axis=1))
  if codes:
    arrays = {name: np.concatenate([part[name] for part in stored])
              for name in stored[0]}
    metric_files.write_arrays(codes, {
        **arrays, 'names': np.array([str(path) for path in paths]),
        'grid': np.array(tokenizer.model.grid),
        'step': np.array(tokenizer.step)})
    lines.append(f'codes {arrays["z"].shape}: {codes}')
  return [*lines, f'pictures: {out}']


def main(arguments=None):
  with errors.exits_on_input_error():
    changes, rest = config_lib.split_flags(
        sys.argv[1:] if arguments is None else arguments)
    for key in changes:
      raise errors.InputError(f'--config.{key}', None,
                              'a trained model has its config', '--workdir')
    parser = errors.Parser(prog='python -m vitok.reconstruct',
                           description=__doc__)
    parser.add_argument('images', nargs='+', metavar='IMAGE')
    parser.add_argument('--workdir', required=True)
    parser.add_argument('--checkpoint', type=int)
    parser.add_argument('--out', default='')
    parser.add_argument('--codes', default='')
    flags = parser.parse_args(rest)
    from vitok.training import runtime
    runtime.prepare()
    for line in reconstruct(flags.images, flags.workdir, flags.checkpoint,
                            flags.out, flags.codes):
      print(line)


if __name__ == '__main__':
  main()
