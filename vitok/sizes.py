"""Names of auto-encoders and what they stand for: `S-B/4x16` <-> dimensions.

This is the only place that parses or prints a model's name. A name is
`ENCODER-DECODER/PATCH`, where PATCH is one of

  p      patch of p x p pixels of one frame, 16 channels a token (`S-B/16`)
  qxp    tubelet of q frames of p x p pixels (`S-B/4x16`)
  qxpxc  the same with c channels a token (`S-B/1x16x64`)

so that two numbers are always tubelet x patch. `+n` after it makes n latent
tokens the code in place of the patches (`S-B/16+128`). S, B and L are those of
the paper (arXiv 2501.09755, table 1), the smaller ones ours, for a few CPU
cores:

  letter       width  blocks  heads  head dim
  A  (atto)       96       1      3        32
  F  (femto)      96       2      3        32
  P  (pico)      192       1      3        64
  N  (nano)      192       2      3        64
  T  (tiny)      192       4      3        64
  M  (mini)      384       6      6        64
  S  (small)     768       6     12        64
  B  (base)      768      12     12        64
  L  (large)    1152      24     16        72

A tower that differs from its letter says how: `w` width, `d` blocks, `h`
heads, and `m` MLP ratio or `f` hidden units of the MLP, in this order.
`Bd3-Bm2/16` is a B encoder of three blocks and a B decoder of MLP ratio 2.
Every `Size` has exactly one printed name, the shortest, and
`parse(name(size)) == size`.

ViTok-v2 names its sizes by the same grammar and another table: `parse_v2`
reads them, and they print as what they are in the table above. Its
`Ld4-Ld24/1x16x64` is `Lw1024d4m4.005-Lw1024m4.005/1x16x64` here.
"""

import dataclasses
import decimal
import itertools
import math
import re
from collections.abc import Mapping

from vitok import errors


@dataclasses.dataclass(frozen=True)
class Tower:
  """A transformer: `depth` blocks of `width`, `heads` heads, and an MLP of
  `mlp_ratio` times the width or, unless that is 0, `mlp_width` hidden units
  (`mlp_ratio` is then 4)."""
  width: int
  depth: int
  heads: int
  mlp_ratio: float = 4.0
  mlp_width: int = 0

  @property
  def head_dim(self) -> int:
    return self.width // self.heads

  def hidden(self, mlp: str) -> int:
    """Width inside the MLP: `mlp_width`, or what the ratio makes of it.

    A SwiGLU has three matrices where a GELU MLP has two, so 2/3 of the ratio,
    rounded to a multiple of 16 (at least 16), costs the same: 768 -> 2048.
    A GELU MLP has at least one hidden unit.
    """
    if self.mlp_width:
      return self.mlp_width
    if mlp == 'gelu':
      return max(1, int(self.mlp_ratio * self.width))
    return max(16, 16 * int(self.mlp_ratio * 2 * self.width / 48 + 0.5))


TOWERS = {
    'A': Tower(96, 1, 3),
    'F': Tower(96, 2, 3),
    'P': Tower(192, 1, 3),
    'N': Tower(192, 2, 3),
    'T': Tower(192, 4, 3),
    'M': Tower(384, 6, 6),
    'S': Tower(768, 6, 12),
    'B': Tower(768, 12, 12),
    'L': Tower(1152, 24, 16),
}
# ViTok-v2 (arXiv 2605.05331) has its own table, in which L is another tower.
# Its MLP ratio counts each of SwiGLU's three matrices.
V2_TOWERS = {
    'B': Tower(768, 12, 12, 2.67),
    'L': Tower(1024, 24, 16, 2.67),
    'G': Tower(1728, 32, 24, 2.67),
    'T': Tower(3072, 40, 24, 2.67),
    'E': Tower(4096, 48, 32, 2.67),
}
CHANNELS = 16  # Of a name that does not say: the paper's default.

_N = r'(\d{1,99})'  # Python reads no number of thousands of digits.
_TOWER = rf'([A-Z])(?:w{_N})?(?:d{_N})?(?:h{_N})?'
_TOWER += rf'(?:m(\d+(?:\.\d+)?)|f{_N})?'
_NAME = re.compile(
    rf'{_TOWER}-{_TOWER}/{_N}(?:x{_N})?(?:x{_N})?(?:\+{_N})?')
