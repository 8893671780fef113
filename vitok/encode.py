"""Encodes images once: `python -m vitok.encode --workdir=DIR --out=CODES`.

  --source=tfds:NAME  source (`config.data.sources`); by default the first one
                      that the tokenizer was trained on
  --split=SPLIT       of it alone, perhaps sliced; by default the splits that
                      the tokenizer was trained and evaluated on, all of them
                      also where those were slices
  --crop=center       how squares are cut; by default as evaluation does it,
                      which a tokenizer of images at their own size must be told
  --batch_size=256    encoded at a time, by all devices of this process
  --checkpoint=STEP   of the tokenizer; by default the newest

writes codes (latent means of the images so cropped, or the integers of discrete
codes, packed into bytes) with their labels, the
SHA-256 of the tokenizer, and mean and deviation of each channel, as
`vitok.data.codes` says. A generator then trains without the encoder:

  --config.data.sources=codes:DIR --config.tokenizer.sample=False

and needs the images no more: the statistics it shifts and scales by are those
of its training split. Its `data.split` and `evaluation.split`, in
`configs/dit.py` the tokenizer's, slice the codes as they would the images: of a
tokenizer of train[:90%] all of train is encoded, the generator takes the same
90% of it, and a slice that was encoded alone would be cut once more. Where the
tokenizer has an `evaluation.source` of its own, `configs/dit.py` evaluates on
its images, and of codes only the training split is written.
"""

import sys
from typing import Any

import numpy as np

from vitok import config as config_lib
from vitok import errors


def encode(workdir: Any, out: Any, source: str = '', split: str = '',
           batch_size: int = 256, checkpoint: int | None = None,
           crop: str = '') -> dict[str, dict[str, Any]]:
  """Writes the codes of splits; returns {split: what its manifest says}.

  Args:
    workdir: of the finished tokenizer.
    out: folder of the codes.
    source: as `config.data.sources`; by default the tokenizer's first.
    split: perhaps with a slice; the codes' split has its name. By default the
      whole splits that the tokenizer was trained on and, unless it has a source
      of its own for that, evaluated on.
    batch_size: images encoded at a time.
    checkpoint: step; by default the newest.
    crop: as `config.evaluation.crop`, which it is by default.

  Raises:
    InputError: no such tokenizer, source, split or crop, or images that would
      keep their own size, before a device is touched.
  """
  import jax

  from vitok import data, loading, models
  from vitok.data import codes, native, splits, transforms
  from vitok.tasks import tokenizer
  from vitok.training import mesh as mesh_lib
  if batch_size < 1:
    raise errors.InputError('--batch_size', batch_size, 'is below 1', 1)
  own = loading.read_config(workdir, checkpoint)
  crop = crop or own.evaluation.crop
  if crop == native.CROP:  # Patches lie in a strip, beside padding.
    raise errors.InputError(
        '--crop', crop, 'codes of images at their own size are of many sizes',
        'center')
  errors.one_of('--crop', crop, [name for name in transforms.CROPS
                                 if 'random' not in name])
  parts = ('data',) if own.evaluation.source else ('data', 'evaluation')
  wanted = [split] if split else dict.fromkeys(
      splits.parse(f'config.{part}.split', own[part].split).name
      for part in parts)
  config_lib.override(own, {
      'tokenizer.workdir': str(workdir),
      'tokenizer.checkpoint': checkpoint or 0, 'tokenizer.sample': False,
      'diffusion.normalise': False, 'data.crop': crop, 'evaluation.crop': crop,
      'evaluation.source': source or own.data.sources[0],
      'evaluation.count': 0, 'evaluation.clips': 1,
      'evaluation.batch_size': batch_size, 'evaluation.numbers': (),
      'mesh.replica': -1, 'mesh.fsdp': 1, 'mesh.tensor': 1})
  configs = [config_lib.override(own.copy_and_resolve_references(),
                                 {'evaluation.split': of}) for of in wanted]
  for config in configs:
    data.check(config, 'evaluation')
  frozen = tokenizer.Frozen(own)
  mesh = mesh_lib.make_mesh(own.mesh, jax.local_devices())
  loaded = jax.device_put(frozen.reference.load(), mesh_lib.replicated(mesh))
  radices = models.radices(own.model)

  @jax.jit
  def function(loaded, image):
    code = frozen.code(loaded, image, None)
    return (code.z, code.ids) if radices else (code.z,)

  def rows(batches):
    for batch in batches:
      with jax.set_mesh(mesh):
        coded = [np.asarray(x) for x in function(loaded, batch['image'])]
      index, mask, label = (np.asarray(batch[name])
                            for name in ('index', 'mask', 'label'))
      for number, good, of, code, *ids in zip(index, mask, label, *coded,
                                              strict=True):
        if number >= 0:  # No padding.
          yield (code, int(of), *ids) if good else None

  made = {}
  for config in configs:
    name = splits.parse('--split', config.evaluation.split).name
    batches = data.eval_batches(config, mesh_lib.batch_sharding(mesh))
    made[name] = codes.write(out, name, batches.count, rows(batches), {
        'tokenizer': frozen.reference.source, 'sha256': frozen.sha256,
        'source': config.evaluation.source, 'split': config.evaluation.split,
        'crop': crop, 'filter': config.evaluation.filter,
        'data': data.fingerprint(config, 'evaluation'),
        **({'radices': radices} if radices else {})})
  return made


def main(arguments=None):
  with errors.exits_on_input_error():
    parser = errors.Parser(prog='python -m vitok.encode', description=__doc__)
    parser.add_argument('--workdir', required=True)
    parser.add_argument('--out', required=True)
    parser.add_argument('--source', default='')
    parser.add_argument('--split', default='')
    parser.add_argument('--batch_size', type=int, default=256)
    parser.add_argument('--checkpoint', type=int)
    parser.add_argument('--crop', default='')
    flags = vars(parser.parse_args(
        sys.argv[1:] if arguments is None else arguments))
    from vitok.training import runtime
    runtime.prepare()
    for split, made in encode(**flags).items():
      print(f'{made["count"]} codes of {" x ".join(map(str, made["shape"]))}: '
            f'codes:{flags["out"]}, split {split}')


if __name__ == '__main__':
  main()
