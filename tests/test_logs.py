"""Whoever must find out why: tracebacks shown or kept, and a log through the standard module, for those who ask."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from platformdirs import user_state_path

from roost.api import machine
from roost.cli.app import run
from roost.errors import InvalidFile

BROKEN = "a screw \x1b[2J is loose"


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``roost gpus`` fails as nobody expected, on a machine whose state folder is empty."""

    def fail() -> None:
        raise ZeroDivisionError(BROKEN)

    monkeypatch.setattr(machine, "survey_machine", fail)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("ROOST_DEBUG", raising=False)


@pytest.mark.usefixtures("broken")
def test_an_unexpected_error_is_one_line_that_says_where_its_traceback_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gpus"]) == 1
    error = capsys.readouterr().err
    kept = user_state_path("roost") / "last-traceback.txt"
    assert error.startswith("error: unexpected ZeroDivisionError: a screw \\x1b[2J is loose.")
    assert error.count("\n") == 1
    assert f"the traceback, which is in {str(kept)!r} and which 'roost --traceback …' or ROOST_DEBUG=1 shows" in error
    assert kept.read_text(encoding="utf-8").startswith("Traceback (most recent call last):")
    assert "in fail" in kept.read_text(encoding="utf-8")


@pytest.mark.usefixtures("broken")
def test_only_the_latest_traceback_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert [run(["gpus"]) for _ in range(3)] == [1, 1, 1]
    assert len(list(user_state_path("roost").iterdir())) == 1


@pytest.mark.usefixtures("broken")
def test_where_no_traceback_can_be_kept_the_line_says_how_to_see_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    assert run(["gpus"]) == 1
    assert "and the traceback, which 'roost --traceback …' or ROOST_DEBUG=1 shows." in capsys.readouterr().err


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(("arguments", "variable"), [(["--traceback", "gpus"], "0"), (["gpus"], "1")])
def test_a_traceback_is_shown_above_the_line_when_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], variable: str
) -> None:
    monkeypatch.setenv("ROOST_DEBUG", variable)
    assert run(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last):")
    assert "in fail" in error
    assert error.splitlines()[-1].endswith("with the command that led here and the traceback above.")
    assert not user_state_path("roost").exists()
    monkeypatch.setenv("ROOST_DEBUG", "")
    assert run(["gpus"]) == 1
    assert "Traceback" not in capsys.readouterr().err  # what one command was asked is not for the next


def test_an_expected_error_comes_with_its_traceback_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "/nowhere.yaml"]) == InvalidFile.exit_code
    assert "Traceback" not in capsys.readouterr().err
    assert run(["--traceback", "explain", "/nowhere.yaml"]) == InvalidFile.exit_code
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last):")
    assert error.splitlines()[-1].startswith("error: plan '/nowhere.yaml' is not a file")


def _lines_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, list[str]]:
    plan = ["plan", "wan2.2-t2v-a14b", "--gpu", "rtx-4090", "--ram", "96GiB", "--policy", "rules", "--json"]
    assert run([*arguments, *plan]) == 0
    said = capsys.readouterr()
    return said.out, [line.split("  ")[1] for line in said.err.splitlines()]


def test_the_log_is_on_stderr_and_as_detailed_as_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    quiet, nothing = _lines_of(capsys)
    verbose, some = _lines_of(capsys, "-v")
    _, more = _lines_of(capsys, "-vv")
    assert nothing == []
    assert {"roost.api", "roost.probes"} == {".".join(name.split(".")[:2]) for name in some}
    assert len(more) > len(some)
    assert verbose == quiet
    assert _lines_of(capsys)[1] == []


def test_a_log_line_is_one_line_without_terminal_codes(capsys: pytest.CaptureFixture[str]) -> None:
    run(["-v", "gpus"])
    capsys.readouterr()
    logging.getLogger("roost.api.anything").info("a model named %s", "x\x1b[2J\nerror: y")
    line = capsys.readouterr().err
    run(["gpus"])
    assert line.endswith("  roost.api.anything  a model named x\\x1b[2J\\nerror: y\n")


def test_as_a_library_roost_says_nothing_unless_its_user_wants_it() -> None:
    code = (
        "import logging, roost, roost.probes.machine.host\n"
        "logging.getLogger('roost.probes').critical('not heard')\n"
        "roost.probes.machine.host.read_host()\n"
        "logging.basicConfig(level='DEBUG', format='%(name)s')\n"
        "roost.probes.machine.host.read_host()\n"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert child.stdout == ""
    assert child.stderr.split() == ["roost.probes.machine.host"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_system_that_refuses_memory_is_exit_code_5(error, monkeypatch, capsys) -> None:
    from roost.cli import app

    def fail(*_: object, **__: object) -> None:
        try:
            raise error
        except type(error) as cause:
            raise RuntimeError("Failed to import diffusers") from cause

    monkeypatch.setattr(app, "_command", lambda: fail)
    assert app.run(["models"]) == 5
    assert capsys.readouterr().err.startswith("error: host memory ran out; free some")
