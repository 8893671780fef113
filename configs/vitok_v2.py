"""ViTok-v2 image auto-encoder and its training (arXiv 2605.05331).

The argument is a name of the release, by its own table of sizes
(`sizes.V2_TOWERS`, where L is 1024 wide):
`--config=configs/vitok_v2.py:Ld4-Ld24/1x16x64`. The stored config spells the
widths out. Parallel blocks with LayerScale, RMSNorm of tokens, queries and
keys, no biases in them and no final norm, a LayerNorm on the code in place of
a KL. Weights of the release: `tools/convert_weights.py`.

It is trained on images at their own size and aspect ratio with Charbonnier +
0.1 SSIM + 500 times the distance of a self-supervised network's features,
without LPIPS or GAN. The network, on Hugging Face, is to be converted once:

  python tools/convert_weights.py dinov2_base --file=model.safetensors

Without it a run is refused, since a model that lacks its main loss would pass
for ViTok-v2. `--config.loss.feature_weight=0` asks for that one and needs no
file. (The paper's network is DINOv3, here it is DINOv2, which anyone may
download; `feature_network` has others.)

SSIM and the network see one tile of each image (two in the released code). Its
side is half of the resolution, as there by default, so that images of up to 1:4
fill it: whoever changes `data.resolution` sets `loss.feature_tile` too. An
evaluation is of centred squares, as elsewhere, unless `evaluation.crop=native`.
"""

from vitok import config as config_lib
from vitok import sizes


def get_config(name='Ld4-Ld24/1x16x64'):
  config = config_lib.default()
  config.model.name = str(sizes.parse_v2(name, '--config'))
  config.model.update(
      norm='rmsnorm', block='parallel', layer_scale=1e-4, qk_norm=True,
      bias=False, final_norm=False, bottleneck='layernorm')
  config.data.crop = 'native'
  config.loss.update(
      pixel='charbonnier', kl_weight=0.0, ssim_weight=0.1,
      feature_weight=500.0, feature_network='dinov2_base',
      feature_tile=config.data.resolution // 2)
  return config
