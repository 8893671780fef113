r"""How fast the code is here, beside what the machine and PyTorch can do.

  python tools/benchmark.py [--only=peak,step,torch,compile,data,checkpoint]
      [--models=paper,cpu] [--rounds=7] [--out=FILE] [--quick]
      [--config.model.dtype=bfloat16 --config.batch_size=64 ...]

Prints progress and a table to stderr, one JSON object to stdout. It measures
S-B/16 at 256 pixels, batch 2 (`paper`), and the model of the experiments' :cpu
presets (`cpu`), both changed by `--config.` flags:

  peak        XLA's matrix products: square, and each linear map of the model
              with its two gradients. The fastest of the latter is what shares
              are of.
  step        forward pass, and the training step as the trainer compiles it.
  torch       the same in PyTorch with the same weights (float32, CPU): forward,
              loss, backward, clipping, fused AdamW; eager and torch.compile.
  compile     of the step, with 12 and with 48 blocks in the decoder.
  data        images read and augmented per second, against those trained. From
              memory (photographs), and for `paper` from JPEG files as well.
  checkpoint  what asynchronous saves cost the steps that run meanwhile.

What is compared is measured in turn, round by round, so that a noisy machine
disturbs all alike: shares and ratios are taken within a round, and numbers are
medians over rounds. FLOPs are `vitok.accounting`'s matrix products. Saves of
S-B/16 need 4 GB below $TMPDIR. On a GPU:

  python tools/benchmark.py --only=peak,step --models=paper \
      --config.model.dtype=bfloat16 --config.model.attention=cudnn \
      --config.batch_size=64
"""

import argparse
import functools
import importlib.util
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

import jax
import timing
from PIL import Image

from vitok import config as config_lib
from vitok import data, errors, files, process, sizes, validation
from vitok.accounting import devices
from vitok.data import photographs
from vitok.models import layers
from vitok.training import program as program_lib

SECTIONS = ('peak', 'step', 'torch', 'compile', 'data', 'checkpoint')
_CPU = {'data.resolution': 32, 'batch_size': 32, 'total_steps': 400}
CASES = {'paper': {'model.name': 'S-B/16', 'batch_size': 2},
         'cpu': {'model.name': 'P-N/8', **_CPU}}
QUICK = {'paper': {'model.name': 'A-F/16', 'data.resolution': 64,
                   'batch_size': 2},
         'cpu': {'model.name': 'A-A/8', **_CPU, 'batch_size': 4}}
DEPTHS = (12, 48)
JPEG = (500, 375)  # ImageNet's commonest size.


class Progress:
  """Lines on stderr with the time left, from what stages usually take."""

  def __init__(self, usual: dict[str, float]):
    self._usual, self._start = usual, time.monotonic()

  def __call__(self, stage: str, share: float, text: str):
    """Says `text`, with `share` of `stage` and all stages before it done."""
    names = list(self._usual)
    before = sum(self._usual[n] for n in names[:names.index(stage)])
    done = before + share * self._usual[stage]
    elapsed, total = self.seconds(), sum(self._usual.values())
    pace = elapsed / done if done > 0.05 * total else 1
    print(f'[{elapsed:4.0f} s, about {(total - done) * pace:4.0f} s left] '
          f'{stage}: {text}', file=sys.stderr, flush=True)

  def seconds(self) -> float:
    return time.monotonic() - self._start


def why_no_torch(config):
  """Why the comparison is left out; '' if it is not."""
  if jax.default_backend() != 'cpu' or config.model.dtype != 'float32':
    return 'is compared in float32 on a CPU only'
  if importlib.util.find_spec('torch') is None:
    return "is not installed (pip install -e '.[parity]')"
  twin = timing.TWIN
  return '' if twin.exists() else f'needs a checkout: there is no {twin}'


def add_torch(ours, shapes, block, contestants, work, skipped, say):
  """Adds PyTorch's contestants; returns its peak and how outputs differ."""
  import torch
  torch.set_num_threads(len(os.sched_getaffinity(0)))  # As many as XLA has.
  product, speeds = timing.best_product(shapes, block / 4, functools.partial(
      timing.Product, torch=torch))
  theirs = timing.Theirs(ours, torch)
  contestants |= {
      'torch product': lambda: timing.fastest(product.call, block / 2),
      'torch eager forward': timing.paced(theirs.forward, block),
      'torch eager step': timing.paced(lambda: theirs.step(theirs.net), block)}
  if 'torch.compile' not in skipped:
    say('torch.compile')
    compiled = torch.compile(theirs.net)
    try:
      contestants['torch compiled step'] = timing.paced(
          lambda: theirs.step(compiled), block)
    except Exception as error:  # No C++ compiler, for one.
      skipped['torch.compile'] = f'{type(error).__name__}: {error}'[:200]
  work |= {'torch product': product.flops, **{
      name: ours.flops[name.split()[-1]] for name in contestants
      if name.startswith('torch') and name != 'torch product'}}
  return dict(max_difference=theirs.difference, peak=dict(
      best=max(speeds.values()), of=product.name, products=speeds))


