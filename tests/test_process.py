"""Programs start once more with a tuned allocator, as the same process."""

import os
import subprocess
import sys

import pytest

PROGRAM = '''
import os, sys, time
from vitok import process
if __name__ == '__main__':
  process.start()
  print(os.getpid(), os.environ.get('GLIBC_TUNABLES'), *sys.argv, flush=True)
  time.sleep(float(sys.argv[1]))
'''


@pytest.fixture
def program(tmp_path):
  path = tmp_path / 'program.py'
  path.write_text(PROGRAM)
  return path


def start(program, seconds, **environment):
  inherited = {k: v for k, v in os.environ.items() if k != 'GLIBC_TUNABLES'}
  return subprocess.Popen(
      [sys.executable, program, str(seconds)], stdout=subprocess.PIPE,
      text=True, env=inherited | environment)


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc is on Linux')
def test_the_process_keeps_its_number_and_arguments(program):
  process = start(program, 0)
  number, tunables, path, seconds = process.communicate()[0].split()
  assert int(number) == process.pid and seconds == '0'
  assert 'mmap_threshold' in tunables and path == str(program)


def test_a_users_own_choice_is_kept(program):
  process = start(program, 0, GLIBC_TUNABLES='glibc.malloc.check=0')
  assert process.communicate()[0].split()[1] == 'glibc.malloc.check=0'


def test_sigterm_before_there_is_anything_to_save_is_a_clean_exit(program):
  process = start(program, 60)
  process.stdout.readline()
  process.terminate()
  assert process.wait(20) == 0


def test_a_finished_program_ends_whatever_its_threads_do(tmp_path):
  path = tmp_path / 'program.py'
  path.write_text('''
import atexit, sys, threading, time
from vitok import process
if __name__ == '__main__':
  atexit.register(print, 'torn down')
  threading.Thread(target=time.sleep, args=(600,)).start()
  print('done')
  process.run(lambda: sys.exit(3))
''')
  done = subprocess.run([sys.executable, path], capture_output=True, text=True,
                        timeout=60, check=False)
  assert done.returncode == 3 and done.stdout == 'done\n'
