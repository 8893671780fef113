"""The config of a run: its fields, how it is read, and what is refused.

A config is an `ml_collections.ConfigDict`. `default()` names every field with
its type; a config file's `get_config(arg)` starts from it; `--config.a.b=v` on
the command line and an experiment's overrides both go through `override`.
`vitok.validation.check` then refuses impossible values. All of this happens
before a device is touched: neither module imports JAX.
"""

import ast
import difflib
import importlib.util
import json
import math
import pathlib

import ml_collections

from vitok import errors


def default():
  """Every field of a config, with the paper's stage-1 value where it has one.

  Returns:
    A locked `ConfigDict`. Units: lengths in pixels and frames, cadences in
    steps, `warmup` as a fraction of `total_steps`, weights as plain factors.
  """
  tower = dict(width=0, depth=0, heads=0, mlp_ratio=0.0)  # 0: as the name says.
  optimizer = dict(
      learning_rate=1e-4,  # At `reference_batch` images.
      reference_batch=256,  # Rates times batch / this; 0: as they stand.
      min_learning_rate=2.5e-6,  # 1e-5 at the paper's batch of 1024.
      schedule='cosine',
      warmup=0.03,
      b1=0.9,
      b2=0.95,
      weight_decay=1e-4,
      clip=1.0,  # Global norm; 0: none.
      # Of dicts: match, learning_rate, weight_decay, frozen, layer_decay.
      groups=(),
  )
  return ml_collections.ConfigDict(dict(
      seed=0,
      task='reconstruction',
      total_steps=100_000,
      batch_size=1024,
      ema_decay=0.0,  # 0: no moving average.
      init_from='',  # A workdir to start from; '' starts from random values.
      init_subtree='',  # '' or a path of parameters: 'autoencoder/encoder'.
      model=dict(
          name='S-B/16',
          encoder=dict(tower),
          decoder=dict(tower),
          mlp='swiglu',
          norm='layernorm',
          positions='rope2d',
          block='sequential',  # 'parallel': attention and MLP side by side.
          layer_scale=0.0,  # Start of each branch's factors; 0: none.
          qk_norm=False,  # RMSNorm of queries and keys.
          bias=True,  # Of the linear maps in blocks.
          final_norm=True,  # After the last block of each tower.
          bottleneck='gaussian',
          latents=0,  # 1-D tokens that are the code; 0: as the name says.
          # Lengths to which codes are cut in training: (32, 64, 128, 256).
          keep=(),
          # Time steps of a clip that attend to each other, so that it is coded
          # as so many shorter ones, or images (1); 0: the whole clip.
          window=0,
          attention='xla',
          scan=True,
          remat='none',
          dtype='float32',
      ),
      loss=dict(
          pixel='l2',
          kl_weight=1e-3,
          kl_reduction='mean',  # 'sum': a constant price per nat.
          ssim_weight=0.0,  # Of 1 - SSIM.
          lpips_weight=0.0,  # The paper's is 1; needs fetched weights.
          lpips_network='lpips_vgg16',  # 'lpips_alexnet' is 30 times cheaper.
          feature_weight=0.0,  # ViTok-v2 says 500; needs converted weights.
          feature_network='dinov2_base',
          feature_tile=0,  # Pixels that the network sees at once; 0: all.
      ),
      # Stage 2; read by the task 'adversarial' alone.
      adversarial=dict(
          trained='decoder',  # 'all': the encoder and the bottleneck as well.
          # Weight of the generator's loss: 0 before update `start`, then up to
          # `weight` in `ramp` updates. 0: the control, without discriminator.
          schedule=dict(weight=0.05, start=5_000, ramp=50_000),
          adaptive=False,  # Times the ratio of gradients at the last layer,
          adaptive_limits=(0.0, 1e4),  # clipped to these.
          discriminator='residual',
          width=1.0,  # Factor on the discriminator's numbers of features.
          loss='hinge',
          r1=0.0,  # Gamma of the gradient penalty; 0: none.
          r1_every=16,  # Steps from one penalty to the next.
          lecam=0.0,  # Weight of LeCam's regularisation; 0: none.
          lecam_decay=0.99,
          optimizer=optimizer | dict(  # The discriminator's.
              learning_rate=2e-5, min_learning_rate=0.0, schedule='constant',
              warmup=0.25),
      ),
      # A generator of codes; read by the task 'generation' alone, whose `model`
      # is that of the frozen tokenizer.
      tokenizer=dict(
          workdir='',  # Of the finished run that trained it.
          checkpoint=0,  # 0: the newest.
          sample=True,  # Codes are drawn from the posterior; or its means.
      ),
      dit=dict(
          tower,
          name='S',
          mlp='swiglu',
          positions='rope2d',
          remat='none',
      ),
      diffusion=dict(
          schedule='linear',
          prediction='epsilon',
          shift=1.0,  # Of the noise-to-signal ratio; 0: by the code's floats.
          classes=0,  # Of the data's labels; 0: unconditional.
          label_dropout=0.1,  # Share of the labels replaced by the null class.
          normalise=True,  # Channels to mean 0 and variance 1.
          sampler='ddim',
          steps=250,
      ),
      generation=dict(
          count=64,  # Samples of an evaluation.
          batch_size=64,
          guidance=(1.0,),  # Scales, all evaluated; 1: none.
          interval=(0.0, 1.0),  # Times at which to guide; 1 is noise.
          labels=(),  # To generate, in turn; -1: no class; (): all.
      ),
      data=dict(
          sources=('photographs',),
          weights=(),  # One per source; (): equal.
          split='train',
          resolution=256,
          frames=1,  # Of a clip.
          stride=1,  # Frames of a video from one of a clip to the next.
          frame_rate=0.0,  # Of a clip, a second; 0: as `stride` says.
          # 'native': whole images at their own size, of at most as many
          # patches as a square of `resolution` has.
          crop='random_resized',
          crop_scale=(0.8, 1.0),
          crop_ratio=(0.75, 4 / 3),
          flip=True,
          filter='bilinear',
          skip_unreadable=False,
          workers=0,  # Processes that read and augment; 0: threads only.
          prefetch=2,  # Batches kept ready on the device.
      ),
      evaluation=dict(
          every=5_000,  # 0: at the first and the last step only.
          source='',  # '': the first training source.
          split='test',
          batch_size=256,
          count=0,  # 0: the whole split.
          clips=1,  # Of each video, evenly spread; 1: its centre.
          crop='center',
          filter='bilinear',
          grid=8,  # Images kept with their reconstruction.
          coded=256,  # Examples entropy-coded after the last step; 0: none.
          numbers=(),  # Beside PSNR and SSIM: 'lpips', 'rfid', 'rkid', ...
          numbers_every=0,  # Steps, as `every`; 0: after the last one only.
          features=0,  # Examples whose features are taken; 0: all.
          reference='',  # Folder of originals' features; '': with the weights.
      ),
      optimizer=optimizer | dict(accumulate=1),  # Micro-batches per step.
      mesh=dict(replica=-1, fsdp=1, tensor=1),  # -1: the devices that remain.
      sharding=dict(
          # Logical axis of a parameter -> mesh axis.
          rules=(('embed', 'fsdp'), ('mlp', 'tensor'), ('heads', 'tensor')),
          fsdp_min_size=2**16,  # Smaller parameters stay whole, in numbers.
      ),
      checkpoint=dict(every=1_000, keep=2, keep_every=0),
      # A run that diverged; see `vitok.training.divergence`.
      divergence=dict(
          action='stop',  # Or 'rewind' to a checkpoint, or 'skip' batches too.
          limit=3,  # Rewinds of a run, after which it stops.
          metric='',  # Guarded: 'train/autoencoder/l2'; '': none.
          above=0.0,  # What it may not exceed
          patience=3,  # in so many readings in a row.
      ),
      # watchdog: seconds without a step until stacks are printed; 0: never.
      logging=dict(every=50, tensorboard=True, watchdog=1800),
      profile=dict(first=0, steps=0),  # A trace of `steps` steps; 0: none.
  )).lock()