def measure_model(case, config, flags, folder, progress, skipped):
  """All that is measured of one model."""
  only, rounds = flags.only, flags.rounds
  block = 0.02 if flags.quick else 0.4  # Seconds of a contestant's turn.
  progress(case, 0, 'compiles the step')
  ours = timing.Ours(config)
  size = sizes.from_config(config.model)
  rows = config.batch_size * size.tokens(config.data.frames,
                                         config.data.resolution)
  shapes = timing.products(size, config.model.mlp, rows)
  progress(case, 0.1, 'matrix products')
  product, speeds = timing.best_product(shapes, block / 4, functools.partial(
      timing.Product, dtype=layers.DTYPES[config.model.dtype]))
  result = dict(
      name=str(size), resolution=config.data.resolution,
      batch=config.batch_size, dtype=config.model.dtype, flops=ours.flops,
      compile_seconds=ours.compile_seconds,
      peak=dict(best=max(speeds.values()), of=product.name, products=speeds))
  if not set(only) & {'step', 'torch', 'data', 'checkpoint'}:
    return result
  contestants = {
      'product': lambda: timing.fastest(product.call, block / 2),
      'forward': timing.paced(ours.forward, block),
      'step': timing.paced(ours.step, block)}
  work = {'product': product.flops, **ours.flops}
  if 'torch' in only and 'torch' not in skipped:
    result['torch'] = add_torch(ours, shapes, block, contestants, work,
                                skipped, functools.partial(
                                    progress, case, 0.2))
  if 'data' in only:
    for name in ('photographs', *(['jpeg'] if case == 'paper' else [])):
      source = name if name == 'photographs' else f'folder:{folder / "jpeg"}'
      contestants[f'data {name}'] = timing.reader(
          config_lib.override(config.copy_and_resolve_references(),
                              {'data.sources': (source,)}),
          ours.program.batch_sharding, block)
  found = timing.in_turn(contestants, rounds, lambda share, text: progress(
      case, 0.4 + 0.4 * share, text))
  median = {name: statistics.median(v) for name, v in found.items()}

  def entry(name, product_name='product'):
    share = work[name] / work[product_name] * timing.ratio(
        found[product_name], found[name])
    return dict(seconds=median[name], share=share, rounds=found[name])

  result['product'] = dict(rounds=[  # FLOP/s of the fastest one.
      product.flops / seconds for seconds in found['product']])
  result['ours'] = {name: entry(name) for name in ours.flops}
  known = devices.of_kind(jax.devices()[0].device_kind)
  for name, flops in ours.flops.items():
    result['ours'][name]['mfu'] = known and (
        flops / median[name] / known.peak[config.model.dtype])
  trained = config.batch_size / median['step']
  result['ours']['images_per_second'] = trained
  for name in found:
    if name in work and name.startswith('torch ') and 'product' not in name:
      result['torch'][name.removeprefix('torch ')] = entry(
          name, 'torch product') | {
              'ratio': timing.ratio(found[name.split()[-1]], found[name])}
  result['data'] = {
      name.removeprefix('data '): dict(
          images_per_second=1 / median[name], trained_per_second=trained,
          rounds=found[name],
          ratio=timing.ratio(found['step'], found[name]) / config.batch_size)
      for name in found if name.startswith('data ')}
  if 'checkpoint' in only:
    progress(case, 0.8, 'checkpoints')
    result['checkpoint'] = timing.time_checkpoints(
        ours, folder / case, median['step'], rounds,
        lambda share, text: progress(case, 0.8 + 0.2 * share,
                                     f'checkpoints, {text}'))
  return result


def measure_compile(config, rounds, say):
  """Seconds to trace, lower and compile the step, by the decoder's depth."""
  def one(depth):
    changed = config_lib.override(config.copy_and_resolve_references(),
                                  {'model.decoder.depth': depth})

    def measure():
      jax.clear_caches()
      program = program_lib.Program(changed, jax.devices()[:1])
      start = time.perf_counter()
      program.compile_step(batch, program.run_arguments(changed))
      return time.perf_counter() - start
    return measure

  sharding = program_lib.Program(config, jax.devices()[:1]).batch_sharding
  batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
           for name, x in data.host_batch(config, 0).items()}
  found = timing.in_turn({depth: one(depth) for depth in DEPTHS}, rounds, say)
  return dict(
      seconds={depth: statistics.median(v) for depth, v in found.items()},
      rounds=found, ratio=timing.ratio(found[DEPTHS[1]], found[DEPTHS[0]]))


