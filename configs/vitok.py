"""ViTok image auto-encoder, stage 1 (arXiv 2501.09755, sections 2.2 and A).

The argument is the model's name: `--config=configs/vitok.py:S-B/16`. Numbers
are the paper's where it gives them: batch 1024, 100k steps, AdamW (.9, .95),
weight decay 1e-4, peak learning rate 1e-4 per 256 images, KL weight 1e-3. Its
LPIPS weight is 1 and here 0, so that it runs without fetched weights:

  python tools/fetch_weights.py lpips_vgg16
  python -m vitok.train --config=configs/vitok.py --config.loss.lpips_weight=1.0
"""

from vitok import config as config_lib


def get_config(name='S-B/16'):
  config = config_lib.default()
  config.model.name = name
  return config
