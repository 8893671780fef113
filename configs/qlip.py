"""QLIP's visual tokenizer, trained to reconstruct (arXiv 2502.05178).

The argument is a size, `--config=configs/qlip.py:B/16`, one of `SIZES`: B/16
and B/8 at 256 pixels, L/14 at 392 and, for tests, F/4 at 32. Both towers are of
that size: blocks with norms before the last linear map of attention and MLP and
no bias of keys, learned positions and rotary ones on a grid of 16 x 16, a CLS
token in the encoder, a decoder whose head has a hidden layer. Patches go
through an MLP to 28 bits (binary spherical quantization) and through another
one to the decoder.

Of stage 1 it has the mean squared error, the entropies of the bits (each on its
own, at inverse temperature 1) and the commitment, 1000 : 1 : 1, and the numbers
of table 8: 120k steps of 65,536 images, 2k of them warm-up, clipped at 5,
weight decay .05. Pixels are in [-1, 1], where the paper's have CLIP's mean and
variance, so that the squared error weighs a quarter as much.

Not here yet: the text tower and the contrastive loss, which would train the CLS
token (here nothing does), their pretrained starts, and LAMB. It is AdamW at the
paper's base rate; the paper's rates of each tower are made for LAMB.
"""

from vitok import config as config_lib
from vitok import errors

SIZES = {  # Tower, patch and resolution in pixels.
    'B/16': ('B', 16, 256),
    'B/8': ('B', 8, 256),
    'L/14': ('Lw1024f2730', 14, 392),
    'F/4': ('F', 4, 32),
}


def get_config(size='B/16'):
  errors.one_of('--config', size, tuple(SIZES))
  tower, patch, resolution = SIZES[size]
  config = config_lib.default()
  config.total_steps = 120_000
  config.batch_size = 65_536
  config.model.update(
      name=f'{tower}-{tower}/1x{patch}x28', positions='rope2d_learned',
      key_bias=False, sub_norm=True, cls=True, bottleneck='bsq',
      projection='mlp', head='tanh')
  config.model.quantizer.update(product=28, temperature=1.0)
  config.loss.update(commitment_weight=1e-3, entropy_weight=1e-3)
  config.data.resolution = resolution
  config.optimizer.update(
      learning_rate=5e-4, reference_batch=0, min_learning_rate=0.0,
      warmup=1 / 60, weight_decay=0.05, clip=5.0)
  return config
