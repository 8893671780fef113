"""Forward passes and training steps of models, for comparison with XLA."""

import jax
import jax.numpy as jnp

from vitok import config as config_lib
from vitok import models
from vitok.training import mesh as mesh_lib


def lowered(name, resolution, *, frames=1, batch=1, train=False, scan=False,
            **options):
  """One model's program; abstract arguments, so nothing is allocated.

  XLA counts its FLOPs as it is, in a twentieth of the time of compiling it.

  Returns:
    The lowered reconstruction, or with `train` loss and gradients; and the
    model's `Spec`.
  """
  config = config_lib.override(config_lib.default(), {
      f'model.{field}': value for field, value in (
          options | {'name': name, 'scan': scan}).items()}).model
  model = models.build(config, frames=frames, resolution=resolution)
  image = jax.ShapeDtypeStruct((batch, frames, resolution, resolution, 3),
                               jnp.float32)
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch))
  variables = mesh_lib.unbox(jax.eval_shape(
      model.init, jax.random.key(0), image))
  params = variables.pop('params')

  def forward(params, image, keys):
    rest = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), variables)
    return model.apply({'params': params, **rest}, image, keys, train=train,
                       mutable=list(rest))

  def loss(params, image, keys):
    (reconstruction, out), kept = forward(params, image, keys)
    losses = {name: value.mean() for name, value in out['code'].losses.items()
              if name != 'kl_sum'}
    total = jnp.square(reconstruction - image).mean() + 1e-3 * sum(
        losses.values())
    return total, kept

  program = (jax.value_and_grad(loss, has_aux=True) if train
             else lambda *args: forward(*args)[0][0])
  return (jax.jit(program).lower(params, image, keys),
          models.spec(config, frames, resolution))


def compiled(name, resolution, **options):
  """The executable of what is lowered, and the model's `Spec`."""
  program, spec = lowered(name, resolution, **options)
  # Nothing is run: half of the compile time is spent on machine code.
  return program.compile({'xla_backend_optimization_level': 0}), spec
