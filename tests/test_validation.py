"""What `validation` refuses beyond one command line (`tests/bad_inputs.py`)."""

import pytest

from tests import runs
from vitok import config as config_lib
from vitok import errors, validation


def test_a_config_files_none_is_refused_like_a_wrong_type():
  config = runs.tiny()
  config.optimizer.clip = None  # `ConfigDict` lets this pass.
  with pytest.raises(errors.InputError, match='optimizer.clip.*NoneType'):
    validation.check(config)


@pytest.mark.parametrize('extend, steps, told', [
    (False, 9, '--extend to train longer'),
    (False, 3, 'never shortened; nearest valid choice: 6'),
    (True, 3, 'never shortened; nearest valid choice: 6')])
def test_a_run_is_extended_on_request_and_never_shortened(
    tmp_path, extend, steps, told):
  (tmp_path / 'config.json').write_text(
      config_lib.to_json(runs.tiny(total_steps=6)))
  for allowed in (6, 9):
    validation.check_workdir(tmp_path, runs.tiny(total_steps=allowed),
                             extend=True)
  with pytest.raises(errors.InputError, match=told):
    validation.check_workdir(tmp_path, runs.tiny(total_steps=steps),
                             extend=extend)
