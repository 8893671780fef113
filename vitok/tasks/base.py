"""What a training objective is to the trainer: players that give gradients.

The seam is the gradient. A task says how gradients, statistics and metrics
come from a batch; the trainer alone clips, accumulates, updates, averages,
checks, shards and saves. GANs, frozen towers, k-means (statistics without
gradients) and score-function estimators therefore need no second loop.

Letters: B examples of a global batch.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp

PyTree = Any
Batch = Mapping[str, jax.Array]

# The player that is an auto-encoder, in every task that has one.
AUTOENCODER = 'autoencoder'


@flax.struct.dataclass
class State:
  """All that training changes; dictionaries are keyed by player.

  Attributes:
    step: int32 scalar, number of updates that were committed.
    params: trained parameters.
    opt: optimizer states; None for a player without gradients.
    ema: moving averages of the parameters; None where a player keeps none.
    stats: what is not trained by gradients (codebook sums, usage, baselines).
  """
  step: jax.Array
  params: dict[str, PyTree]
  opt: dict[str, PyTree]
  ema: dict[str, PyTree]
  stats: dict[str, PyTree]


@flax.struct.dataclass
class Result:
  """What a player's `grad` returns.

  Attributes:
    grads: gradients like the player's parameters, or None (k-means).
    stats: the player's new statistics.
    metrics: {name: scalar}, means over the batch.
    carry: handed to the players after it (a generator's output).
  """
  grads: PyTree | None
  stats: PyTree
  metrics: dict[str, jax.Array]
  carry: dict[str, Any] = flax.struct.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Player:
  """One set of parameters with its own gradient.

  Attributes:
    name: key into the dictionaries of `State`.
    grad: `(state, frozen, batch, key, carry) -> Result`, pure. `batch` holds
      'row', the global row of each example: noise is keyed by `key` and row.
    optimizer: fields as `config.optimizer`, which None stands for.
    optimizer_key: dotted config key of these fields, for errors.
    ema_decay: decay of the moving average of the parameters; 0 keeps none.
    when: `step -> bool scalar`, traced; None plays at every step.
    additive: whether the gradient of a batch is the mean of the gradients of
      its parts. Accumulation refuses a player that does not declare it.
  """
  name: str
  grad: Callable[[State, PyTree, Batch, jax.Array, dict[str, Any]], Result]
  optimizer: Any = None
  optimizer_key: str = 'config.optimizer'
  ema_decay: float = 0.0
  when: Callable[[jax.Array], jax.Array] | None = None
  additive: bool = False


class Evaluator(Protocol):
  """Measures a state; the trainer jits, shards and feeds it.

  Attributes:
    name: prefix of its metrics.
    functions: {name: `(state, frozen, batch, key) -> pytree`}, pure; `key` is
      the run's and not the step's, so that an evaluation repeats.
  """
  name: str
  functions: Mapping[str, Callable[..., PyTree]]

  def run(self, functions: Mapping[str, Callable[[Batch], PyTree]],
          batches: Iterable[Batch], step: int, workdir: Any,
          last: bool) -> Iterator[tuple[str, Any]]:
    """Yields (metric, value).

    Args:
      functions: `functions` bound to the state: `batch -> numpy pytree`,
        the same on every process, which all call them in the same order.
        Between two calls the trainer may leave.
      batches: sharded batches in fixed order, padded with 'mask', as often
        as they are asked for; `count` examples. `spread(n)` gives batches of
        n examples, evenly spread over all, 0 of all.
      step: of the state that is measured.
      workdir: where files go; None on all processes but the first.
      last: whether training ends here, so that costly measures are due.
    """


@dataclasses.dataclass(frozen=True)
class WeightRef:
  """A frozen network's weights: where they come from and their SHA-256.

  Attributes:
    statistics: says which numbers `load` gives beside them; '': none.
    shapes: of what `load` gives, where they are known without it.
  """
  source: str
  sha256: str
  load: Callable[[], PyTree] = dataclasses.field(compare=False)
  statistics: str = ''
  shapes: Callable[[], PyTree] | None = dataclasses.field(
      default=None, compare=False)

  def abstract(self) -> PyTree:
    """What `load` gives, as shapes; touches no device."""
    return self.shapes() if self.shapes else jax.eval_shape(self.load)

  @property
  def content(self) -> str:
    """What `load` gives, wherever it lies: equal texts, equal numbers."""
    return f'{self.sha256} {self.statistics}'.rstrip()


class Task(Protocol):
  """A training objective.

  Attributes:
    players: in the order in which they play.
    weights: {name: WeightRef} of frozen networks, the step's second argument.
    evaluation_weights: those of them that evaluators need.
  """
  players: tuple[Player, ...]
  weights: Mapping[str, WeightRef]
  evaluation_weights: Mapping[str, WeightRef]

  def init(self, key: jax.Array) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
    """Returns (parameters, statistics) by player, Linen's boxes included."""

  def evaluators(self) -> tuple[Evaluator, ...]:
    """What is measured at `config.evaluation.every`."""

  def cost(self, devices: int = 1) -> dict[str, Any]:
    """Accounting of the task on so many devices, as written to model.json."""


def example_keys(key: jax.Array, ids: jax.Array) -> jax.Array:
  """One key an example, (B,), so that noise follows it to any device."""
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, ids)


def rows(batch: Batch) -> Batch:
  """What tells the examples of a batch apart, for an evaluator's tables.

  A function of an evaluator returns it beside its values, since a process
  cannot read all rows of its batch.
  """
  return {name: batch[name] for name in ('mask', 'index', 'group')}


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
  """Mean of (B,) values over the examples that are not padding."""
  return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1)
