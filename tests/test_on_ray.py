"""A fleet's plan runs on Ray with the bits of one process, its files and its journal; what can't be is one line."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import pytest

pytest.importorskip("ray")

from ray_runs import DEATHS, REFUSED, SMALL, DyingServer, Planned, RefusingServer, StoppingServer, digests, planned, ran
from ray_servers import nodes_of_ray
from roost.api.fleets import on_ray
from roost.api.fleets.server import PipelineServer, WorkerSpec
from roost.cli.app import run
from roost.errors import NothingFits

SEEDS = ("--prompt", "a fox", "--seed", "7", "--seed", "8")
TIMEOUT_S = 40.0  # loading takes seconds without a sign of life
HOSTS = """
hosts:
  - {name: left, gpus: emulated}
  - {name: right, gpus: emulated}
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, nodes_of_ray(2, Path(folder)) as found:
        yield found


@pytest.fixture(scope="module")
def there(nodes: Any) -> tuple[str, str]:
    """The words that run a plan on the cluster that is there."""
    return "--on", f"ray:{nodes.address}"


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    return planned(tmp_path_factory.mktemp("sdxl"), "sdxl", "roles")


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    """One on each of two hosts."""
    folder = tmp_path_factory.mktemp("replicas")
    (folder / "hosts.yaml").write_text(HOSTS)
    return planned(folder, "sdxl", "replicas", str(folder / "hosts.yaml"))


@pytest.mark.parametrize(
    ("family", "output", "sizes"),
    [
        ("flux", "fox.png", SMALL),
        ("wan2.2", "fox.mp4", (*SMALL, "--frames", "9")),
        pytest.param("qwen-image", "fox.png", SMALL, marks=pytest.mark.slow),
        pytest.param("ltx", "fox.mp4", (*SMALL, "--frames", "9"), marks=pytest.mark.slow),
    ],
)
def test_roles_give_the_bits_of_one_process_and_read_their_own_weights(
    family: str, output: str, sizes: tuple[str, ...], there: tuple[str, str], tmp_path: Path, capfd: Any
) -> None:
    found = planned(tmp_path, family, "roles", sizes=sizes)
    alone = ran(capfd, str(found.alone), *SEEDS, "-o", str(tmp_path / f"alone-{output}"))
    fleet = ran(capfd, str(found.fleet), *there, *SEEDS, "-o", str(tmp_path / output))
    assert digests(fleet) == digests(alone)
    for theirs, ours in zip(alone["output"], fleet["output"], strict=True):
        assert Path(theirs).name == f"alone-{Path(ours).name}"
        assert Path(theirs).read_bytes() == Path(ours).read_bytes()
    assert [each["role"] for each in fleet["workers"]] == ["encoder", "decoder", "denoiser"]
    for each in fleet["workers"]:
        weights = [Path(name).parent.name for name in each["files_read"] if name.endswith(".safetensors")]
        assert sorted(set(weights)) == sorted(each["components"])
        assert (each["requests"], each["restarts"]) == (2, 0)
        assert 0 < each["peak_bytes"] < each["host_peak_bytes"]


