"""Commands that end where little works: a signal while Python drops exceptions, no file that may be opened."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and limits")

_IN_A_DESTRUCTOR = """
import os, signal, sys, time
from roost.cli.endings import endings

class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.001)

endings.catch()
try:
    Dropped()
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(endings.exit_code)
"""


def test_a_signal_in_a_destructor_ends_the_command_without_a_word_of_python_s() -> None:
    ended = subprocess.run([sys.executable, "-c", _IN_A_DESTRUCTOR], capture_output=True, check=False, timeout=30)
    assert (ended.returncode, ended.stderr) == (143, b"")


_WITH_FEW_FILES = """
import resource, sys
import roost.cli.app
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
sys.argv = ["roost", "run", "plan.yaml", "--prompt", "x"]
roost.cli.main()
"""


def test_a_process_that_may_open_no_files_ends_in_one_line() -> None:
    ended = subprocess.run([sys.executable, "-c", _WITH_FEW_FILES], capture_output=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr == b"error: this process may open no more files; raise the limit (ulimit -n) and try again.\n"
