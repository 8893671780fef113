"""ViTok, stage 2: the decoder against a discriminator (arXiv 2501.09755,
sections 2.3 and A.2).

  python -m vitok.train --config=configs/vitok_stage2.py:S-B/16 \
    --config.init_from=runs/sb16 --workdir=runs/sb16-stage2

The argument is the model's name, that of the stage-1 run in `init_from`, with
which `config.model` must agree but for the decoder. The encoder and the
bottleneck stay as they are. Numbers are the paper's: batch 256, 100k steps,
moving average .9999, AdamW as in stage 1, LPIPS 1.0; the weight of the GAN .05
and the discriminator's rate 2e-5, with 25k steps of warm-up, are its ablation's
best (its text says 1.0). The generator's start and ramp are the released
code's. Change them together with `total_steps`.

LPIPS needs the published VGG16: `python tools/fetch_weights.py lpips_vgg16`.
`--config.adversarial.schedule.weight=0.0` is the control: no discriminator,
the same batches.
"""

from vitok import config as config_lib


def get_config(name='S-B/16'):
  config = config_lib.default()
  config.task = 'adversarial'
  config.model.name = name
  config.batch_size = 256
  config.ema_decay = 0.9999
  config.loss.lpips_weight = 1.0
  config.optimizer.groups = (
      {'match': '(encoder|bottleneck)/.*', 'frozen': True},)
  return config
