"""Measures a trained run: `python -m vitok.evaluate --workdir=DIR`.

  --checkpoint=STEP                 this one; by default the newest whole one
  --config.evaluation.split=train   changes a field of the evaluation, of the
                                    mesh, or data.workers and data.prefetch
  --config.evaluation.numbers="('rkid','lpips')"
                                    measures these as well
  --distributed                     several processes (SLURM, TPU pods, ...)

Prints the protocol and the numbers with their standard errors, and writes what
training writes: evaluation/<step>.npz (per-image values), .png (originals above
reconstructions), protocol.json; and <step>.json, the numbers with the protocol.
They lie in the workdir if all that the run has measured is measured again by
the same protocol, otherwise in <workdir>/evaluations/<id of the protocol>, so
that nothing is replaced by numbers that cannot be compared with it.

A number whose network is not there is ABSENT, and the command that gets it is
printed.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from vitok import config as config_lib
from vitok import errors

# What may differ from the run: none of it is part of the model.
_MAY_CHANGE = ('evaluation.', 'generation.', 'diffusion.sampler',
               'diffusion.steps', 'mesh.', 'data.workers', 'data.prefetch')
_UNITS = {'psnr': 'dB', 'kl_bits': 'bits', 'coded_bits': 'bits',
          'coded_loss_db': 'dB'}


def evaluate(workdir: Any, checkpoint: int | None = None,
             changes: Mapping[str, Any] | None = None,
             devices: Any = None) -> dict[str, Any]:
  """Measures a checkpoint and writes the files of an evaluation.

  Args:
    workdir: of the run; local or `gs://`.
    checkpoint: step; by default the newest whole checkpoint.
    changes: {dotted key: value} of `config.evaluation` and the like.
    devices: those to use; all by default.

  Returns:
    {'workdir', 'step', 'parameters', 'metrics': {'eval/psnr': ...},
    'protocol': {...}, 'folder': where the files are}.

  Raises:
    InputError: no run, no such checkpoint, an unfit change.
    saved.CheckpointError: no checkpoint is whole.
  """
  import jax
  from etils import epath

  from vitok import data, files, loading, validation
  from vitok.training import program

  config = loading.read_config(workdir, checkpoint)
  for key in changes or {}:
    if not key.startswith(_MAY_CHANGE):
      raise errors.InputError(
          f'config.{key}', None, 'an evaluation cannot change it',
          'config.' + errors.nearest(key, [
              leaf for leaf in config_lib.flatten(config)
              if leaf.startswith(_MAY_CHANGE)]))
  config_lib.override(config, changes or {})
  validation.check(config, 'evaluation')
  built = program.Program(config, devices, 'evaluation')
  state, step = loading.restore_state(workdir, built.abstract, checkpoint)
  arguments = built.run_arguments(config)
  batches = data.eval_batches(config, built.batch_sharding)
  out, numbers = epath.Path(workdir), {}
  writes = jax.process_index() == 0
  with tempfile.TemporaryDirectory() as staged:
    for evaluator in built.task.evaluators():
      functions = built.evaluation_functions(evaluator, state, arguments)
      for name, value in evaluator.run(functions, batches, step,
                                       staged if writes else None, last=True):
        numbers[f'{evaluator.name}/{name}'] = value
    measured = _protocol(epath.Path(staged))
    known = _ids(_protocol(out)) if writes else {}
    if known and not known.items() <= _ids(measured).items():
      out = out / 'evaluations' / measured['id']
    for path in epath.Path(staged).glob('evaluation/*'):
      files.write_bytes(out / 'evaluation' / path.name, path.read_bytes())
  result = {
      'workdir': str(workdir), 'step': step,
      'parameters': 'moving average' if config.ema_decay else 'trained',
      'metrics': numbers, 'protocol': measured,
      'folder': str(out / 'evaluation')}
  if writes:
    files.write_text(out / 'evaluation' / f'{step}.json',
                     json.dumps(result, indent=2) + '\n')
  return result


def _protocol(workdir) -> dict[str, Any]:
  """What the folder's protocol.json holds, {} without one."""
  path = workdir / 'evaluation' / 'protocol.json'
  return json.loads(path.read_text()) if path.exists() else {}


def _ids(stored) -> dict[str, str]:
  """The id of each number of a stored protocol."""
  return stored.get('ids') or {'psnr': stored['id']} if stored else {}


def describe(result: Mapping[str, Any]) -> str:
  """The protocol and the numbers of `evaluate`, to be read by people."""
  lines = [f'{result["workdir"]}, step {result["step"]}, '
           f'{result["parameters"]} parameters']
  stored = dict(result['protocol'])
  ids, definitions = stored.pop('ids', {}), stored.pop('numbers', {})
  lines += [f'{name:>14}  {value}' for name, value in
            {'protocol': stored.pop('id'), **stored}.items()]
  for name, definition in definitions.items():
    lines += ['', f'{name:>14}  protocol {ids[name]}']
    lines += [f'{key:>14}  {value}' for key, value in definition.items()
              if value]
  lines.append('')
  numbers = {name.partition('/')[2]: value
             for name, value in result['metrics'].items()}
  for name, value in numbers.items():
    if name.endswith('_absent'):
      lines.append(f'{name.removesuffix("_absent"):>14}  ABSENT: {value}')
    if '_se' in name or not isinstance(value, float):
      continue
    error = numbers.get(f'{name}_se')
    group = numbers.get(f'{name}_se_group')
    unit = _UNITS.get(name.partition('@')[0], '')
    line = f'{name:>14}  {value:.6g} {unit}'.rstrip()
    if error is not None:
      line += f'  (standard error {error:.2g}'
      line += f'; by group {group:.2g})' if group is not None else ')'
    lines.append(line)
  return '\n'.join([*lines, f'{"files":>14}  {result["folder"]}'])


def main(arguments=None):
  with errors.exits_on_input_error():
    changes, rest = config_lib.split_flags(
        sys.argv[1:] if arguments is None else arguments)
    parser = errors.Parser(prog='python -m vitok.evaluate',
                           description=__doc__)
    parser.add_argument('--workdir', required=True)
    parser.add_argument('--checkpoint', type=int)
    parser.add_argument('--distributed', action='store_true')
    flags = parser.parse_args(rest)
    import jax

    from vitok.training import runtime
    runtime.prepare(flags.distributed)
    result = evaluate(flags.workdir, flags.checkpoint, changes)
    if jax.process_index() == 0:
      print(describe(result))


if __name__ == '__main__':
  main()
