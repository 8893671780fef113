"""Training objectives by name; a new one is a module and a line here."""

from vitok import errors
from vitok.tasks import adversarial, generation, reconstruction

TASKS = {
    'adversarial': adversarial.Adversarial,
    'generation': generation.Generation,
    'reconstruction': reconstruction.Reconstruction,
}


def check(config):
  """Raises `errors.InputError` if the config names no known task."""
  errors.one_of('config.task', config.task, tuple(TASKS))


def build(config):
  """The task that the config names (`base.Task`)."""
  check(config)
  return TASKS[config.task](config)