def table(result):
  """Lines for people; what is aimed at stands in brackets."""
  for n, speed in result.get('square', {}).items():
    yield f'XLA product {n} square', f'{speed / 1e9:.0f} GFLOP/s'
  for m in result['models'].values():
    yield '', ''
    yield f'{m["name"]}, {m["resolution"]} pixels, batch {m["batch"]}', ''
    yield '  XLA product', (f'{m["peak"]["best"] / 1e9:.0f} GFLOP/s '
                            f'({m["peak"]["of"]})')
    sides = {'': {k: m.get('ours', {}).get(k) for k in m['flops']},
             'PyTorch ': m.get('torch', {})}
    if m.get('torch'):
      yield '  PyTorch product', f'{m["torch"]["peak"]["best"] / 1e9:.0f}'
    for side, entries in sides.items():
      for name, e in entries.items():
        if isinstance(e, dict) and 'seconds' in e:
          mfu = f', MFU {e["mfu"]:.1%}' if e.get('mfu') else ''
          aim = ' [0.60]' if name == 'eager step' else ''
          ours = f', ours / this {e["ratio"]:.2f}' if 'ratio' in e else ''
          share = f'{e["share"]:.1%} of peak' + ' [80%]' * (name == 'step')
          yield f'  {side}{name}', (
              f'{1e3 * e["seconds"]:.1f} ms, {share}{mfu}{ours}{aim}')
    for name, e in m.get('data', {}).items():
      yield f'  data, {name}', (
          f'{e["images_per_second"]:.0f} images/s, {e["ratio"]:.1f} x trained '
          '[3]')
    if e := m.get('checkpoint'):
      yield '  checkpoints', (
          f'{e["lost_seconds"]:.2f} s a save ({e["alone_seconds"]:.2f} alone), '
          f'{e["share"]:.2%} at every={e["every"]} [1%], '
          f'{e["share_of_run"]:.2%} of a run of {e["total_steps"]}')
  if e := result.get('compile'):
    yield '', ''
    yield f'compile, {e["model"]}', ', '.join(
        f'{depth} blocks {s:.1f} s' for depth, s in e['seconds'].items()
    ) + f', ratio {e["ratio"]:.2f} [1.1]'
  for what, why in result['skipped'].items():
    yield f'left out: {what}', why


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  commas = lambda text: text.split(',')
  parser.add_argument('--only', type=commas, default=SECTIONS)
  parser.add_argument('--models', type=commas, default=tuple(CASES))
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--out', help='also write the JSON there')
  parser.add_argument('--quick', action='store_true',
                      help='tiny models and times, to see whether it works')
  try:
    changes, rest = config_lib.split_flags(sys.argv[1:])
    flags = parser.parse_args(rest)
    for key, given, known in (('--only', flags.only, SECTIONS),
                              ('--models', flags.models, tuple(CASES))):
      for name in given:
        errors.one_of(key, name, known)
    if flags.rounds < 1:
      raise errors.InputError('--rounds', flags.rounds, 'is not positive', 7)
    cases = QUICK if flags.quick else CASES
    configs = {case: config_lib.override(config_lib.default(),
                                         cases[case] | changes)
               for case in flags.models}
    for config in configs.values():
      validation.check(config)
  except errors.InputError as error:
    print(error, file=sys.stderr)
    return 2
  jax.config.update('jax_enable_compilation_cache', False)
  usual = {'peak': 5, 'paper': 260, 'cpu': 80, 'compile': 60}
  progress = Progress({stage: seconds for stage, seconds in usual.items()
                       if stage in (*flags.only, *flags.models)})
  skipped = {'torch.compile': 'takes too long'} if flags.quick else {}
  device = jax.devices()[0]
  result = dict(
      device=device.device_kind, platform=device.platform,
      cores=len(os.sched_getaffinity(0)), jax=jax.__version__,
      rounds=flags.rounds, quick=flags.quick, models={})
  if 'torch' in flags.only:
    for config in configs.values():
      if why := why_no_torch(config):
        skipped['torch'] = why
  if 'peak' in flags.only:
    progress('peak', 0, 'square matrix products')
    large = 128 if flags.quick else 2048 if device.platform == 'cpu' else 8192
    dtype = next(iter(configs.values())).model.dtype
    result['square'] = {n: devices.matmul_peak(dtype, n)
                        for n in (large // 2, large)}
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    (folder / 'jpeg').mkdir()
    for name, image in photographs.load('train').items():
      Image.fromarray(image).resize(JPEG).save(
          folder / 'jpeg' / f'{name}.jpg', quality=90)
    for case, config in configs.items():
      if set(flags.only) - {'compile'}:
        result['models'][case] = measure_model(
            case, config, flags, folder, progress, skipped)
  if 'compile' in flags.only:
    config = next(iter(configs.values()))
    result['compile'] = {'model': config.model.name} | measure_compile(
        config, max(1, flags.rounds // 2),
        functools.partial(progress, 'compile'))
  result |= dict(skipped=skipped, seconds=progress.seconds())
  lines = list(table(result))
  width = max(len(left) for left, _ in lines)
  print('\n'.join(f'{left:{width}}  {right}'.rstrip() for left, right in lines),
        file=sys.stderr)
  text = json.dumps(result)
  if flags.out:
    files.write_text(flags.out, text + '\n')
  print(text)
  return 0


if __name__ == '__main__':
  process.start()  # The allocator that training has; PyTorch gets it too.
  sys.exit(main())
