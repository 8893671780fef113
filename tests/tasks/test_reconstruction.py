"""The reconstruction task beyond its gradients (tests/parity has those)."""

from tests import runs
from vitok.metrics import latent
from vitok.training import trainer


def test_a_code_that_cannot_be_coded_does_not_stop_a_run(
    tmp_path, monkeypatch):
  def fails(*_):
    raise ValueError('no step loses less')
  monkeypatch.setattr(latent, 'coded_bits', fails)
  trainer.train(runs.tiny(total_steps=1, evaluation__coded=4), tmp_path,
                say=lambda line: None)
  last = runs.lines(tmp_path)[-1]
  assert 'eval/psnr' in last and 'eval/coded_bits' not in last
  assert (tmp_path / 'DONE').exists()
