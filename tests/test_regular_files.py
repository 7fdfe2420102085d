"""What stands where a file of Roost's own should be, and is none, is neither waited for nor read without end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roost.cli.app import run
from roost.probes.dry_run.cache import read_trace
from roost.profiles.store import MeasuredStore
from roost.regular_files import read_regular

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")


def _pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


def test_a_file_is_read_up_to_a_number_of_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 3) == b"123"


@pytest.mark.parametrize("place", ["pipe", "/dev/zero", "."])
def test_anything_else_is_an_error_at_once(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _pipe(Path("pipe"))
    with pytest.raises(OSError, match=r"not a regular file|directory"):
        read_regular(Path(place), 10)


def test_a_pipe_in_the_store_is_noted_and_not_used(capsys: pytest.CaptureFixture[str]) -> None:
    _pipe(MeasuredStore().folder / "card" / "model.yaml")
    assert run(["profiles"]) == 0
    assert "are not used: it is not a regular file" in capsys.readouterr().err


def test_a_pipe_as_an_export_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profiles", "import", str(_pipe(tmp_path / "export.json"))]) == 2
    assert "it is not a regular file" in capsys.readouterr().err


def test_a_device_in_place_of_a_trace_is_no_trace(tmp_path: Path) -> None:
    (tmp_path / "key.json").symlink_to("/dev/zero")
    assert read_trace(tmp_path, "key") is None