# What the tuples hold, and an example of each.
_ELEMENTS = {
    'config.model.keep': (int, (16, 64)),
    'config.data.sources': (str, ('photographs',)),
    'config.data.weights': (float, (1.0,)),
    'config.data.crop_scale': (float, (0.8, 1.0)),
    'config.data.crop_ratio': (float, (0.75, 1.333)),
    'config.generation.guidance': (float, (1.5,)),
    'config.generation.interval': (float, (0.0, 1.0)),
    'config.generation.labels': (int, (0,)),
    'config.evaluation.numbers': (str, ('lpips',)),
    'config.optimizer.groups': (
        dict, ({'match': 'encoder/.*', 'frozen': True},)),
    'config.adversarial.optimizer.groups': (
        dict, ({'match': 'head/.*', 'learning_rate': 0.5},)),
    'config.adversarial.adaptive_limits': (float, (0.0, 1e4)),
    'config.sharding.rules': (tuple, (('embed', 'fsdp'),)),
}

# What may differ between two sessions of the same run. Every other field must
# be equal to resume; `total_steps` may grow if the user asks for it.
MAY_DIFFER = (
    'mesh', 'sharding', 'logging', 'profile', 'checkpoint', 'divergence',
    'data.workers', 'data.prefetch',
)


def flatten(config, prefix=''):
  """{'model.name': 'S-B/16', ...}: the leaves of a config by dotted key."""
  leaves = {}
  for key, value in config.items():
    if isinstance(value, (dict, ml_collections.ConfigDict)):
      leaves.update(flatten(value, f'{prefix}{key}.'))
    else:
      leaves[prefix + key] = value
  return leaves


