"""ViTok's own points (arXiv 2501.09755v1), to be looked at beside a sweep.

ImageNet-1k validation, 256 px, stage 1, S-B where not said otherwise. Read off
the vector figures (marker centre against grid lines, error under 0.5%); the
paper's PSNR pools squared errors over a batch before the logarithm, which
lowers it. Other data, other losses, other averaging: never fitted together
with a sweep of ours.
"""

CODE = 'ViTok, figure 2 (ImageNet 256 px, S-B)'
# (patch, channels, code_floats, PSNR in dB, SSIM): figures 2 and 17.
CODE_POINTS = (
    (32, 4, 256, 20.09, .516), (32, 8, 512, 21.32, .572),
    (32, 16, 1024, 22.62, .633), (16, 4, 1024, 22.82, .647),
    (32, 32, 2048, 23.93, .692), (16, 8, 2048, 24.29, .715),
    (32, 64, 4096, 25.43, .761), (16, 16, 4096, 26.12, .790),
    (8, 4, 4096, 26.17, .798), (16, 32, 8192, 28.12, .856),
    (8, 8, 8192, 28.34, .862), (16, 64, 16384, 30.55, .910),
    (8, 16, 16384, 30.95, .915), (8, 32, 32768, 35.11, .963),
    (8, 64, 65536, 39.94, .985),
)

TOWERS = 'ViTok, figures 6 to 9 (ImageNet 256 px, p 16, c 16)'
TOWER_PARAMETERS = {'S': 43.3e6, 'B': 85.8e6, 'L': 383.7e6}  # Its table 1.
# (encoder, decoder, PSNR in dB, SSIM): figures 6 to 9, E = 4096.
TOWER_POINTS = (
    ('S', 'S', 25.88, .7830), ('B', 'S', 25.93, .7838),
    ('S', 'B', 26.12, .7902), ('B', 'B', 26.26, .7960),
    ('S', 'L', 26.47, .7988), ('B', 'L', 26.34, .7959),
    ('L', 'L', 26.32, .7945),
)


def series(x: str, y: str) -> tuple[str, dict] | None:
  """The paper's points for a figure of y over x.

  Args:
    x: 'code_floats', 'encoder_parameters' or 'decoder_parameters'.
    y: 'psnr' or 'ssim'.

  Returns:
    (where they are from, {label of a series: [(x, y)]}); None where the paper
    has no such figure.
  """
  if y not in ('psnr', 'ssim'):
    return None
  column = ('psnr', 'ssim').index(y)
  found = {}
  if x == 'code_floats':
    for patch, _, floats, *values in CODE_POINTS:
      found.setdefault(f'p {patch}', []).append((floats, values[column]))
    return CODE, found
  sides = ('encoder_parameters', 'decoder_parameters')
  if x not in sides:
    return None
  varied, held = sides.index(x), 1 - sides.index(x)
  for point in TOWER_POINTS:
    label = f'{("encoder", "decoder")[held]} {point[held]}'
    found.setdefault(label, []).append(
        (TOWER_PARAMETERS[point[varied]], point[2 + column]))
  return TOWERS, found
