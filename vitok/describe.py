"""What a model costs, before it is built: `python -m vitok.describe`.

  python -m vitok.describe --model=S-B/16 --resolution=256
  python -m vitok.describe --model=S-B/4x16 --frames=16 --resolution=128 --json
  python -m vitok.describe --model=S-B/16 --latents=128
  python -m vitok.describe --config=configs/vitok_stage2.py:S-B/16
  python -m vitok.describe --dit=L --tokens=256 --channels=16 --classes=1000

prints tokens, code size, parameters, MACs, FLOPs of a forward pass and of a
training step, and the memory of a training step per device. A config, with
any `--config.<field>=value`, is described with the networks of its loss. It is
arithmetic: no accelerator is touched.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Sequence

from vitok import accounting, errors, sizes
from vitok import config as config_lib
from vitok.accounting import dit

_OPTIONS = ('mlp', 'norm', 'bottleneck', 'attention', 'remat', 'dtype')
_FLAGS = {'config.data.frames': '--frames',
          'config.data.resolution': '--resolution',
          'config.mesh': '--devices',
          'config.mesh.tensor': '--tensor'}


def main(argv: Sequence[str] | None = None):
  """Prints the table or, with --json, one JSON object."""
  parser = errors.Parser(prog='python -m vitok.describe', description=__doc__)
  add = parser.add_argument
  add('--config', help='file, as for training; in place of a model')
  add('--model', default='S-B/16', help='name of the model')
  add('--resolution', type=int, default=256, help='pixels')
  add('--frames', type=int, default=0, help='of a clip; default: one tubelet')
  add('--channels', type=int, help='floats per token; default: by the name')
  add('--latents', type=int, help='tokens that are the code in place of the '
      'patches; default: by the name')
  add('--dit', help='size of a generator of codes; in place of a model')
  add('--tokens', type=int, default=256, help='of the code, for --dit')
  add('--classes', type=int, default=1000, help='of the labels, for --dit')
  add('--batch', type=int, default=1, help='examples per step, all devices')
  add('--devices', type=int, default=1, help='that hold the state together')
  add('--fsdp', type=int, default=1, help='of these, that share parameters')
  add('--tensor', type=int, default=1, help='of these, that share products')
  defaults = config_lib.default().model
  for name in _OPTIONS:
    add(f'--{name}', default=defaults[name], help=f'config.model.{name}')
  add('--positions', help='config.model.positions; default: rope3d for a clip '
      f'of several tubelets, or else {defaults.positions}')
  add('--ema', action='store_true', help='keep a moving average')
  add('--json', action='store_true', help='print JSON')
  with errors.exits_on_input_error():
    changes, rest = config_lib.split_flags(
        sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(rest)
    if changes and not args.config:
      raise errors.InputError(f'--config.{next(iter(changes))}', None,
                              'changes no config: there is no --config')
    made = (_of_config(args, changes) if args.config else
            _of_dit(args) if args.dit else _describe(args))
    print(json.dumps(made, indent=1) if args.json else table(made))


def _of_config(args, changes):
  from vitok import tasks  # Late, as below.
  config = config_lib.override(config_lib.load(args.config), changes)
  return tasks.build(config).cost(args.devices)


def _check(args):
  for name, least in (('frames', 0), ('batch', 1), ('devices', 1),
                      ('fsdp', 1), ('tensor', 1), ('tokens', 1),
                      ('classes', 0), ('channels', 1), ('latents', 0)):
    value = getattr(args, name)
    if value is not None and value < least:
      raise errors.InputError(f'--{name}', value, f'is below {least}', least)


def _of_dit(args):
  _check(args)
  from vitok.models import attention, layers, positions, stack
  for name, known in (('dit', dit.SIZES), ('mlp', layers.MLPS),
                      ('remat', stack.REMAT), ('dtype', layers.DTYPES),
                      ('attention', attention.IMPLEMENTATIONS),
                      ('positions', (*positions.NAMES, None))):
    errors.one_of(f'--{name}', getattr(args, name), tuple(known))
  spec = dit.Spec(dit.SIZES[args.dit], args.tokens,
                  args.channels or sizes.CHANNELS, args.classes, args.mlp,
                  args.positions or 'rope2d')
  made = dit.describe(
      spec, batch=args.batch, remat=args.remat, dtype=args.dtype,
      attention=args.attention, ema=args.ema, devices=args.devices,
      mesh={'fsdp': args.fsdp, 'tensor': args.tensor})
  return {'name': f'DiT-{args.dit}'} | made


def _describe(args):
  from vitok import models  # Late: a misspelt flag is refused at once.
  _check(args)
  size = sizes.parse(args.model, '--model')
  size = dataclasses.replace(size, **{
      name: value for name in ('channels', 'latents')
      if (value := getattr(args, name)) is not None})
  frames = args.frames or size.tubelet
  config = config_lib.default().model
  config.name = sizes.name(size)
  config.update({name: getattr(args, name) for name in _OPTIONS})
  try:
    if args.positions:
      config.positions = args.positions
    elif size.grid(frames, args.resolution)[0] > 1:
      config.positions = 'rope3d'
    models.build(config, frames=frames, resolution=args.resolution)  # Checks.
    size.check_tensor(args.tensor)
    return accounting.describe(
        size, frames, args.resolution, batch=args.batch,
        **models.arithmetic(config),
        remat=config.remat, dtype=config.dtype, attention=config.attention,
        ema=args.ema, mesh={'fsdp': args.fsdp, 'tensor': args.tensor},
        devices=args.devices)
  except errors.InputError as error:
    key = error.key.replace('config.model.', '--')
    if '.quantizer.' in error.key:  # It has no flags of its own here.
      key = f'--config=FILE --{error.key}'
    raise errors.InputError(_FLAGS.get(key, key), error.value, error.reason,
                            error.nearest) from error


def table(result: dict) -> str:
  """The result for people: a row per part, then one per kind of memory."""
  if 'grid' not in result:
    return '\n'.join([
        f'{result["name"]}: {result["tokens"]} tokens, '
        f'{result["code_floats"]} floats', '', *_rows(result)])
  clip = f'{result["frames"]} x {result["resolution"]} x {result["resolution"]}'
  grid = ' x '.join(map(str, result['grid']))
  if result['tokens'] != math.prod(result['grid']):
    grid = f'latents beside patches of {grid}'
  lines = [
      f'{result["name"]} on {clip}: {result["tokens"]} tokens ({grid}), '
      f'{result["code_floats"]} floats, '
      f'{result["pixels_per_float"]:.4g} pixel values per float'
      + (f', {result["code_bits"]:.5g} bits' if result['code_bits'] else ''),
      '']
  return '\n'.join([*lines, *_rows(result)])


def _rows(result):
  flops, memory = result['flops'], result['memory']
  lines = [f'{"per example":<13}{"parameters":>11}{"MAC":>12}'
           f'{"forward FLOP":>15}{"training FLOP":>15}']
  for part in result['parameters']:
    lines.append(
        f'{part:<13}{_short(result["parameters"][part]):>11}'
        f'{_short(result["macs"][part]):>12}'
        f'{_short(flops["by_part"]["forward"][part]):>15}'
        f'{_short(flops["by_part"]["train_step"][part]):>15}')
  if 'elementwise' in flops:
    lines.append(f'{"element-wise":<36}'
                 f'{_short(flops["elementwise"]["forward"]):>15}'
                 f'{_short(flops["elementwise"]["train_step"]):>15}')
  if 'tokenizer' in result:
    frozen = result['tokenizer']
    lines.append(
        f'{"tokenizer":<13}{_short(frozen["parameters"]["total"]):>11}{"":>12}'
        f'{_short(frozen["encode"]):>15}')
  for name, network in result.get('losses', {}).items():
    lines.append(f'{name:<13}{_short(network["parameters"]):>11}'
                 f'{_short(network["macs"]):>12}{"":>15}'
                 f'{_short(network["train_step"]):>15}')
  if flops['recomputed']:
    lines.append(f'{"recomputed":<51}{_short(flops["recomputed"]):>15}')
  lines += ['', f'{"memory of a training step, per device":<51}{"bytes":>15}']
  return lines + [f'{kind:<51}{_short(n):>15}'
                  for kind, n in memory.items() if n]


def _short(n):
  """1234567 as '1.235 M'."""
  for unit, power in (('T', 12), ('G', 9), ('M', 6), ('k', 3)):
    if n >= 10**power:
      return f'{n / 10**power:.4g} {unit}'
  return f'{n} '


if __name__ == '__main__':
  main(sys.argv[1:])
