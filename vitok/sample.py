"""Generates images or videos: `python -m vitok.sample --workdir=DIR`.

  --count=64          how many
  --labels=3,7        classes, in turn; by default all; -1 is no class
  --guidance=3        scale of classifier-free guidance, which needs classes;
                      1: none
  --sampler=ddim      ddpm, ddim, euler or heun; by default the run's, as
  --steps=50          are the steps
  --seed=0            other samples; by default those that training shows
  --batch_size=64     made at a time
  --checkpoint=STEP   this one; by default the newest whole one
  --out=DIR           by default <workdir>/samples
  --distributed       several processes (SLURM, TPU pods, ...)

writes a picture of each sample (00000.png; of a video 00000.mp4), grid.png with
the first of them, and samples.npz: 'images' uint8 (N, T, H, W, 3) and 'labels'
(N,). A sample is the same whatever the batch size and the number of devices.
The workdir is a generator's (`configs/dit.py`); its tokenizer must lie where it
was trained. Parameters are the moving average if the run keeps one.
"""

import contextlib
import fractions
import sys
from typing import Any

import numpy as np
from etils import epath

from vitok import config as config_lib
from vitok import errors

_GRID = 64  # Samples of the picture, at most.
_RATE = 8  # Frames a second of a video whose data did not say.
_FIELDS = {'count': 'generation.count', 'labels': 'generation.labels',
           'guidance': 'generation.guidance',
           'batch_size': 'generation.batch_size',
           'sampler': 'diffusion.sampler', 'steps': 'diffusion.steps',
           'seed': 'seed'}


def sample(workdir: Any, out: Any = '', checkpoint: int | None = None,
           devices: Any = None, **changes: Any) -> dict[str, Any]:
  """Generates samples of a trained run and writes their files.

  Args:
    workdir: of the run; local or `gs://`.
    out: folder; by default `<workdir>/samples`.
    checkpoint: step; by default the newest whole checkpoint.
    devices: those to use; all by default.
    **changes: of count, labels (tuple), guidance, sampler, steps, seed,
      batch_size; as the run's config has them, where they are not given.

  Returns:
    {'step', 'images' uint8 (N, T, H, W, 3), 'labels' (N,), 'folder'}.

  Raises:
    InputError: no run of a generator, no such checkpoint, an unfit change.
    saved.CheckpointError: no checkpoint is whole.
  """
  from vitok import loading
  config = loading.read_config(workdir, checkpoint)
  if config.task != 'generation':
    raise errors.InputError('--workdir', str(workdir), 'holds no generator but '
                            f'a run of the task {config.task!r}')
  with _blames_flags():
    config = _changed(config, changes)
    return _sample(config, epath.Path(workdir), checkpoint, devices,
                   epath.Path(out or epath.Path(workdir) / 'samples'))


def _sample(config, workdir, checkpoint, devices, out):
  import jax

  from vitok import loading
  from vitok.metrics import files as metric_files
  from vitok.tasks import samples
  from vitok.training import program
  built = program.Program(config, devices)  # Refuses what cannot be sampled.
  out.mkdir(parents=True, exist_ok=True)
  state, step = loading.restore_state(workdir, built.abstract, checkpoint)
  (evaluator,) = built.task.evaluators()
  functions = built.evaluation_functions(
      evaluator, state, built.run_arguments(config))
  count, (scale,) = config.generation.count, config.generation.guidance
  images = np.concatenate(list(evaluator.samples(
      functions, scale, count)))[:count]
  labels = samples.labels(config, count)
  if jax.process_index() == 0:
    for number, image in enumerate(images):
      _write(out, f'{number:05}', image, config)
    metric_files.write_png(out / 'grid.png',
                           metric_files.samples(images[:_GRID]))
    metric_files.write_arrays(out / 'samples.npz',
                              {'images': images, 'labels': labels})
  return {'step': step, 'images': images, 'labels': labels,
          'folder': str(out)}


def _write(out, name, image, config):
  from vitok.data import video_file
  from vitok.metrics import files as metric_files
  if len(image) == 1:
    metric_files.write_png(out / f'{name}.png', image[0])
  else:
    video_file.write(out / f'{name}.mp4', iter(image), fractions.Fraction(
        config.data.frame_rate or _RATE))


def _changed(config, changes):
  """The run's config with what the user asks for, and no measuring."""
  config = config_lib.override(config, {
      _FIELDS[name]: value for name, value in changes.items()
      if value is not None})
  for name, least in (('count', 1), ('batch_size', 1), ('seed', 0)):
    value = config_lib.flatten(config)[_FIELDS[name]]
    if not least <= value < 2**31:
      raise errors.InputError(f'--{name}', value, 'is out of range', least)
  if changes.get('guidance') and len(config.generation.guidance) > 1:
    raise errors.InputError('--guidance', changes['guidance'],
                            'is more than one scale',
                            config.generation.guidance[0])
  return config_lib.override(config, {
      'evaluation.numbers': (), 'mesh.replica': -1, 'mesh.fsdp': 1,
      'mesh.tensor': 1,
      'generation.guidance': tuple(config.generation.guidance)[:1]})


@contextlib.contextmanager
def _blames_flags():
  """An error that names a field names the flag instead."""
  flags = {f'config.{field}': f'--{name}' for name, field in _FIELDS.items()}
  try:
    yield
  except errors.InputError as error:
    if error.key not in flags:
      raise
    raise errors.InputError(flags[error.key], error.value, error.reason,
                            error.nearest) from error


def main(arguments=None):
  with errors.exits_on_input_error():
    parser = errors.Parser(prog='python -m vitok.sample', description=__doc__)
    parser.add_argument('--workdir', required=True)
    for name in ('checkpoint', 'count', 'steps', 'seed', 'batch_size'):
      parser.add_argument(f'--{name}', type=int)
    for name in ('labels', 'guidance', 'sampler'):
      parser.add_argument(f'--{name}')
    parser.add_argument('--out', default='')
    parser.add_argument('--distributed', action='store_true')
    flags = vars(parser.parse_args(
        sys.argv[1:] if arguments is None else arguments))
    from vitok.training import runtime
    runtime.prepare(flags.pop('distributed'))
    made = sample(**flags)
    print(f'{len(made["images"])} samples of step {made["step"]}: '
          f'{made["folder"]}')


if __name__ == '__main__':
  main()
