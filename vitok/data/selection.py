"""Which examples a config trains and evaluates on, and whether it can."""

import hashlib
from collections.abc import Sequence
from typing import Any

from absl import logging

from vitok import errors, sizes
from vitok.data import clips, codes, native, transforms
from vitok.data import examples as examples_lib


def check(config: Any, part: str = 'all') -> None:
  """Refuses sources, splits and transforms that cannot work.

  Reads indices and first records; touches no device.

  Args:
    config: of a run.
    part: 'evaluation' leaves alone what is trained on, which may be gone.

  Raises:
    errors.InputError: with the field at fault and what was found.
  """
  data, evaluation = config.data, config.evaluation
  if data.frame_rate and data.stride != 1:
    raise errors.InputError(
        'config.data.stride', data.stride, 'config.data.frame_rate='
        f'{data.frame_rate} says already how far apart frames are', 1)
  errors.one_of('config.data.crop', data.crop, transforms.CROPS)
  errors.one_of('config.evaluation.crop', evaluation.crop,
                [name for name in transforms.CROPS if 'random' not in name])
  for key, name in (('data', data.filter), ('evaluation', evaluation.filter)):
    errors.one_of(f'config.{key}.filter', name, list(transforms.FILTERS))
  _check_interval('config.data.crop_scale', data.crop_scale, 1, (.8, 1.))
  _check_interval('config.data.crop_ratio', data.crop_ratio, 100, (.75, 1.333))
  count, weights = len(data.sources), tuple(data.weights)
  if not count:
    raise errors.InputError('config.data.sources', (), 'names no source',
                            ('photographs',))
  if weights and not (len(weights) == count and min(weights) > 0):
    raise errors.InputError('config.data.weights', weights,
                            f'is not a positive weight for each of {count} '
                            'sources', (1.,) * count)
  train = None if part == 'evaluation' else train_examples(config)
  held_out = eval_examples(config)
  # Of codes, their tokenizer says how many frames they are.
  if (data.frames > 1 and train and not train.code_shape
      and not train.moving):
    raise errors.InputError('config.data.frames', data.frames,
                            'sources hold images, which have one frame', 1)
  _check_motion(config, train, held_out)
  _check_codes(config)
  _check_classes(config, train.classes if train else held_out.classes)
  untimed = (train.untimed if train else []) + held_out.untimed
  if data.frame_rate and untimed:
    raise errors.InputError(
        'config.data.frame_rate', data.frame_rate,
        f'{untimed[0]} does not say when its frames are shown',
        '--config.data.frame_rate=0 with --config.data.stride')
  if evaluation.clips > 1 and not held_out.moving:
    raise errors.InputError('config.evaluation.clips', evaluation.clips,
                            'the source holds images', 1)
  if train and train.overlaps(held_out):
    logging.warning('config.evaluation.split=%r holds records that are also '
                    'trained on', evaluation.split)


def fingerprint(config: Any, part: str = 'all') -> str:
  """Hash of records: of their indices, splits and weights.

  Args:
    config: a config that `check` has passed.
    part: 'evaluation': those evaluated on, 'train': those trained on, 'all'.
  """
  parts = []
  if part in ('train', 'all'):
    parts += [train_examples(config).fingerprint, tuple(config.data.weights)]
  if part in ('evaluation', 'all'):
    examples = eval_examples(config)
    parts += [examples.fingerprint, evaluated(examples, config)]
    if config.data.frames > 1:  # Other clips of a video are other data.
      parts.append(_clips(config, config.evaluation.clips))
    own_size = _native(config, config.evaluation.crop)
    if own_size is not None:  # Patch and tokens say how large an image becomes.
      parts.append(own_size)
  return hashlib.sha256(repr(parts).encode()).hexdigest()


