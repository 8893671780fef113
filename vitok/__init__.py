"""vitok: how visual tokenizers scale.

Importing the package is cheap and starts no accelerator; `vitok.load` imports
JAX on its first use.
"""

__version__ = '0.1.0'


def load(workdir, checkpoint=None):
  """Opens a trained tokenizer; see `vitok.loading.load`."""
  from vitok import loading  # Late: analysis imports vitok without flax.
  return loading.load(workdir, checkpoint)
