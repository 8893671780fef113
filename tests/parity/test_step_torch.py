"""One whole training step against PyTorch: loss, clip, AdamW, schedule, EMA."""

import math

import jax
import numpy as np
import pytest

from tests import runs
from vitok import data
from vitok.training import program as program_lib

torch = pytest.importorskip('torch', reason='parity tests need torch')

from tests.parity import torch_autoencoder  # noqa: E402

PLAYER = 'autoencoder'
CLIP, DECAY, PEAK, EMA = 0.05, 0.1, 1e-3, 0.9


def test_the_first_step_equals_pytorch():
  config = runs.tiny(
      loss__kl_reduction='mean', loss__kl_weight=0.3, ema_decay=EMA,
      optimizer__clip=CLIP, optimizer__weight_decay=DECAY,
      optimizer__learning_rate=PEAK)
  program = program_lib.Program(config, jax.devices()[:1])
  run = program.run_arguments(config)
  state = program.init(run)
  before = jax.device_get(state.params[PLAYER])
  batches = data.train_batches(config, program.batch_sharding)
  batch = next(batches)
  batches.close()
  image = np.asarray(batch['image'])

  model = program.task.model
  twin = torch_autoencoder.AutoEncoder(
      model.size, model.grid, config.model.mlp, config.model.norm,
      config.model.positions, config.model.bottleneck)
  torch_autoencoder.load(twin, before).double()
  # The step's key, then the player's, then one for each row of the batch.
  key = run.key
  for data_ in (1, 0, 0):  # Stream of steps, step 0, player 0.
    key = jax.random.fold_in(key, data_)
  floats = (math.prod(model.grid), model.size.channels)
  noise = np.stack([jax.random.normal(jax.random.fold_in(key, row), floats)
                    for row in range(len(image))])
  target = torch.tensor(image).double()
  y, kl = twin(target, torch.tensor(noise).double())
  l2 = ((y - target)**2).mean()
  loss = l2 + 0.3 * kl.mean() / math.prod(floats)
  loss.backward()
  named = dict(twin.named_parameters())
  norm = torch.nn.utils.clip_grad_norm_(named.values(), CLIP)
  assert norm > CLIP  # Or the clip would not be tested.
  kernels = {name for name, p in named.items()
             if name.endswith('weight') and p.ndim == 2}
  rate = PEAK / 3  # The first of three steps of warm-up.
  grads = {name: p.grad.clone() for name, p in named.items()}
  torch.optim.AdamW(
      [dict(params=[p for name, p in named.items()
                    if (name in kernels) == decays], weight_decay=decay)
       for decays, decay in ((True, DECAY), (False, 0.0))],
      lr=rate, betas=(config.optimizer.b1, config.optimizer.b2)).step()

  step = program.compile_step(batch, run)
  state, metrics = step(state, batch, program.frozen, run)
  expected = dict(loss=loss, l2=l2, kl_sum=kl.mean(), gradient_norm=norm,
                  learning_rate=torch.tensor(rate),
                  kl_mean=kl.mean() / math.prod(floats))
  for name, value in expected.items():
    assert float(metrics[name]) == pytest.approx(
        float(value.detach()), rel=1e-5), name
  after, ema = jax.device_get((state.params[PLAYER], state.ema[PLAYER]))
  compared = []
  for name, p in named.items():
    ours = torch_autoencoder.from_jax(twin, name, after)
    sure = grads[name].abs().numpy() > 1e-6  # Adam divides by their size.
    compared.append(sure.mean())
    error = np.abs(np.asarray(ours) - p.detach().numpy())
    assert error[sure].max(initial=0) < 1e-3 * rate, name
    assert error.max() <= 2.01 * rate, name
  assert np.mean(compared) > 0.5
  for old, new, mean in zip(*map(jax.tree.leaves, (before, after, ema)),
                            strict=True):
    np.testing.assert_allclose(mean, EMA * old + (1 - EMA) * new, rtol=1e-5,
                               atol=1e-7)
