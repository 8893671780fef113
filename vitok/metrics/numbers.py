"""Numbers that need a network or a reference: their definitions, by name.

A name means one rule and one network. What ViTok's released code computes
otherwise has names of its own, `released_...`, so that it can be put beside
published values and never passes for the standard number. The PSNR of an MSE
that is pooled over a batch, for example, is lower than the mean PSNR, the more
so the larger the batch.

r: of reconstructions against the originals they were made of; g: of generated
samples against a set of their own.
"""

from collections.abc import Iterable

import numpy as np

from vitok import errors
from vitok.metrics import frechet, inception_score, kernel, moments
from vitok.metrics.protocol import Definition

_BILINEAR = 'bilinear, half-pixel centres, no antialiasing'
_INCEPTION = f'uint8 to 299 x 299, {_BILINEAR}; (x - 128) / 128'
_TORCHVISION = ('uint8 to 299 x 299, bilinear, corners aligned; mean and '
                'deviation of ImageNet')
_LEVELS = 'own size; uint8 to [-1, 1]'
# How a network gets its input; names as in `vitok.interop.weights`.
NETWORKS = {
    '': '',
    'lpips_vgg16': _LEVELS,
    'lpips_alexnet': _LEVELS,
    'inception_fid': _INCEPTION,
    'inception_fid_head': _INCEPTION,
    'inception_torchvision': _TORCHVISION,
    'inception_torchvision_head': _TORCHVISION,
    'i3d': f'uint8 to 224 x 224 of each frame, {_BILINEAR}; [-1, 1]',
}
_FRAMES = frechet.RULE + '; of each frame index, mean over indices'
_LPIPS = 'version 0.1, per frame, mean over frames, mean over examples'
_TENTHS = inception_score.RULE + '; mean over ten consecutive parts'
_FEATURES = 'features as they are, in the order of the records'
_MOMENTS = ('mean and scatter of the features of each frame index, float64, '
            f'in blocks of {moments.BLOCK} clips in the order of the records')
POOLED_BATCH = 64
_POOLED = (f'MSE pooled over {POOLED_BATCH} consecutive examples, its PSNR, '
           'mean over such batches')

ORIGINALS = 'originals'  # The examples themselves.
_GIVEN = 'given'  # Some set, whose protocol's id must be given.
NUMBERS = {  # name: (rule, network, reference).
    'lpips': (_LPIPS, 'lpips_vgg16', ORIGINALS),
    'lpips_alex': (_LPIPS, 'lpips_alexnet', ORIGINALS),
    'rfid': (frechet.RULE, 'inception_fid', ORIGINALS),
    'rfid_infinity': (frechet.INFINITY_RULE, 'inception_fid', ORIGINALS),
    'rfid_frame': (_FRAMES, 'inception_fid', ORIGINALS),
    'rkid': (kernel.PAIRED_RULE, 'inception_fid', ORIGINALS),
    'ris': (inception_score.RULE, 'inception_fid_head', ''),
    'rfvd': (frechet.RULE, 'i3d', ORIGINALS),
    'gfid': (frechet.RULE, 'inception_fid', _GIVEN),
    'gfid_frame': (_FRAMES, 'inception_fid', _GIVEN),
    'gfid_infinity': (frechet.INFINITY_RULE, 'inception_fid', _GIVEN),
    'gkid': (kernel.SUBSETS_RULE, 'inception_fid', _GIVEN),
    'gis': (_TENTHS, 'inception_fid_head', ''),
    'gfvd': (frechet.RULE, 'i3d', _GIVEN),
    'features': (_FEATURES, 'inception_fid', ''),
    'video_features': (_FEATURES, 'i3d', ''),
    'frame_moments': (_MOMENTS, 'inception_fid', ''),
    'released_psnr': (_POOLED, '', ORIGINALS),
    'released_rfid': (frechet.RULE, 'inception_torchvision', ORIGINALS),
    'released_ris': (inception_score.RULE, 'inception_torchvision_head', ''),
}

# What an evaluation of reconstructions can measure.
OF_RECONSTRUCTIONS = tuple(
    name for name, (_, _, reference) in NUMBERS.items()
    if reference != _GIVEN and name not in (
        'gis', 'features', 'video_features', 'frame_moments'))
