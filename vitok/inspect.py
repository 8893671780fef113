"""Looks at the data of a run: `python -m vitok.inspect batch --config=FILE:ARG`

  batch   writes the augmented, sharded batch of a step as a picture: a line of
          images for each device, with the device and the records' numbers
  rate    prints examples per second: of one core that reads and augments, and
          of the iterator that a run reads from

  --step=0                       of the batch
  --out=batch.png                the picture
  --config.data.crop=center      overrides a field, any number of them
"""

import json
import sys
import time

from vitok import config as config_lib
from vitok import errors

_LINE, _SMALLEST, _LEGEND = 16, 64, 14  # Images in a line; sizes in pixels.


def batch(config, step, out):
  """Writes the batch of a step to `out` as PNG."""
  import numpy as np
  from PIL import Image, ImageDraw

  from vitok import data
  from vitok.metrics import files
  from vitok.metrics.image import to_uint8
  from vitok.training import mesh

  sharding = mesh.batch_sharding(mesh.make_mesh(config.mesh),
                                 config.batch_size)
  batches = data.train_batches(config, sharding, start=step)
  try:
    arrays = next(batches)
  finally:
    batches.close()
  lines = []
  for image, index in zip(arrays['image'].addressable_shards,
                          arrays['index'].addressable_shards, strict=True):
    pixels = np.asarray(to_uint8(image.data))
    numbers = np.asarray(index.data)
    for first in range(0, len(pixels), _LINE):
      lines.append((image.device, pixels[first:first + _LINE],
                    numbers[first:first + _LINE]))
  zoom = -(-_SMALLEST // config.data.resolution)
  side = zoom * config.data.resolution
  picture = Image.new(
      'RGB', (side * max(len(line[1]) for line in lines),
              (side + _LEGEND) * len(lines)), 'white')
  draw = ImageDraw.Draw(picture)
  for row, (device, pixels, numbers) in enumerate(lines):
    top = row * (side + _LEGEND)
    draw.text((1, top), f'{device}: {" ".join(map(str, numbers))}', 'black')
    for column, clip in enumerate(pixels):  # Of a clip, its first frame.
      tile = Image.fromarray(clip[0]).resize((side, side), 0)
      picture.paste(tile, (column * side, top + _LEGEND))
  files.write_png(out, np.asarray(picture))
  print(f'step {step}, {config.batch_size} examples on {len(lines)} lines: '
        f'{out}')


def rate(config, seconds=5.):
  """Prints the rates as JSON."""
  from vitok import data
  from vitok.training import mesh

  examples, core, wall = 0, time.thread_time(), time.monotonic()
  while time.monotonic() < wall + seconds:
    data.host_batch(config, examples // config.batch_size)
    examples += config.batch_size
  core = examples / (time.thread_time() - core)
  sharding = mesh.batch_sharding(mesh.make_mesh(config.mesh),
                                 config.batch_size)
  batches = data.train_batches(config, sharding)
  next(batches)  # Compiles the placement, starts the workers.
  examples, wall = 0, time.monotonic()
  while time.monotonic() < wall + seconds:
    next(batches)['image'].block_until_ready()
    examples += config.batch_size
  delivered = examples / (time.monotonic() - wall)
  batches.close()
  print(json.dumps({'examples_per_second': {
      'one_core': round(core), 'delivered': round(delivered)}}))


def main(arguments=None):
  with errors.exits_on_input_error():
    changes, rest = config_lib.split_flags(
        sys.argv[1:] if arguments is None else arguments)
    parser = errors.Parser(prog='python -m vitok.inspect', description=__doc__)
    parser.add_argument('what', choices=('batch', 'rate'))
    parser.add_argument('--config', required=True)
    parser.add_argument('--step', type=int, default=0)
    parser.add_argument('--out', default='batch.png')
    flags = parser.parse_args(rest)
    config = config_lib.override(config_lib.load(flags.config), changes)
    if flags.step < 0:
      raise errors.InputError('--step', flags.step, 'is before the first', 0)
    from vitok import validation
    validation.check(config)
    if flags.what == 'batch':
      batch(config, flags.step, flags.out)
    else:
      rate(config)


if __name__ == '__main__':
  main()