@pytest.mark.parametrize("server", [DyingServer, pytest.param(StoppingServer, marks=pytest.mark.slow)])
def test_each_role_may_be_killed_or_stop_at_its_work(
    server: type[PipelineServer],
    sdxl: Planned,
    there: tuple[str, str],
    tmp_path: Path,
    capfd: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds = ("--prompt", "a fox", *(word for seed in DEATHS for word in ("--seed", str(seed))))
    alone = ran(capfd, str(sdxl.alone), *seeds, "-o", str(tmp_path / "alone.png"))
    monkeypatch.setattr(on_ray, "PipelineServer", server)
    monkeypatch.setattr(on_ray, "RayOptions", partial(on_ray.RayOptions, heartbeat_timeout_s=TIMEOUT_S))
    fleet = ran(capfd, str(sdxl.fleet), *there, *seeds, "-o", str(tmp_path / "fleet.png"))
    assert digests(fleet) == digests(alone)
    assert [each["restarts"] for each in fleet["workers"]] == [1, 1, 1]


def test_replicas_share_a_list_and_a_later_run_makes_what_is_missing(
    replicas: Planned,
    nodes: Any,
    there: tuple[str, str],
    tmp_path: Path,
    capfd: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f"a fox\n{REFUSED}\na dog\na cat\na red fox\na hen\n")
    alone = ran(capfd, str(replicas.alone), "--prompts", str(prompts), "-o", str(tmp_path / "alone.png"))
    words = (str(replicas.fleet), *there, "--prompts", str(prompts), "-o", str(tmp_path / "fox.png"))
    with monkeypatch.context() as patched:
        patched.setattr(on_ray, "PipelineServer", RefusingServer)
        assert run(["run", *words]) == NothingFits.exit_code
    said = capfd.readouterr().err.splitlines()
    assert said[-1] == "error: it doesn't fit."
    assert sum(REFUSED in line and "failed" in line for line in said) == 1
    assert sorted(each.name for each in tmp_path.glob("fox-*")) == [
        f"fox-{number:04}.png" for number in (1, 3, 4, 5, 6)
    ]

    fleet = ran(capfd, *words)
    assert digests(fleet) == digests(alone)
    assert [each["skipped"] for each in fleet["generations"]] == [True, False, True, True, True, True]
    assert fleet["output"] == [str(tmp_path / f"fox-{number:04}.png") for number in range(1, 7)]
    assert [each["host"] for each in fleet["workers"]] == ["left", "right"]
    journal = [line for line in (tmp_path / "fox.journal.jsonl").read_text().splitlines() if line]
    assert sorted(json.loads(line)["prompt"] for line in journal) == sorted(prompts.read_text().splitlines())
    assert (
        list(Path(nodes.head_node.get_temp_dir_path()).parent.glob("*.roost-tmp")) == []
    )  # of the host without the driver


def test_a_host_without_the_model_is_named(
    sdxl: Planned, there: tuple[str, str], tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "WorkerSpec", lambda **given: WorkerSpec(**{**given, "model": str(tmp_path / "gone")}))
    assert run(["run", str(sdxl.fleet), *there, *SEEDS, "-o", str(tmp_path / "fox.png")]) == 4
    (line,) = capfd.readouterr().err.splitlines()
    assert "on host: " in line
    assert str(tmp_path / "gone") in line


def test_an_address_where_nothing_is_costs_one_line(sdxl: Planned, tmp_path: Path, capfd: Any) -> None:
    assert run(["run", str(sdxl.fleet), "--on", "ray:127.0.0.1:1", *SEEDS, "-o", str(tmp_path / "fox.png")]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: --on ray:127.0.0.1:1: the cluster can't be joined")


def test_a_plan_of_more_hosts_than_nodes_is_refused(there: tuple[str, str], tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "hosts.yaml").write_text(HOSTS + "  - {name: third, gpus: emulated}\n")
    found = planned(tmp_path, "sdxl", "replicas", str(tmp_path / "hosts.yaml"))
    capfd.readouterr()
    assert run(["run", str(found.fleet), *there, *SEEDS, "-o", str(tmp_path / "fox.png")]) == 4
    assert "'third'" in capfd.readouterr().err


def test_a_lost_node_loses_nothing(
    replicas: Planned, nodes: Any, there: tuple[str, str], tmp_path: Path, capfd: Any
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"fox {number}" for number in range(12)))
    alone = ran(capfd, str(replicas.alone), "--prompts", str(prompts), "-o", str(tmp_path / "alone.png"))

    def lose() -> None:
        while not list(tmp_path.glob("fox-*.png")):
            sleep(0.05)
        nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)

    losing = Thread(target=lose)
    losing.start()
    fleet = ran(capfd, str(replicas.fleet), *there, "--prompts", str(prompts), "-o", str(tmp_path / "fox.png"))
    losing.join()
    assert digests(fleet) == digests(alone)
    assert sum(each["restarts"] for each in fleet["workers"]) >= 1


def test_another_s_token_is_refused_in_one_line(sdxl: Planned, there: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "token").write_text(secrets.token_hex(32))
    ended = subprocess.run(
        [sys.executable, "-m", "roost", "run", str(sdxl.fleet), *there, *SEEDS, "-o", str(tmp_path / "fox.png")],
        env={**os.environ, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "can't be joined" in line
    assert "token is missing or incorrect" in line
