"""Ray is imported by runs on it alone, and what it does wrong as it starts is a line."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from roost.cli.app import run
from roost.errors import RoostError
from roost.fleet.ray_cluster import opened_cluster

NOT_IMPORTED = """
import sys
import roost
from roost.cli.app import run
{}
assert "ray" not in sys.modules
"""


class FakeRay:
    """Starts after so many failures."""

    def __init__(self, failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failures, self.started, self.shut = failures, [], 0
        context = SimpleNamespace(get_node_id=lambda: "a")
        node = {"NodeID": "a", "NodeManagerAddress": "10.0.0.1", "NodeManagerHostname": "here", "Resources": {}}
        fake = SimpleNamespace(
            init=self._init,
            shutdown=self._shutdown,
            nodes=lambda: [{**node, "Alive": True}],
            get_runtime_context=lambda: context,
        )
        for name in ("ray", "ray.util", "ray.util.scheduling_strategies"):
            monkeypatch.setitem(sys.modules, name, fake)

    def _init(self, **how: Any) -> None:
        self.started.append(how)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Ray puts a handler of its own there
        if len(self.started) <= self.failures:
            raise RuntimeError("The current node timed out during startup.")

    def _shutdown(self) -> None:
        self.shut += 1


@pytest.mark.parametrize(
    "command",
    [
        "",
        "run(['run', '--help'])",
        "run(['plan', '--help'])",
        "assert run(['run', 'nothing.yaml', '--prompt', 'a fox']) == 2",
        "assert run(['plan', 'flux.1-dev', '--gpu', 'rtx-4090', '--ram', '64GiB', '--policy', 'rules']) in (0, 3)",
    ],
)
def test_ray_is_not_imported_by(command: str) -> None:
    subprocess.run([sys.executable, "-c", NOT_IMPORTED.format(command)], check=True, capture_output=True)


def test_a_start_that_times_out_is_tried_again_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, notes = FakeRay(1, monkeypatch), []
    with opened_cluster(None, 3, notes.append) as cluster:
        assert [(each.name, each.here) for each in cluster.nodes] == [("here", True)]
    assert notes == ["Ray did not start within its time; trying again (2 of 3)"]
    assert [each["num_cpus"] for each in fake.started] == [3, 3]
    assert fake.shut == 2


def test_three_starts_that_fail_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRay(3, monkeypatch)
    with pytest.raises(RoostError, match=r"Ray doesn't start here \(The current node timed out during startup\.\)"):
        opened_cluster(None, 3, lambda _: None).__enter__()


def test_the_cluster_s_folder_goes_with_the_run_and_is_nobody_else_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    fake = FakeRay(0, monkeypatch)
    with opened_cluster(None, 1, lambda _: None):
        folder = Path(fake.started[0]["_temp_dir"])
        assert folder.parent.stat().st_mode & 0o777 == 0o700
        assert len(str(folder)) + 64 <= 107
    assert not folder.parent.exists()


def test_a_person_s_folder_for_ray_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    fake = FakeRay(0, monkeypatch)
    with opened_cluster(None, 1, lambda _: None):
        assert fake.started[0]["_temp_dir"] is None


def test_what_handled_sigterm_before_ray_handles_it_after(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRay(0, monkeypatch)
    before = signal.getsignal(signal.SIGTERM)
    with opened_cluster(None, 1, lambda _: None):
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("on", ["dask", "ray:", "ray:host", "ray://host:10001"])
def test_other_engines_are_refused(on: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["run", "plan.yaml", "--on", on, "--prompt", "a fox"]) == 2


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RoostError, match=r"pip install 'roost\[fleet\]'"):
        opened_cluster(None, 1, lambda _: None).__enter__()
