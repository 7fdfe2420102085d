"""How commands end before their time: the exit code says why, and nothing temporary stays beyond the next command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from roost.api.models.published import write_model_directory
from roost.cli.app import run
from roost.errors import RoostError
from roost.temporary import sweep, temporary_file, temporary_folder

pytestmark = pytest.mark.long

PLAN = ("plan", "sdxl", "--gpu", "rtx-4090", "--ram", "64GiB", "--no-measured")
# A command that tells when it is in the middle of things, and stays there. The dry run needs the temporary folder; the
# plan's file is written but not yet moved to its place.
IN_A_DRY_RUN = "import roost.api.models.traces as it; it.dry_run = lambda *_: wait()"
IN_A_WRITE = "import os; os.replace = lambda *_: wait()"
PROGRAM = """
import time
def wait():
    print("here", flush=True)
    time.sleep(60)
{where}
import roost.cli
roost.cli.main()
"""

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that everything temporary, every cache and every list goes into."""
    for name in ("TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def _waiting(where: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    program = [sys.executable, "-c", PROGRAM.format(where=where), *words]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n", child.stderr and child.stderr.read()
        yield child
        child.kill()


def _temporary(world: Path) -> list[str]:
    """What is temporary in the world, lists of such things included."""
    found = [
        *world.rglob("*.roost-tmp*"),
        *(world / "TMPDIR").iterdir(),
        *world.glob("XDG_STATE_HOME/roost/temporary/*"),
    ]
    return sorted({str(path.relative_to(world)) for path in found})


@pytest.mark.dealt(2)
@needs_signals
@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("SIGINT", 130, "error: interrupted.\n"),
        ("SIGTERM", 143, "error: terminated.\n"),
        ("SIGHUP", 129, "error: its terminal is gone.\n"),
    ],
)
@pytest.mark.parametrize(
    ("where", "more"), [(IN_A_DRY_RUN, ()), (IN_A_WRITE, ("--policy", "rules", "-o", "plan.yaml"))]
)
def test_a_signal_ends_a_command_with_its_code_and_nothing_temporary_stays(
    name: str, code: int, said: str, where: str, more: tuple[str, ...], world: Path
) -> None:
    with _waiting(where, *PLAN, *more) as child:
        assert _temporary(world) != []
        child.send_signal(getattr(signal, name))
        _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (code, said)
    assert _temporary(world) == []
    assert not (world / "plan.yaml").exists()


@needs_signals
def test_a_hangup_and_a_second_signal_are_one_wish(world: Path) -> None:
    with _waiting(IN_A_DRY_RUN, *PLAN) as child:
        child.send_signal(signal.SIGHUP)
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=30)
    assert child.returncode in (129, 130, 143)  # the kernel delivers what waits together in an order of its own
    assert _temporary(world) == []


@needs_signals
def test_what_nohup_ignores_stays_ignored(world: Path) -> None:
    with _waiting(f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); {IN_A_DRY_RUN}", *PLAN) as child:
        child.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.3)
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=30)
    assert child.returncode == 143


@needs_signals
@pytest.mark.parametrize(
    ("where", "more"), [(IN_A_DRY_RUN, ()), (IN_A_WRITE, ("--policy", "rules", "-o", "out/plan.yaml"))]
)
def test_what_a_killed_command_left_goes_with_the_next_one_and_what_is_in_use_stays(
    where: str, more: tuple[str, ...], world: Path, capsys
) -> None:
    (world / "out").mkdir()
    with _waiting(where, *PLAN, *more) as child:
        in_use = _temporary(world)
        assert run(["gpus"]) == 0
        assert _temporary(world) == in_use
        child.send_signal(signal.SIGKILL)
        child.wait(30)
    assert _temporary(world) == in_use
    assert run(["gpus"]) == 0
    assert _temporary(world) == []


def test_sweeping_takes_nothing_that_only_looks_like_it_or_is_listed_by_another(world: Path) -> None:
    kept = [world / "plan.yaml", world / "notes.roost-tmp", world / ".x.12.0123456z.roost-tmp", world / "list"]
    for path in kept:
        path.write_text("mine")
    outside = world / "outside"
    outside.mkdir()
    link = world / ".x.12.01234567.roost-tmp"
    link.symlink_to(outside)
    lists = world / "XDG_STATE_HOME" / "roost" / "temporary"
    lists.mkdir(parents=True)
    lines = [*(f'"{path}"' for path in (*kept, link)), "torn \xff", "[1]", '"\\u0000"', "[" * 10_000]
    (lists / "99999999.01234567").write_text("\n".join(lines))
    (lists / "README").write_text("a person's")
    sweep()
    assert [path.read_text() for path in kept] == ["mine"] * len(kept)
    assert link.is_symlink()
    assert outside.is_dir()
    assert [path.name for path in lists.iterdir()] == ["README"]


