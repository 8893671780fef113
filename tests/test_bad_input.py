"""What a user gets wrong is refused in one line, before a device is touched."""

import json
import subprocess
import sys

import pytest

from tests import bad_inputs


@pytest.fixture(scope='module')
def tried(tmp_path_factory):
  done = subprocess.run(
      [sys.executable, bad_inputs.__file__,
       str(tmp_path_factory.mktemp('bad'))],
      capture_output=True, text=True, timeout=300, check=False)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


def test_there_are_sixty_cases_and_five_of_each_class():
  assert sum(map(len, bad_inputs.CASES.values())) >= 60
  assert min(map(len, bad_inputs.CASES.values())) >= 5


def test_no_backend_was_started(tried):
  assert tried['backend'] is False


@pytest.mark.parametrize('kind', bad_inputs.CASES)
def test_refused_in_one_line_that_names_key_and_choice(tried, kind):
  for arguments, words, code, stderr in tried['answers'][kind]:
    told = f'{" ".join(arguments)}\n-> {code}: {stderr}'
    assert code == 2, told
    assert stderr.count('\n') == 1 and stderr.startswith('error: '), told
    for word in words:
      assert word in stderr, f'no {word!r}: {told}'


@pytest.mark.parametrize('kind', [
    'misspelt key', 'wrong type', 'impossible size', 'unknown source',
    'unwritable workdir'])
def test_as_a_program_it_exits_2_without_a_traceback(kind, tmp_path):
  bad_inputs.prepare(tmp_path)
  arguments, words = bad_inputs.CASES[kind][0]
  done = subprocess.run(
      [sys.executable, '-m', 'vitok.train',
       *(a.replace('{dir}', str(tmp_path)) for a in arguments)],
      capture_output=True, text=True, timeout=120, check=False)
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1 and 'Traceback' not in done.stderr
  assert all(word in done.stderr for word in words)
