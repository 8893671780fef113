"""What `benchmark.py` lets compete, and how it takes their times.

A contestant is a function that returns seconds. Imported from the folder that
the program lies in, as Python does for a program that is run as a file.
"""

import functools
import importlib.util
import itertools
import math
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from vitok import data, sizes
from vitok.tasks import base
from vitok.training import checkpoints
from vitok.training import program as program_lib

TWIN = (pathlib.Path(__file__).parents[1]
        / 'tests' / 'parity' / 'torch_autoencoder.py')
FORMS = ('forward', 'input gradient', 'weight gradient')
_SETTLE = 0.2  # Seconds in which the threads of the one before go to sleep.


def fastest(call, seconds):
  """Seconds of the fastest call, of as many as fit; each is waited for."""
  best, end = math.inf, time.perf_counter() + seconds
  while True:
    start = time.perf_counter()
    jax.block_until_ready(call())
    now = time.perf_counter()
    best = min(best, now - start)
    if now > end:
      return best


def paced(call, seconds):
  """A contestant: how long a call takes in a row of calls of `seconds`."""
  jax.block_until_ready(call())
  start = time.perf_counter()
  jax.block_until_ready(call())
  count = max(1, round(seconds / (time.perf_counter() - start)))

  def measure():
    start = time.perf_counter()
    for _ in range(count):
      out = call()
    jax.block_until_ready(out)
    return (time.perf_counter() - start) / count
  return measure


def in_turn(contestants, rounds, say=lambda share, text: None):
  """{name: seconds of each round}; contestants return seconds."""
  found = {name: [] for name in contestants}
  for i in range(rounds):
    for name, measure in contestants.items():
      time.sleep(_SETTLE)
      found[name].append(measure())
    say((i + 1) / rounds, f'round {i + 1} of {rounds}')
  return found


def ratio(above, below):
  """Median of the ratios of two contestants, round by round."""
  return statistics.median(a / b for a, b in zip(above, below, strict=True))


class Product:
  """A matrix product, several times in a call, by XLA or by PyTorch."""

  def __init__(self, form, m, k, n, dtype='float32', torch=None):
    self.name = f'{m}x{k}x{n} {form}'
    x_shape, y_shape, axes = {  # Which axes are contracted.
        'forward': ((m, k), (k, n), (1, 0)),
        'input gradient': ((m, n), (k, n), (1, 1)),
        'weight gradient': ((m, k), (m, n), (0, 0))}[form]
    # Many small ones in a call, or the call itself would count.
    heavy = 1e9 if jax.default_backend() == 'cpu' else 5e11
    count = max(1, min(16, math.ceil(heavy / (2 * m * k * n))))
    self.flops = count * 2 * m * k * n
    rng = np.random.default_rng(0)  # Constants run too fast on a GPU.
    xs = [rng.standard_normal(x_shape, np.float32) for _ in range(count)]
    y = rng.standard_normal(y_shape, np.float32)
    if torch is None:
      dot = jax.jit(lambda xs, y: [jax.lax.dot_general(
          x, y, ((axes[:1], axes[1:]), ((), ()))) for x in xs])
      self.call = functools.partial(dot, *jax.tree.map(
          lambda x: jnp.asarray(x, dtype), (xs, y)))
    else:
      xs = [torch.from_numpy(x if axes[0] else x.T) for x in xs]
      y = torch.from_numpy(y.T if axes[1] else y)
      self.call = lambda: [torch.mm(x, y) for x in xs]


def products(size, mlp, rows):
  """(form, m, k, n) of every linear map over `rows` tokens, with gradients."""
  maps = {(size.patch_dim, size.encoder.width),
          (size.decoder.width, size.patch_dim)}
  for tower in (size.encoder, size.decoder):
    width, hidden = tower.width, tower.hidden(mlp)
    maps |= {(width, 3 * width), (width, width), (width, hidden),
             (hidden, width)}
  return [(form, rows, *kn) for kn in sorted(maps) for form in FORMS]


def best_product(shapes, seconds, make):
  """(the fastest product, {name: FLOP/s})."""
  speeds, best = {}, None
  for shape in shapes:
    product = make(*shape)
    fastest(product.call, 0)  # Compiles.
    speeds[product.name] = product.flops / fastest(product.call, seconds)
    if speeds[product.name] == max(speeds.values()):
      best = product
  return best, speeds


