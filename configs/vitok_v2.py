"""ViTok-v2 image auto-encoder (arXiv 2605.05331).

The argument is a name of the release, by its own table of sizes
(`sizes.V2_TOWERS`, where L is 1024 wide):
`--config=configs/vitok_v2.py:Ld4-Ld24/1x16x64`. The stored config spells the
widths out. Parallel blocks with LayerScale, RMSNorm of tokens, queries and
keys, no biases in them and no final norm, a LayerNorm on the code in place of
a KL. Weights of the release: `tools/convert_weights.py`.
"""

from vitok import config as config_lib
from vitok import sizes


def get_config(name='Ld4-Ld24/1x16x64'):
  config = config_lib.default()
  config.model.name = str(sizes.parse_v2(name, '--config'))
  config.model.update(
      norm='rmsnorm', block='parallel', layer_scale=1e-4, qk_norm=True,
      bias=False, final_norm=False, bottleneck='layernorm')
  config.loss.pixel = 'charbonnier'
  config.loss.kl_weight = 0.0
  return config
