"""Codes, straight-through gradients and losses of vector-quantize-pytorch.

Its codebooks in evaluation, since it trains them by rules of its own (with
k-means, restarts at random counts). Its residual quantizer wraps each stage in
a straight-through estimator, so that a gradient comes as often as there are
stages; here it comes once.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import test_discrete as discrete

torch = pytest.importorskip('torch', reason='needs the extra [parity]')
theirs = pytest.importorskip('vector_quantize_pytorch',
                             reason='needs the extra [parity]')

SHAPE, CODES = (3, 10, 4), 9


def inputs(channels=SHAPE[-1]):
  random = np.random.default_rng(0)
  return [random.normal(0, 1.5, (*SHAPE[:2], channels)).astype(np.float32)
          for _ in range(2)]


def same(module, variables, x, up, quantise, stages=1):
  """Compares z, integers and the gradient of <z, up> by x.

  Args:
    quantise: torch tensor -> (z, integers (B, L) or (B, L, K)).
    stages: how often their gradient comes.
  """
  z, back = jax.vjp(lambda x: module.apply(variables, x).z, jnp.array(x))
  ids = np.asarray(module.apply(variables, x).ids)
  tensor = torch.tensor(x, requires_grad=True)
  their_z, their_ids = quantise(tensor)
  np.testing.assert_allclose(z, their_z.detach(), rtol=1e-6, atol=1e-6)
  np.testing.assert_array_equal(
      ids, their_ids.numpy().reshape(ids.shape))
  their_z.backward(torch.tensor(up))
  np.testing.assert_allclose(stages * back(jnp.array(up))[0], tensor.grad,
                             rtol=1e-5, atol=1e-6)


def with_entries(variables, entries):
  """Variables with a codebook (S, P, R, d) of theirs."""
  return variables | {'stats': variables['stats'] | {
      'entries': jnp.array(np.stack(entries))}}


@pytest.mark.parametrize('distance', ['euclidean', 'cosine'])
@pytest.mark.parametrize('parts', [1, 2])
def test_vq(distance, parts):
  module, variables = discrete.build('vq', SHAPE[-1], dict(
      size=CODES, distance=distance, product=parts))
  torch.manual_seed(0)
  made = theirs.VectorQuantize(
      dim=SHAPE[-1], codebook_size=CODES, codebook_dim=SHAPE[-1] // parts,
      heads=parts, separate_codebook_per_head=True, rotation_trick=False,
      use_cosine_sim=distance == 'cosine')
  made.project_in = made.project_out = torch.nn.Identity()
  made.eval()
  variables = with_entries(variables,
                           [made._codebook.embed.detach().numpy()])
  x, up = inputs()

  def quantise(tensor):
    # Evaluation has no gradient there; training that moves nothing has one.
    made.train()
    z, ids, loss = made(tensor, freeze_codebook=True)
    # Theirs is a mean over channels.
    ours = module.apply(variables, x).losses['commitment'].mean() / SHAPE[-1]
    assert float(loss.detach().sum()) == pytest.approx(float(ours), rel=1e-5)
    made.eval()
    plain, plain_ids, _ = made(tensor)
    assert torch.equal(plain_ids, ids)
    torch.testing.assert_close(plain, z)
    return z, ids
  same(module, variables, x, up, quantise)


def test_residual_vq_whose_gradient_they_take_once_a_stage():
  stages = 3
  module, variables = discrete.build('vq', SHAPE[-1], dict(
      size=CODES, residual=stages))
  torch.manual_seed(0)
  made = theirs.ResidualVQ(dim=SHAPE[-1], codebook_size=CODES,
                           num_quantizers=stages, rotation_trick=False)
  entries = [layer._codebook.embed.detach().numpy() for layer in made.layers]
  variables = with_entries(variables, entries)
  x, up = inputs()

  def quantise(tensor):
    z, ids, losses = made(tensor, freeze_codebook=True)
    ours = module.apply(variables, x).losses['commitment'].mean() / SHAPE[-1]
    assert float(losses.detach().sum()) == pytest.approx(float(ours), rel=1e-5)
    return z, ids
  same(module, variables, x, up, quantise, stages)


@pytest.mark.parametrize('levels', [(8, 5, 4, 3), (7, 3, 4, 6)])
def test_fsq(levels):
  module, variables = discrete.build('fsq', 4, dict(levels=levels))
  x, up = inputs()
  same(module, variables, x, up, theirs.FSQ(levels=list(levels)))


def test_fsq_in_parts():
  module, variables = discrete.build('fsq', 4, dict(levels=(8, 5), product=2))
  made = theirs.FSQ(levels=[8, 5], num_codebooks=2, dim=4)
  made.project_in = made.project_out = torch.nn.Identity()
  same(module, variables, *inputs(), made)


@pytest.mark.parametrize('parts', [1, 2])
@pytest.mark.parametrize('spherical', [False, True])
def test_lfq_and_its_form_on_the_sphere(parts, spherical):
  tau, gamma = 0.7, 0.3
  channels = SHAPE[-1]
  module, variables = discrete.build('lfq', channels, dict(
      product=parts, temperature=tau, gammas=(1.0, gamma)))
  made = theirs.LFQ(
      codebook_size=2**(channels // parts), num_codebooks=parts,
      dim=channels, diversity_gamma=gamma, entropy_loss_weight=1.0,
      commitment_loss_weight=0.25)
  x, up = inputs()
  if spherical:  # Vectors of unit length are what BSQ makes itself.
    x /= np.linalg.norm(x, axis=-1, keepdims=True)

  def quantise(tensor):
    (z, ids, _), parts_of_loss = made(
        tensor, inv_temperature=tau, return_loss_breakdown=True)
    code = module.apply(variables, x)
    # Theirs are means over the parts, sums here; and means over channels.
    assert float(parts_of_loss.per_sample_entropy) * parts == pytest.approx(
        float(code.stats['sample_entropy']), rel=1e-4)
    assert float(parts_of_loss.batch_entropy) * parts == pytest.approx(
        float(code.stats['codebook_entropy']), rel=1e-4)
    assert float(parts_of_loss.commitment) * channels == pytest.approx(
        float(code.losses['commitment'].mean()), rel=1e-5)
    return z, ids
  same(module, variables, x, up, quantise)
