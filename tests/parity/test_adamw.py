"""Our optimizer against PyTorch's AdamW and gradient clipping."""

import numpy as np
import optax
import pytest

from vitok import config as config_lib
from vitok.training import optimizers

torch = pytest.importorskip('torch', reason='parity tests need torch')


def test_three_steps_equal_torch_adamw_in_two_groups():
  config = config_lib.default().optimizer
  config.update(dict(learning_rate=1e-2, reference_batch=0, weight_decay=0.1,
                     schedule='constant', warmup=0.0, clip=1.0))
  config.groups = (dict(match='decoder/.*', learning_rate=0.3),)
  rng = np.random.default_rng(0)
  draw = lambda: {
      side: {'kernel': np.float32(rng.standard_normal((5, 7))),
             'bias': np.float32(rng.standard_normal(7))}
      for side in ('encoder', 'decoder')}
  params, grads = draw(), [draw() for _ in range(3)]

  theirs = {side: {name: torch.nn.Parameter(torch.tensor(value))
                   for name, value in params[side].items()} for side in params}
  rates = dict(encoder=1e-2, decoder=3e-3)
  adamw = torch.optim.AdamW(
      [dict(params=[theirs[side][name]], lr=rates[side],
            weight_decay=0.1 if name == 'kernel' else 0.0)
       for side in theirs for name in theirs[side]],
      betas=(config.b1, config.b2), eps=1e-8)
  transform = optimizers.build(config, 32, 10, params)
  state = transform.init(params)
  for grad in grads:
    for side in theirs:
      for name in theirs[side]:
        theirs[side][name].grad = torch.tensor(grad[side][name])
    torch.nn.utils.clip_grad_norm_(
        [p for group in adamw.param_groups for p in group['params']], 1.0)
    adamw.step()
    updates, state = transform.update(grad, state, params)
    params = optax.apply_updates(params, updates)
  for side in theirs:
    for name in theirs[side]:
      np.testing.assert_allclose(
          params[side][name], theirs[side][name].detach().numpy(), rtol=0,
          atol=1e-6)
