"""What a law may be of: columns of the table with their units and directions.

Those with values per image, of which they are the mean, have intervals over
images and seeds: also the kernel distance of reconstructions (`kid_of_pairs`).
Numbers of all images together have them over seeds and, if they come with a
standard error (the kernel distance of samples does, Frechet distances do not),
over images by it.
"""

import dataclasses
import math
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Response:
  """A measure of quality.

  Attributes:
    column: of the table; the array per image has the same name.
    name: what an axis calls it, with its unit.
    unit: of differences.
    better: 1 if a larger value is better, -1 if a smaller one is.
    tie: differences of learning rates below it are none.
    log2: whether the law is of its logarithm.
  """
  column: str
  name: str
  unit: str
  better: int
  tie: float
  log2: bool = False

  @property
  def of_samples(self) -> bool:
    """Whether it is of a generator's samples, not of reconstructions."""
    return self.column.startswith('g')


# Learning rates closer than a tie are as good: the spread between seeds, .06
# dB. As log2 of an error that is .06 log2(10) / 10; as SSIM .06 times the .04
# a dB that ViTok's own points have between 22 and 29 dB (`published`). Of the
# rest, between which no spread was measured, a fiftieth of what halves them.
_LOG = 0.02
RESPONSES = {
    'psnr': Response('psnr', 'PSNR (dB)', 'dB', 1, 0.06),
    'ssim': Response('ssim', 'SSIM', 'SSIM', 1, 0.0024),
    'log2_mse': Response('mse', 'MSE of pixels in [0, 1]', 'log2 MSE', -1,
                         _LOG, log2=True),
    'lpips': Response('lpips', 'LPIPS (VGG16)', 'LPIPS', -1, 0.002),
    'lpips_alex': Response('lpips_alex', 'LPIPS (AlexNet)', 'LPIPS', -1, 0.002),
    'log2_rfid': Response('rfid', 'rFID', 'log2 rFID', -1, _LOG, log2=True),
    'log2_rfid_frame': Response('rfid_frame', 'rFID by frame', 'log2 rFID', -1,
                                _LOG, log2=True),
    'log2_ris': Response('ris', 'rIS', 'log2 rIS', 1, _LOG, log2=True),
    'rkid': Response('rkid', 'rKID', 'rKID', -1, 0.0005),
    'log2_rfvd': Response('rfvd', 'rFVD', 'log2 rFVD', -1, _LOG, log2=True),
    'log2_gfid': Response('gfid', 'gFID', 'log2 gFID', -1, _LOG, log2=True),
    'log2_gfid_frame': Response('gfid_frame', 'gFID by frame', 'log2 gFID', -1,
                                _LOG, log2=True),
    'log2_gfvd': Response('gfvd', 'gFVD', 'log2 gFVD', -1, _LOG, log2=True),
    'log2_gis': Response('gis', 'gIS', 'log2 gIS', 1, _LOG, log2=True),
    'gkid': Response('gkid', 'gKID', 'gKID', -1, 0.0005),
    'gkid_best': Response('gkid_best', 'gKID at its best guidance', 'gKID', -1,
                          0.0005),
}


def value(row: Mapping, y: str) -> float | None:
  """A unit's response, None where it was not (or cannot be) measured."""
  response = RESPONSES[y]
  found = row.get(response.column)
  if found is None or not math.isfinite(found):
    return None
  if response.log2:
    return math.log2(found) if found > 0 else None
  return float(found)
