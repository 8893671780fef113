"""Eight virtual CPU devices for every test process."""

import jax
from absl import flags

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
if not flags.FLAGS.is_parsed():
  flags.FLAGS.mark_as_parsed()  # Grain's worker processes read them.