def override(config, changes):
  """Sets dotted keys of a config, each with the type that its field has.

  Args:
    config: a config as `default()` shapes it; changed in place.
    changes: {dotted key: value}. A string for a field of another type is read
      as a Python literal, as the command line gives it.

  Returns:
    `config`.

  Raises:
    errors.InputError: an unknown key (with the nearest one), a group of fields
      where one is meant, or a value of the wrong type.
  """
  for key, value in changes.items():
    known = flatten(config)
    if key not in known:
      if any(other.startswith(key + '.') for other in known):
        raise errors.InputError(f'config.{key}', None,
                                'is a group of fields, not a field',
                                next(f'config.{other}' for other in known
                                     if other.startswith(key + '.')))
      raise errors.InputError(f'config.{key}', None, 'no such field',
                              f'config.{_nearest_key(key, known)}')
    *groups, field = key.split('.')
    node = config
    for group in groups:
      node = node[group]
    node[field] = _typed(f'config.{key}', value, known[key])
  return config


def load(spec):
  """Reads a config file: `configs/vitok.py` or `configs/vitok.py:S-B/16`.

  Args:
    spec: path of a Python file that defines `get_config(arg)`, and after a
      colon the argument that it takes.

  Returns:
    The `ConfigDict` that `get_config` returns, locked.

  Raises:
    errors.InputError: no such file, a file that fails, or no `get_config`.
  """
  path, _, arg = spec.partition(':')
  module = load_module(path, '--config')
  if not hasattr(module, 'get_config'):
    raise errors.InputError('--config', path, 'defines no get_config(arg)')
  try:
    config = module.get_config(*([arg] if arg else []))
  except errors.InputError:
    raise
  except Exception as error:  # Whatever the user's function does wrong.
    raise errors.InputError(
        '--config', spec, f'fails: {type(error).__name__}: {error}'
    ) from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise errors.InputError(
        '--config', spec, f'get_config returns a {type(config).__name__}, not '
        'a ConfigDict', 'config = vitok.config.default(); ...; return config')
  expected, actual = set(flatten(default())), set(flatten(config))
  if expected != actual:
    odd = sorted(expected ^ actual)[0]
    raise errors.InputError('--config', path,
                            f'has other fields than a config: {odd}',
                            _nearest_key(odd, expected))
  return config.lock()


def load_module(path, key):
  """Runs a Python file that the user named; `key` is the flag to blame."""
  path = pathlib.Path(path)
  if not path.is_file():
    folder = path.parent if path.parent.is_dir() else pathlib.Path('.')
    near = errors.nearest(path.name, sorted(
        f.name for f in folder.glob('*.py')))
    raise errors.InputError(key, str(path), 'no such file',
                            near and str(folder / near))
  spec = importlib.util.spec_from_file_location(
      f'vitok_user_{path.stem}', path)
  if spec is None:
    raise errors.InputError(key, str(path), 'is not a Python file')
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except errors.InputError:
    raise
  except Exception as error:  # Whatever the user's file does wrong.
    raise errors.InputError(
        key, str(path), f'fails: {type(error).__name__}: {error}') from error
  return module


