"""The notebook opens a finished sweep, and needs no training code for it."""

import json
import pathlib

import nbclient
import nbformat
import pytest

from tests.scaling import synthetic

NOTEBOOK = pathlib.Path(__file__).parents[1] / 'experiments/analysis.ipynb'


@pytest.fixture
def executed(tmp_path, monkeypatch):
  workdir = synthetic.write(tmp_path / 'sweep', synthetic.grid(
      lambda tokens, channels: 8 + 2 * synthetic.log2(tokens * channels),
      longer=lambda t, c: 8.1 + 2 * synthetic.log2(t * c), rates=(0.5, 2)),
                            source='photographs')
  monkeypatch.setenv('VITOK_SWEEP', str(workdir))
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  notebook.cells.append(nbformat.v4.new_code_cell(
      'import json, sys\nprint(json.dumps(sorted(sys.modules)))'))
  nbclient.NotebookClient(
      notebook, timeout=300, resources={'metadata': {
          'path': str(NOTEBOOK.parent)}}).execute()
  return notebook


def test_it_runs_shows_the_verdict_and_imports_no_training_code(executed):
  modules = json.loads(executed.cells[-1].outputs[0]['text'])
  assert 'vitok.scaling.analysis' in modules
  assert not {'jax', 'flax', 'tensorflow', 'optax', 'orbax', 'grain'
              } & set(modules)
  shown = json.dumps(executed.cells)
  assert '<b>demonstration</b>' in shown
  assert shown.count('image/png') > 8


def test_it_is_committed_without_outputs():
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  assert not any(cell.get('outputs') for cell in notebook.cells)
