"""The auto-encoder equals its PyTorch twin, in values and gradients, to 1e-5.

The twin computes in float64. Differences are relative to the largest number
of each array.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vitok import config, models

torch = pytest.importorskip('torch', reason='parity tests need torch')

from tests.parity import torch_autoencoder  # noqa: E402

CASES = {
    'paper': {},
    'gelu_rmsnorm_rope1d': dict(
        mlp='gelu', norm='rmsnorm', positions='rope1d'),
    'learned_deterministic': dict(
        positions='learned', bottleneck='deterministic'),
    'rope3d_heads_of_64_72': dict(positions='rope3d', name='P-Aw72h1/2x8'),
}
# They differ from those above in constants alone: gradients come as there.
VALUES = {
    'none': dict(positions='none'),
    'sincos': dict(positions='sincos'),
    'sincos_clip': dict(positions='sincos', name='A-A/2x8'),
    'rope3d_heads_of_32': dict(positions='rope3d', name='A-A/2x8'),
}


def close(a, b, what):
  a, b = np.asarray(a), np.asarray(b)
  scale = max(np.abs(b).max(), 1e-6)
  np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=1e-5,
                             err_msg=what)


@pytest.mark.parametrize('case', [*CASES, *VALUES])
def test_values_and_gradients_equal_pytorch(case):
  conf = config.default().model
  conf.update({'name': 'A-Fw64h2/8', **(CASES | VALUES)[case]})
  frames = 4 if '2x8' in conf.name else 1
  model = models.build(conf, frames=frames, resolution=32)
  rng = np.random.default_rng(0)
  image = rng.uniform(-1, 1, (2, frames, 32, 32, 3)).astype(np.float32)
  keys = jax.random.split(jax.random.key(1), 2)
  shapes = nn.unbox(jax.eval_shape(model.init, keys[0], image))['params']
  params = jax.tree.map(  # Biases too: zeros would hide mistakes.
      lambda p: (rng.standard_normal(p.shape) / 10).astype(p.dtype), shapes)

  def loss(params):
    y, out = model.apply({'params': params}, image, keys, True)
    kl = out['code'].losses.get('kl_sum', jnp.zeros(2))
    code = out['code'].z.shape[1:]
    noise = jax.vmap(lambda key: jax.random.normal(key, code))(keys)
    return jnp.square(y - image).mean() + 1e-3 * kl.mean(), (y, kl, noise)

  fast = {'xla_backend_optimization_level': 0}  # To compile, not to run.
  if case in VALUES:
    (value, (y, kl, noise)), grads = jax.jit(
        loss, compiler_options=fast)(params), None
  else:
    (value, (y, kl, noise)), grads = jax.jit(
        jax.value_and_grad(loss, has_aux=True), compiler_options=fast)(params)

  twin = torch_autoencoder.AutoEncoder(
      model.size, model.grid, conf.mlp, conf.norm, conf.positions,
      conf.bottleneck)
  torch_autoencoder.load(twin, params).double()  # All rounding is JAX's.
  assert sum(p.numel() for p in twin.parameters()) == sum(
      p.size for p in jax.tree.leaves(params))
  target = torch.tensor(image).double()
  y_twin, kl_twin = twin(target, torch.tensor(np.asarray(noise)).double())
  value_twin = ((y_twin - target)**2).mean() + 1e-3 * kl_twin.mean()
  close(value, value_twin.detach(), 'loss')
  close(y, y_twin.detach(), 'reconstruction')
  close(kl, kl_twin.detach(), 'kl')
  if case in VALUES:
    return
  value_twin.backward()
  for name, p in twin.named_parameters():
    close(torch_autoencoder.from_jax(twin, name, grads), p.grad, name)