def to_json(config):
  """The resolved config as text: one field a line, keys sorted."""
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + '\n'


def read(path):
  """The config of the file `path` (`epath.Path`) that holds `to_json`'s."""
  try:
    return from_json(path.read_text(), str(path))
  except (OSError, UnicodeDecodeError) as error:
    raise errors.InputError(
        str(path), None, f'cannot be read: {error}') from error


def from_json(text, key='config.json'):
  """The config that `to_json` wrote; `key` names the file if it is unfit."""
  try:
    stored = json.loads(text)
    return override(default(), flatten(stored))
  except errors.InputError as error:
    raise errors.InputError(
        key, None, f'was written by another version: {error}') from error
  except (ValueError, AttributeError) as error:
    raise errors.InputError(key, None, f'is not a config: {error}') from error


def difference(old, new):
  """Fields in which two sessions of one run differ but must not.

  Returns:
    {dotted key: (old value, new value)}, without `MAY_DIFFER`.
  """
  old, new = flatten(old), flatten(new)
  return {
      key: (old.get(key), new.get(key)) for key in sorted(old | new)
      if old.get(key) != new.get(key)
      and not any(key == may or key.startswith(may + '.')
                  for may in MAY_DIFFER)
  }


def split_flags(arguments):
  """Splits a command line into overrides and the rest.

  `--config.a.b=v` and `--config.a.b v` are overrides.

  Returns:
    ({dotted key: text}, the other arguments in their order).
  """
  changes, rest, waiting = {}, [], None
  for argument in arguments:
    if waiting is not None:
      changes[waiting], waiting = argument, None
    elif argument.startswith('--config.'):
      key, equals, value = argument.removeprefix('--config.').partition('=')
      if equals:
        changes[key] = value
      else:
        waiting = key
    else:
      rest.append(argument)
  if waiting is not None:
    raise errors.InputError(f'--config.{waiting}', None, 'has no value')
  return changes, rest


def _nearest_key(key, known):
  """The dotted key that was meant.

  In this order: a like one in the same group, the same field in another group,
  a field with these initials (lr), the likeliest.
  """
  def last(dotted):
    return dotted.rsplit('.', 1)[-1]
  group = key.rpartition('.')[0]
  siblings = difflib.get_close_matches(
      key, [other for other in known if other.rpartition('.')[0] == group],
      n=1, cutoff=0.85)
  same = [other for other in known if last(other) == last(key)]
  initials = [other for other in known if last(key) == ''.join(
      word[0] for word in last(other).split('_'))]
  return errors.nearest(key, siblings or same or initials or list(known))


def _typed(key, value, like):
  """`value` with the type of the field's present value, or a refusal."""
  kind = type(like)
  if isinstance(value, str) and kind is not str:
    try:
      value = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
      if kind is not tuple:  # A bare word is a tuple of one string.
        raise errors.InputError(
            key, value, f'is not of type {kind.__name__}', repr(like)
        ) from None
  if kind is tuple:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
      value = (value,)
    if isinstance(value, (list, tuple)):
      kind, example = _ELEMENTS[key]
      return tuple(_one(key, element, kind, example) for element in value)
  return _one(key, value, kind, like)


def _one(key, value, kind, example):
  """`value` as a `kind` (JSON's list is a tuple, an int also a float)."""
  if type(value) is int and value.bit_length() > 2000:  # Too long to print.
    raise errors.InputError(key, None, 'is too large a number', repr(example))
  if kind is tuple and isinstance(value, list):
    value = tuple(value)
  if kind is float and type(value) is int:
    value = float(str(value))  # Infinite, not an error, if it is too large.
  if type(value) is not kind:
    raise errors.InputError(
        key, value, f'is of type {type(value).__name__}, not {kind.__name__}',
        repr(example))
  if kind is float and not math.isfinite(value):
    raise errors.InputError(key, value, 'is not finite', repr(example))
  return value
