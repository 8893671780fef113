"""A DiT on the codes of a trained tokenizer (arXiv 2501.09755, section 3.2).

`--config=configs/dit.py:NAME:WORKDIR`: NAME is a size of
`vitok.accounting.dit`, WORKDIR that of the finished tokenizer, whose model and
data the config takes over. Numbers are those of ViTok's sweeps: DDPM's linear
schedule, noise predicted, 500k steps at batch 256, learning rate 1e-4, moving
average .9999, DDIM of 250 steps.

The model sees no class unless `--config.diffusion.classes=1000` says how many
there are. Then samples can be guided, in the paper with
`--config.generation.guidance='(1.5,3.0)'`. For wide codes
`--config.diffusion.shift=0` shifts the schedule by the size of the code.
"""

from etils import epath

from vitok import config as config_lib


def get_config(arg='S'):
  name, _, workdir = arg.partition(':')
  config = config_lib.default()
  config.task = 'generation'
  config.total_steps = 500_000
  config.batch_size = 256
  config.ema_decay = 0.9999
  config.dit.name = name
  config.optimizer.min_learning_rate = 3e-5
  config.optimizer.warmup = 0.1
  if workdir:
    config.tokenizer.workdir = workdir
    own = config_lib.read(epath.Path(workdir) / 'config.json')
    for part in ('model', 'data', 'evaluation'):
      config[part] = own[part]
    config.evaluation.numbers = ()  # The tokenizer's are of reconstructions.
    for part in (config.data, config.evaluation):
      if part.crop == 'native':  # Codes of one size are what a DiT learns.
        part.crop = 'center'
    if config.data.frames > 1:
      config.dit.positions = 'rope3d'
  return config
