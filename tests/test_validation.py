"""What `validation` refuses beyond one command line (`tests/bad_inputs.py`)."""

import socket

import pytest
from etils import epath

from tests import runs
from vitok import config as config_lib
from vitok import errors, validation


def test_a_config_files_none_is_refused_like_a_wrong_type():
  config = runs.tiny()
  config.optimizer.clip = None  # `ConfigDict` lets this pass.
  with pytest.raises(errors.InputError, match='optimizer.clip.*NoneType'):
    validation.check(config)


def test_hosts_with_equal_process_ids_try_the_workdir_at_once(
    tmp_path, monkeypatch):
  names, write = set(), type(epath.Path(tmp_path)).write_text

  def other_host_was_here(path, text):
    names.add(path.name)
    write(path, text)
    if path.name.startswith('.'):
      path.unlink()
  monkeypatch.setattr(type(epath.Path(tmp_path)), 'write_text',
                      other_host_was_here)
  for host in ('a', 'b'):
    monkeypatch.setattr(socket, 'gethostname', lambda host=host: host)
    validation.check_workdir(tmp_path, runs.tiny())
  assert len(names) == 2 and not list(tmp_path.iterdir())


def test_a_source_of_parameters_is_needed_until_the_first_checkpoint(tmp_path):
  config = runs.tiny(init_from=f'{tmp_path}/gone')
  with pytest.raises(errors.InputError, match='init_from.*gone.*checkpoint'):
    validation.check_workdir(tmp_path / 'run', config)
  (tmp_path / 'run' / 'checkpoints' / '3').mkdir(parents=True)
  validation.check_workdir(tmp_path / 'run', config)


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