# What an evaluation of generated samples can measure.
OF_SAMPLES = ('gfid', 'gfid_frame', 'gfid_infinity', 'gkid', 'gis', 'gfvd')
# Need several frames.
OF_CLIPS = ('rfid_frame', 'rfvd', 'gfid_frame', 'gfvd')
_OF_ANY = ('lpips', 'lpips_alex', 'released_psnr')  # The others are of images.
# Least pixels and frames that a network takes, where it does not resize.
LEAST = {'lpips_vgg16': (16, 1), 'lpips_alexnet': (31, 1), 'i3d': (1, 9)}


def define(name: str, weights: str = '', reference: str = '') -> Definition:
  """The definition of a number.

  Args:
    name: key of `NUMBERS`.
    weights: SHA-256 of the network's weights, of all files if there are two.
    reference: id of the reference's protocol, for distances of samples; those
      of reconstructions are from their own originals.

  Raises:
    InputError: no such number.
    ValueError: weights or a reference are missing, or have no use.
  """
  errors.one_of('number', name, tuple(NUMBERS))
  rule, network, usual = NUMBERS[name]
  if bool(network) != bool(weights):
    raise ValueError(f'{name} is of network {network!r}, weights {weights!r}')
  if bool(reference) != (usual == _GIVEN):
    raise ValueError(f'{name} with reference {reference!r}')
  return Definition(rule, network, weights, NETWORKS[network],
                    reference or usual)


def check(names: Iterable[str], resolution: int, frames: int) -> None:
  """Refuses numbers that reconstructions of a shape do not have.

  Args:
    names: of `config.evaluation.numbers`.
    resolution, frames: of an example.

  Raises:
    InputError: no such number, one of generated samples, one given twice, or
      images that are too small, or too few or too many frames for it.
  """
  key, names = 'config.evaluation.numbers', tuple(names)
  for i, name in enumerate(names):
    if name.startswith('g') and name in NUMBERS:
      raise errors.InputError(
          key, name, 'is of generated samples, and an auto-encoder makes '
          'reconstructions', errors.nearest('r' + name[1:], OF_RECONSTRUCTIONS))
    errors.one_of(key, name, OF_RECONSTRUCTIONS)
    if name in names[:i]:
      raise errors.InputError(key, name, 'is asked for twice')
    pixels, least = LEAST.get(NUMBERS[name][1], (1, 1))
    if resolution < pixels:
      raise errors.InputError(
          'config.data.resolution', resolution, f'is too small for {name} of '
          'config.evaluation.numbers', pixels)
    if name in OF_CLIPS and frames < max(2, least):
      raise errors.InputError(
          'config.data.frames', frames, f'are too few for {name} of '
          'config.evaluation.numbers', max(2, least))
    if frames > 1 and name not in OF_CLIPS + _OF_ANY:
      raise errors.InputError(key, name, 'is of images, and examples have '
                              f'{frames} frames', 'rfid_frame')


def check_samples(names: Iterable[str], frames: int) -> None:
  """Refuses numbers that generated samples of so many frames do not have.

  Raises:
    InputError: no such number, or one of reconstructions, or one of clips for
      images or of images for clips.
  """
  key = 'config.evaluation.numbers'
  for name in names:
    errors.one_of(key, name, OF_SAMPLES)
    if (frames > 1) != (name in OF_CLIPS):
      raise errors.InputError(
          key, name, f'is not of clips of {frames} frames',
          'gfid_frame' if frames > 1 else 'gfid')
  least = LEAST['i3d'][1]
  if 'gfvd' in names and frames < least:
    raise errors.InputError('config.data.frames', frames, 'are too few for '
                            'gfvd of config.evaluation.numbers', least)


def pooled_psnr(mse_N: np.ndarray, batch: int = POOLED_BATCH) -> float:
  """'released_psnr': dB, the mean over batches of the PSNR of a batch's MSE.

  Args:
    mse_N: MSE on [0, 1] of each example, in the order of the records.
    batch: examples that are pooled; the last batch may have fewer.
  """
  mse_N = np.asarray(mse_N, np.float64)
  pooled = [mse_N[start:start + batch].mean()
            for start in range(0, len(mse_N), batch)]
  return float(np.mean(-10 * np.log10(pooled)))