def train_examples(config: Any) -> examples_lib.Examples:
  """The training examples of a config."""
  data = config.data
  return examples_lib.Examples(
      ('config.data.sources', 'config.data.split'), data.sources, data.split,
      size=data.resolution, crop=transforms.crop(
          data.crop, tuple(data.crop_scale), tuple(data.crop_ratio)),
      name_of_filter=data.filter, clips=_clips(config, 1),
      native=_native(config, data.crop), flip=data.flip,
      skip_unreadable=data.skip_unreadable, classes=config.diffusion.classes)


def eval_examples(config: Any) -> examples_lib.Examples:
  """The examples that a config evaluates on, and perhaps more of them."""
  data, evaluation = config.data, config.evaluation
  return examples_lib.Examples(
      ('config.evaluation.source', 'config.evaluation.split'),
      (evaluation.source or data.sources[0],), evaluation.split,
      size=data.resolution, crop=transforms.crop(evaluation.crop),
      name_of_filter=evaluation.filter,
      clips=_clips(config, evaluation.clips),
      native=_native(config, evaluation.crop),
      skip_unreadable=data.skip_unreadable, classes=config.diffusion.classes)


def evaluated(examples: examples_lib.Examples, config: Any) -> Sequence[int]:
  """Numbers of the examples measured: all, or `count` evenly spread over them.

  The first ones of a folder would be of its first classes.
  """
  (numbers,) = examples.evaluated
  count = config.evaluation.count
  if not 0 < count < len(numbers):
    return numbers
  return [numbers[i * len(numbers) // count] for i in range(count)]


def _clips(config, parts):
  data = config.data
  return clips.Clips(data.frames, data.stride, data.frame_rate, parts)


def _native(config, crop):
  if crop != native.CROP:
    return None
  size = sizes.from_config(config.model)
  return native.Native(size.tokens(1, config.data.resolution), size.patch)


def _check_classes(config, known):
  """Refuses classes that the labels of a source do not fit."""
  classes = config.diffusion.classes if config.task == 'generation' else 0
  for source, found in known.items() if classes else ():
    if found is not None and not 0 < found <= classes:
      raise errors.InputError(
          'config.diffusion.classes', classes, f'{source} has '
          + (f'{found} classes' if found else 'no labels'), found)


def _check_motion(config, train, held_out):
  """Of clips, stills are measured only where somebody has asked for them."""
  if config.data.frames == 1 or held_out.moving or held_out.code_shape:
    return
  source = config.evaluation.source or config.data.sources[0]
  others = train.moving if train and not config.evaluation.source else ()
  if others and source not in others:
    raise errors.InputError(
        'config.evaluation.source', '', f'stands for {source}, which holds '
        'images, and config.data.frames='
        f'{config.data.frames}: still clips would be measured', others[0])
  logging.warning('config.evaluation.source: %s holds images: what is measured '
                  'is of still clips, one image %d times', source,
                  config.data.frames)


def _check_codes(config):
  """Codes are for generators, and do not mix with images."""
  kinds = {source.startswith(codes.PREFIX): source
           for source in config.data.sources}
  if len(kinds) > 1:
    raise errors.InputError('config.data.sources', kinds[True],
                            f'are codes, and {kinds[False]} holds images')
  evaluated = config.evaluation.source or config.data.sources[0]
  for key, source in (('data.sources', kinds.get(True, '')),
                      ('evaluation.source', evaluated)):
    if source.startswith(codes.PREFIX) and config.task != 'generation':
      raise errors.InputError(f'config.{key}', source, 'holds codes, which the '
                              f'task {config.task!r} cannot read')
  if evaluated.startswith(codes.PREFIX) and config.evaluation.numbers:
    raise errors.InputError(
        'config.evaluation.source', evaluated, 'holds codes, and '
        'config.evaluation.numbers need images as their reference')


def _check_interval(key, value, most, nearest):
  value = tuple(value)
  if len(value) != 2 or not 0 < value[0] <= value[1] <= most:
    raise errors.InputError(
        key, value, f'is not (low, high) with 0 < low <= high <= {most}',
        nearest)