# Field of a tower -> the most it may be.
_MOST = {'width': 2**20, 'depth': 2**12, 'heads': 2**16, 'mlp_ratio': 2**10,
         'mlp_width': 2**20}
_LETTERS = dict(zip(_MOST, 'wdhmf', strict=True))


@dataclasses.dataclass(frozen=True)
class Size:
  """Encoder, decoder, tubelet (frames), patch (pixels), channels (floats).

  With `latents`, so many 1-D tokens are the code and not the patches.
  """
  encoder: Tower
  decoder: Tower
  tubelet: int
  patch: int
  channels: int
  latents: int = 0

  def grid(self, frames: int, resolution: int) -> tuple[int, int, int]:
    """Patches along time, height and width.

    Args:
      frames: of a clip; 1 for an image.
      resolution: height and width in pixels.

    Raises:
      InputError: the tubelet or the patch does not divide them.
    """
    for key, value, unit, what in (
        ('config.data.frames', frames, self.tubelet, 'tubelet'),
        ('config.data.resolution', resolution, self.patch, 'patch')):
      if value < 1 or value % unit:
        raise errors.InputError(
            key, value, f'is not a positive multiple of the {what} {unit}',
            max(1, round(value / unit)) * unit)
    side = resolution // self.patch
    return frames // self.tubelet, side, side

  def patches(self, frames: int, resolution: int) -> int:
    """Patches that a clip is cut into."""
    return math.prod(self.grid(frames, resolution))

  def tokens(self, frames: int, resolution: int) -> int:
    """Length L of the code: its latent tokens, or else the patches."""
    return self.latents or self.patches(frames, resolution)

  def code_floats(self, frames: int, resolution: int) -> int:
    """Floats of the code, the paper's E = L * c."""
    return self.tokens(frames, resolution) * self.channels

  def check_tensor(self, ways: int):
    """Refuses to split attention over more devices than divide the heads.

    Args:
      ways: size of the mesh's axis `tensor`.

    Raises:
      InputError: it does not divide the heads of a tower.
    """
    for side, tower in (('encoder', self.encoder), ('decoder', self.decoder)):
      if tower.heads % ways:
        raise errors.InputError(
            'config.mesh.tensor', ways,
            f'does not divide the {tower.heads} heads of the {side}',
            math.gcd(self.encoder.heads, self.decoder.heads, ways))

  @property
  def patch_dim(self) -> int:
    """Numbers in one tubelet of RGB pixels."""
    return 3 * self.tubelet * self.patch**2

  def __str__(self) -> str:
    return name(self)


def parse(name: str, key: str = 'config.model.name',
          towers: Mapping[str, Tower] = TOWERS) -> Size:
  """The `Size` that a name stands for, by a table of letters.

  Raises:
    InputError: not a name, an unknown letter, or an impossible dimension;
      `key` is what the message says is at fault.
  """
  match = _NAME.fullmatch(str(name))
  letters = (match[1], match[7]) if match else ()
  if not match or not set(letters) <= set(towers):
    reason = 'is not ENCODER-DECODER/PATCH' if not match else 'names no tower'
    known = [f'{e}-{d}/{p}' for e, d, p in itertools.product(
        towers, towers, ('16', '8', '4x16', '1x16x64'))]
    raise errors.InputError(
        key, name, f'{reason} (towers {", ".join(towers)}; patch p, qxp or '
        'qxpxc, and +n for n latent tokens)', errors.nearest(name, known))
  groups = match.groups()
  sides = (_replace(towers[groups[0]], groups[1:6]),
           _replace(towers[groups[6]], groups[7:12]))
  first, second, third, latents = groups[12:]
  tubelet, patch = (1, first) if second is None else (first, second)
  size = Size(*sides, int(tubelet), int(patch),
              CHANNELS if third is None else int(third), int(latents or 0))
  return _check(size, key, name)


def parse_v2(name: str, key: str = 'config.model.name') -> Size:
  """The `Size` that ViTok-v2 calls so: `Ld4-Ld24/1x16x64`.

  Raises:
    InputError: as `parse`.
  """
  size = parse(name, key, V2_TOWERS)
  return dataclasses.replace(size, **{
      side: tower if tower.mlp_width else dataclasses.replace(
          tower, mlp_ratio=round(1.5 * tower.mlp_ratio, 6))
      for side, tower in (('encoder', size.encoder),
                          ('decoder', size.decoder))})


