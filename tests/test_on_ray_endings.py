"""However a run on a cluster of its own ends, nothing of it stays, and the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil
import pytest

pytest.importorskip("ray")

from ray_runs import Planned, digests, planned, ran

LEFT_S = 20.0
AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}  # of a node that was killed: they leave after a minute
STARTED_S = 120.0
PROMPTS = 40
WORKER = "ray::WorkerActor"


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    return planned(tmp_path_factory.mktemp("sdxl"), "sdxl", "roles")


def test_a_run_that_is_ended_leaves_nothing_and_the_same_command_finishes(
    sdxl: Planned, tmp_path: Path, capfd: Any
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"fox {number}" for number in range(PROMPTS)))
    alone = ran(capfd, str(sdxl.alone), "--prompts", str(prompts), "-o", str(tmp_path / "alone.png"))
    words = ("run", str(sdxl.fleet), "--on", "ray", "--prompts", str(prompts), "-o", str(tmp_path / "fox.png"))

    def outputs() -> int:
        return len(list(tmp_path.glob("fox-*.png")))

    assert _ended(words, outputs, signal.SIGINT)[0] == 130
    assert _ended(words, _count_workers, signal.SIGTERM)[0] == 143
    before = outputs()
    code, pids = _ended(words, lambda: outputs() - before, signal.SIGKILL)
    made = outputs()
    assert (code, made < PROMPTS) == (-signal.SIGKILL, True)

    last = subprocess.run(_command(words, "--json"), capture_output=True, text=True, check=True)
    fleet = json.loads(last.stdout)
    assert last.stderr == ""
    assert digests(fleet) == digests(alone)
    assert sum(each["skipped"] for each in fleet["generations"]) >= made - 1  # one may be saved and not noted
    assert _temporary(pids) == []


def _command(words: Sequence[str], *more: str) -> list[str]:
    return [sys.executable, "-m", "roost", *words, *more]


def _ended(words: Sequence[str], begun: Callable[[], int], how: signal.Signals) -> tuple[int, list[int]]:
    """The exit code of a run that the signal ended once something had ``begun``, and its processes' numbers.

    Checks that none of them is left, and no file of those that could remove theirs.
    """
    child = subprocess.Popen(_command(words), stderr=subprocess.PIPE, start_new_session=True)
    until_s = monotonic() + STARTED_S
    while not begun():
        assert child.poll() is None, child.stderr.read()  # type: ignore[union-attr]
        assert monotonic() < until_s
        sleep(0.05)
    family = psutil.Process(child.pid).children(recursive=True)
    pids = [child.pid, *(each.pid for each in family)]
    if how == signal.SIGINT:  # as a terminal does
        os.killpg(child.pid, how)
    else:
        child.send_signal(how)
    child.wait(LEFT_S)
    left = {each.name() for each in psutil.wait_procs(family, LEFT_S)[1]}
    if how == signal.SIGKILL:
        assert left <= AGENTS
    else:
        assert (left, _temporary(pids)) == (set(), [])
    return child.returncode, pids


def _count_workers() -> int:
    """Those of this process's children."""
    names = [" ".join(each.cmdline()) for each in psutil.Process().children(recursive=True) if each.is_running()]
    return sum(WORKER in each for each in names)


def _temporary(pids: Sequence[int]) -> list[str]:
    """Files and folders of processes."""
    found = [*Path(tempfile.gettempdir()).glob("*.roost-tmp"), *Path("/dev/shm").glob("*")]
    return [str(each) for each in found if any(f".{pid}." in each.name for pid in pids)]