class Ours:
  """The auto-encoder as the trainer runs it, on one device and one batch."""

  def __init__(self, config):
    self.config = config
    self.program = program_lib.Program(config, jax.devices()[:1])
    arguments = self.program.run_arguments(config)
    self.batch = {name: jax.device_put(x, self.program.batch_sharding)
                  for name, x in data.host_batch(config, 0).items()}
    self.state = self.program.init(arguments)
    start = time.perf_counter()
    compiled = self.program.compile_step(self.batch, arguments)
    self.compile_seconds = time.perf_counter() - start
    self._step = lambda state: compiled(
        state, self.batch, self.program.frozen, arguments)
    model = self.program.task.model
    self._forward = jax.jit(
        lambda variables, image: model.apply(variables, image)[0])
    flops = self.program.task.cost()['flops']
    self.flops = {name: config.batch_size * flops[key] for name, key in (
        ('forward', 'forward'), ('step', 'train_step'))}

  @property
  def params(self):
    return self.state.params[base.AUTOENCODER]

  def forward(self):
    variables = {'params': self.params,
                 **self.state.stats[base.AUTOENCODER]}
    with jax.set_mesh(self.program.mesh):
      return self._forward(variables, self.batch['image'])

  def step(self):
    self.state, metrics = self._step(self.state)
    return metrics


class Theirs:
  """The same in PyTorch, as one writes it there; float32 on the CPU."""

  def __init__(self, ours, torch):
    config = ours.config
    spec = importlib.util.spec_from_file_location('torch_autoencoder', TWIN)
    twin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(twin)
    model = config.model
    size = sizes.from_config(model)
    self.net = twin.load(twin.AutoEncoder(
        size, size.grid(config.data.frames, config.data.resolution),
        model.mlp, model.norm, model.positions, model.bottleneck), ours.params)
    self._torch, self._config = torch, config
    self._image = torch.tensor(np.asarray(ours.batch['image']))
    code = size.tokens(config.data.frames, config.data.resolution)
    self._code = (config.batch_size, code, size.channels)
    named = list(self.net.named_parameters())
    decays = lambda n, p: n.endswith('weight') and p.ndim == 2
    optimizer = config.optimizer
    self._optimizer = torch.optim.AdamW(
        [dict(params=[p for n, p in named if decays(n, p)],
              weight_decay=optimizer.weight_decay),
         dict(params=[p for n, p in named if not decays(n, p)],
              weight_decay=0.0)],
        lr=optimizer.learning_rate, betas=(optimizer.b1, optimizer.b2),
        fused=True)
    # Of the largest number: rounding is relative to that.
    expected, found = np.asarray(ours.forward()), self.forward().numpy()
    self.difference = float(
        np.abs(found - expected).max() / np.abs(expected).max())
    assert self.difference <= 1e-5, f'outputs differ by {self.difference:.1e}'

  def forward(self):
    with self._torch.inference_mode():
      return self.net(self._image)[0]

  def step(self, net):
    torch = self._torch
    self._optimizer.zero_grad()
    y, kl = net(self._image, torch.randn(self._code))
    loss = torch.nn.functional.mse_loss(y, self._image) + (
        self._config.loss.kl_weight * kl.mean() / math.prod(self._code[1:]))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(self.net.parameters(),
                                   self._config.optimizer.clip)
    self._optimizer.step()


def reader(config, sharding, seconds):
  """A contestant: how long the data pipeline takes for an image."""
  def measure():
    batches, count = data.train_batches(config, sharding), 0
    try:
      next(batches)
      start = time.perf_counter()
      while count < 8 or time.perf_counter() - start < seconds:
        out = next(batches)
        count += 1
      jax.block_until_ready(out)
      return (time.perf_counter() - start) / count / config.batch_size
    finally:
      batches.close()
  return measure


def time_checkpoints(ours, folder, step_seconds, rounds, say):
  """Seconds that a save takes: alone, and from the steps that go on."""
  numbers = itertools.count(1)
  config = ours.config.checkpoint.copy_and_resolve_references()
  config.keep = 1
  store = checkpoints.Checkpoints(folder, config)
  blocked = []

  def save():
    start = time.perf_counter()
    store.save(next(numbers), ours.state, {})
    blocked.append(time.perf_counter() - start)

  def run(steps, saves):
    start = time.perf_counter()
    if saves:
      save()
    for _ in range(steps):
      out = ours.step()
    jax.block_until_ready(out if steps else ours.state)
    if saves:
      store.wait()
    return time.perf_counter() - start

  run(0, True)  # Starts threads, makes folders.
  alone = run(0, True)
  steps = max(4, math.ceil(1.5 * alone / step_seconds))
  rounds = max(2, min(rounds, int(30 / (steps * step_seconds))))
  found = in_turn({'without': lambda: run(steps, False),
                   'with': lambda: run(steps, True)}, rounds, say)
  store.close()
  lost = statistics.median(
      a - b for a, b in zip(found['with'], found['without'], strict=True))
  step = statistics.median(found['without']) / steps
  every, total = ours.config.checkpoint.every, ours.config.total_steps
  inside = (total - 1) // every if every else 0  # The last save is waited for.
  return found | dict(
      lost_seconds=lost, alone_seconds=alone,
      blocked_seconds=statistics.median(blocked[2:]), every=every,
      total_steps=total, step_seconds=step, steps=steps, rounds=rounds,
      share=lost / (every * step) if every else 0.0,
      share_of_run=(inside * lost + alone) / (
          total * step + inside * lost + alone))
