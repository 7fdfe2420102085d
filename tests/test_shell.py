"""Commands that messages tell to type work when they are pasted, and paths are shown whole."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from roost.cli.screen import show_error
from roost.shell_quoting import command, shown_path

PATHS = (
    "plain.yaml",
    "my plans/a $b plan.yaml",
    "two  spaces.yaml",
    "it's.yaml",
    'a "quoted" name',
    "back\\slash",
    "$(touch pwned)",
    "`touch pwned`",
    "a;b&c|d>e",
    "*?[x]{a,b}",
    "~/plan.yaml",
    "#comment",
    "!history!",
    "é 中文.yaml",
    "F:\\models\\New v4.4\\tiny",
)
UNPRINTABLE = ("a\nb", "tab\tbed", "nbsp\u00a0", "stray\udcff7", "esc\x1b[2J'\\")


@pytest.mark.parametrize("path", PATHS)
def test_a_command_is_read_by_a_shell_as_the_words_it_was_made_of(path: str) -> None:
    line = command("roost", "run", Path(path), "--model", path)
    assert shlex.split(line) == ["roost", "run", path, "--model", path]
    printed = subprocess.run(["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True)
    assert printed.stdout.splitlines() == ["roost", "run", path, "--model", path]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("path", UNPRINTABLE)
def test_what_a_terminal_can_not_show_is_escaped_for_the_shell(path: str) -> None:
    line = command("roost", path)
    assert line.isprintable()
    printed = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    assert [os.fsdecode(each) for each in printed.stdout.split(b"\0")[:-1]] == ["roost", path]


def test_a_path_never_passes_for_an_option() -> None:
    assert shlex.split(command("roost", "run", Path("-x.yaml")))[2] == "./-x.yaml"
    assert command("roost", "--force") == "roost --force"


def test_a_path_too_long_to_be_shown_is_left_to_be_completed() -> None:
    assert command("roost", "run", Path("w" * 5000)) == "roost run PATH"


@pytest.mark.parametrize("path", ["F:\\models\\New v4.4\\tiny", "\\\\server\\share\\m", "/home/a b/é"])
def test_a_path_is_shown_whole_and_with_its_own_backslashes(path: str) -> None:
    assert shown_path(path) == f"'{path}'"


def test_a_command_in_an_error_is_shown_as_it_was_made(capsys: pytest.CaptureFixture[str]) -> None:
    line = command("roost", "run", Path("a  b/$c.yaml"))
    show_error(f"nothing there;\nmake one with: {line}")
    assert capsys.readouterr().err == f"error: nothing there; make one with: {line}\n"