def name(size: Size) -> str:
  """The shortest name that `parse` reads as `size`."""
  patch = f'{size.patch}'
  if size.tubelet != 1 or size.channels != CHANNELS:
    patch = f'{size.tubelet}x{patch}'
  if size.channels != CHANNELS:
    patch = f'{patch}x{size.channels}'
  if size.latents:
    patch = f'{patch}+{size.latents}'
  return f'{_tower_name(size.encoder)}-{_tower_name(size.decoder)}/{patch}'


def from_config(model) -> Size:
  """The `Size` of `config.model`: its name and what overrides it.

  Args:
    model: `config.model`, with `name`, `latents` and, for `encoder` and
      `decoder`, `width`, `depth`, `heads`, `mlp_ratio`, `mlp_width`; 0 means
      as the name says.

  Raises:
    InputError: as `parse`, with the overriding key where that is at fault.
  """
  size = parse(model.name)
  for side in ('encoder', 'decoder'):
    given = getattr(model, side)
    changes = [getattr(given, field) for field in _MOST]
    if given.mlp_ratio and given.mlp_width:
      raise errors.InputError(
          f'config.model.{side}.mlp_ratio', given.mlp_ratio,
          f'is not read beside mlp_width={given.mlp_width}', 0)
    if any(changes):
      tower = _replace(getattr(size, side), [c or None for c in changes])
      size = dataclasses.replace(size, **{side: tower})
      # Of width and heads, the one that was overridden is at fault.
      _check_tower(
          tower, lambda field, side=side, tower=tower: (
              f'config.model.{side}.{field}', getattr(tower, field)),
          'heads' if changes[2] else 'width')
  if not 0 <= model.latents <= _MOST['width']:
    raise errors.InputError(
        'config.model.latents', model.latents, 'is no number of tokens',
        min(max(0, model.latents), _MOST['width']))
  return dataclasses.replace(size, latents=model.latents or size.latents)


def _replace(tower, changes):
  """`tower` with those of the fields `_MOST` that are not None."""
  changes = {field: (float if field == 'mlp_ratio' else int)(value)
             for field, value in zip(_MOST, changes, strict=True)
             if value is not None}
  if 'mlp_ratio' in changes:  # Ratio and hidden units replace each other.
    changes['mlp_width'] = 0
  elif 'mlp_width' in changes:
    changes['mlp_ratio'] = Tower.mlp_ratio
  return dataclasses.replace(tower, **changes)


def _tower_name(tower):
  """Shortest of the letter-and-differences forms; the table breaks ties."""
  forms = [letter + ''.join(
      f'{short}{_decimal(getattr(tower, field))}'
      for field, short in _LETTERS.items()
      if getattr(tower, field) != getattr(base, field))
           for letter, base in TOWERS.items()]
  return min(forms, key=len)


def _decimal(number):
  """As `parse` reads it: 4.0 is 4, and 1e-05 is 0.00001."""
  return f'{decimal.Decimal(str(number)):f}'.removesuffix('.0')


def _check(size, key, value):
  for tower in (size.encoder, size.decoder):
    _check_tower(tower, lambda field: (key, value), 'heads')
  for what, least in (('tubelet', 1), ('patch', 1), ('channels', 1),
                      ('latents', 0)):
    number = getattr(size, what)
    if not least <= number <= _MOST['width']:
      near = dataclasses.replace(
          size, **{what: min(max(least, number), _MOST['width'])})
      raise errors.InputError(key, value, f'has {what} {number}', name(near))
  return size


def _check_tower(tower, blame, field):
  """Refuses a tower; `blame(field)` is the key and value that are at fault.

  `field` is the one to change if heads do not divide the width.
  """
  for what, most in _MOST.items():
    number = getattr(tower, what)
    if not (0 < number <= most  # NaN fails too.
            or (what, number) == ('mlp_width', 0)):
      raise errors.InputError(
          *blame(what), f'{what} {number} is not above 0 and at most {most}',
          most if number > most else 1)
  if tower.width % tower.heads:
    near = max(1, round(tower.width / tower.heads)) * tower.heads
    if field == 'heads':
      divisors = [n for n in range(1, tower.width + 1) if tower.width % n == 0]
      near = min(divisors, key=lambda n: abs(n - tower.heads))
    raise errors.InputError(
        *blame(field), f'{tower.heads} heads do not divide width {tower.width}',
        f'{field} {near}')