@needs_signals
def test_without_a_state_directory_the_next_write_in_a_folder_sweeps_it(world: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/none")
    with _waiting(IN_A_WRITE, *PLAN, "--policy", "rules", "-o", "plan.yaml") as child:
        child.send_signal(signal.SIGKILL)
        child.wait(30)
    (left,) = _temporary(world)
    program = "from pathlib import Path; from roost.plan import write_text_atomically as w; w(Path('other.txt'), '')"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert not (world / left).exists()
    assert (world / "other.txt").exists()


def test_a_fork_removes_nothing_of_its_parents(world: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from roost.temporary import *\n"
        "with temporary_folder() as folder, temporary_file(Path('x')) as file:\n"
        "    pid = os.fork()\n"
        "    if not pid: sys.exit(0)\n"
        "    os.waitpid(pid, 0); print(folder.is_dir(), file.is_file())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("True True\n")


def test_temporary_names_fit_where_the_longest_names_do(world: Path) -> None:
    for name in ("n" * 255, "ü" * 127, "🐦" * 63):
        with temporary_file(world / name, ".png") as temporary:
            temporary.write_text("x")
            os.replace(temporary, world / name)
        assert (world / name).read_text() == "x"
    with temporary_folder() as folder:
        (folder / "sub").mkdir()
    assert not folder.exists()


@pytest.fixture
def killed(world: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes a model's directory and dies in the middle; where it was."""

    def write(name: str) -> Path:
        program = (
            "import roost.api.models.published as it, os, signal; from pathlib import Path\n"
            "it._write_sparse = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
            f"it.write_model_directory({name!r}, Path('dir'), sparse=True)"
        )
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
        assert (world / "dir" / "model_index.json").exists()
        return world / "dir"

    return write


def _content(directory: Path) -> dict[str, int]:
    return {str(path.relative_to(directory)): path.lstat().st_size for path in directory.rglob("*")}


@needs_signals
def test_model_dir_replaces_what_a_killed_one_left_and_nothing_else(killed, real_model, world: Path, capsys) -> None:
    directory = killed("flux.1-dev")
    (directory / "mine.txt").touch()
    assert run(["model-dir", "sdxl", "dir", "--sparse"]) == 2
    assert "it has 'mine.txt'" in capsys.readouterr().err
    (directory / "mine.txt").unlink()
    (directory / "vae" / "config.json").unlink()
    (directory / "vae").rmdir()
    (directory / "vae").symlink_to(world / "TMPDIR")
    assert run(["model-dir", "sdxl", "dir", "--sparse"]) == 2
    (directory / "vae").unlink()
    assert run(["model-dir", "sdxl", "dir", "--sparse"]) == 0
    assert _content(directory) == _content(real_model("sdxl"))
    assert run(["model-dir", "sdxl", "dir", "--sparse"]) == 2  # a finished one isn't its own work any more


def test_model_dir_leaves_nothing_when_it_can_not_be_finished(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("roost.api.models.published._write_sparse", full)
    (world / "empty").mkdir()
    for name, left in (("new", False), ("empty", True)):
        with pytest.raises(RoostError, match="No space left on device"):
            write_model_directory("sdxl", world / name, sparse=True)
        assert (world / name).exists() == left
    assert list((world / "empty").iterdir()) == []


def test_a_place_that_is_no_directory_is_a_usage_error(world: Path, capsys) -> None:
    os.mkfifo("fifo")
    Path("file").touch()
    Path("loop").symlink_to("loop")
    for place in ("/dev/full", "fifo", "file", "file/below", "fifo/below", "/proc/none", "loop", "n" * 300):
        assert run(["model-dir", "sdxl", place, "--sparse"]) == 2, place
        assert capsys.readouterr().err.count("\n") == 1


@needs_signals
def test_a_user_without_a_home_gets_no_folder_named_after_it(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    def unknown(_: int) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert run([*PLAN, "--policy", "rules", "-o", "plan.yaml"]) == 0
    assert run(["profiles"]) == 0
    assert not (world / "~").exists()


@pytest.mark.dealt(2)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("inspect nix 2>/dev/full", 2),
        ("inspect nix >/dev/full 2>&1", 2),
        ("nix 2>/dev/full", 2),
        ("models >/dev/full 2>&1", 1),
        ("models 2>/dev/full", 0),
        (f"{' '.join(PLAN)} --policy rules -o plan.yaml 2>/dev/full", 0),
    ],
)
def test_a_full_stderr_changes_no_exit_code(words: str, code: int, world: Path) -> None:
    program = f"{sys.executable} -m roost {words}"
    assert subprocess.run(["bash", "-c", program], stdout=subprocess.DEVNULL, check=False).returncode == code
