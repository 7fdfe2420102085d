"""Workers that are killed, hang or run out of memory, and nodes that go: requests go on, and nothing else is lost."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("ray")

from ray_servers import NODE, ToyFleet, nodes_of_ray, task
from roost.errors import RoostError
from roost.fleet.ray_cluster import Cluster, opened_cluster

BOTH = ("one", "two")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, nodes_of_ray(2, Path(folder)) as found:
        yield found


@pytest.fixture
def cluster(nodes: Any) -> Iterator[Cluster]:
    with opened_cluster(nodes.address, 2, print) as found:
        yield found


def test_a_killed_workers_request_is_done_after_its_restart(cluster: Cluster, tmp_path: Path) -> None:
    fleet = ToyFleet(cluster, {"one": 0})
    assert fleet.run([(task("die", tmp_path / "died"), ("one",)), (task("finish"), ("one",))]) == {0: "done", 1: "done"}
    assert fleet.dispatcher.restarts == {"one": 1}
    assert fleet.notes == ["one is started again: its process ended"]


def test_a_worker_that_runs_out_of_memory_starts_again(cluster: Cluster, tmp_path: Path) -> None:
    fleet = ToyFleet(cluster, {"one": 0})
    assert fleet.run([(task("run out of memory", tmp_path / "full"), ("one",))]) == {0: "done"}
    assert fleet.notes == ["one is started again: no memory is left."]
    assert not psutil.pid_exists(int((tmp_path / "full").read_text()))


def impatient(fleet: ToyFleet) -> ToyFleet:
    """With three seconds for signs of life of workers that are up, until one is lost."""
    patient = dict(fleet.placements)
    fleet.on_up = lambda name: fleet.placements.update({name: replace(fleet.placements[name], heartbeat_timeout_s=3.0)})
    fleet.dispatcher.on_note = lambda text: fleet.notes.append(text) or fleet.placements.update(patient)
    return fleet


def test_a_stopped_worker_is_found_by_its_silence_and_ended(cluster: Cluster, tmp_path: Path) -> None:
    fleet = impatient(ToyFleet(cluster, {"one": 0}))
    assert fleet.run([(task("stop", tmp_path / "stopped"), ("one",))]) == {0: "done"}
    assert fleet.notes == ["one is started again: it showed no sign of life for 3 s"]
    assert _is_gone(int((tmp_path / "stopped").read_text()))


@pytest.mark.parametrize("how", ["stop", "hang"])
def test_a_worker_that_hangs_as_it_answers_is_the_silent_one_and_not_who_called_it(how, cluster, tmp_path) -> None:
    fleet = impatient(ToyFleet(cluster, {"one": 0, "two": 0}, owner="two"))
    question = task(how, tmp_path / "hung").decode()
    assert fleet.run([(task("ask", question=question), ("one",))]) == {0: "done"}
    assert fleet.notes == ["two is started again: it showed no sign of life for 3 s"]
    assert _is_gone(int((tmp_path / "hung").read_text()))


def test_a_request_that_fails_by_itself_is_not_tried_again(cluster: Cluster) -> None:
    fleet = ToyFleet(cluster, {"one": 0})
    assert fleet.run([(task("fail"), ("one",)), (task("finish"), ("one",))]) == {0: "it can't be done.", 1: "done"}
    assert fleet.dispatcher.restarts == {"one": 0}


def test_a_request_that_kills_its_worker_each_time_fails_alone(cluster: Cluster) -> None:
    fleet = ToyFleet(cluster, {"one": 0})
    ended = fleet.run([(task("die"), ("one",)), (task("finish"), ("one",))])
    assert ended == {0: "its worker was lost 3 times, the last time since its process ended", 1: "done"}


def test_a_worker_that_dies_while_it_waits_is_started_again(cluster: Cluster) -> None:
    fleet = ToyFleet(cluster, {"one": 0, "two": 0})
    killed = []

    def kill(_: str) -> None:
        if len(killed) == 1:
            os.kill(fleet.pid("one"), signal.SIGKILL)
        killed.append(1)

    fleet.on_up = kill
    assert fleet.run([(task("finish", seconds=6), ("two",))]) == {0: "done"}
    assert fleet.dispatcher.restarts == {"one": 1, "two": 0}


def test_a_call_of_a_worker_that_is_gone_is_made_again(cluster: Cluster) -> None:
    fleet = ToyFleet(cluster, {"one": 0, "two": 0}, owner="two")
    ups = []

    def kill(_: str) -> None:
        ups.append(1)
        if len(ups) == 2:
            os.kill(fleet.pid("two"), signal.SIGKILL)

    fleet.on_up = kill
    assert fleet.run([(task("ask", question=task("finish").decode()), ("one",))]) == {0: "done"}
    assert fleet.notes == ["two is started again: its process ended"]


@pytest.mark.parametrize(("how", "why"), [("die", "its process ended"), ("run out of memory", "no memory is left.")])
def test_a_worker_lost_as_it_answers_is_started_again_and_not_who_called_it(how, why, cluster, tmp_path) -> None:
    fleet = ToyFleet(cluster, {"one": 0, "two": 0}, owner="two")
    question = task(how, tmp_path / "answered").decode()
    assert fleet.run([(task("ask", question=question), ("one",)), (task("finish"), ("one",))]) == {0: "done", 1: "done"}
    assert fleet.notes == [f"two is started again: {why}"]
    assert not psutil.pid_exists(int((tmp_path / "answered").read_text()))


def test_a_worker_that_never_starts_is_told_unless_another_does_its_work(cluster: Cluster) -> None:
    fleet = ToyFleet(cluster, {"one": 0, "two": 0}, dying="two")
    assert fleet.run([(task("finish", seconds=6), ("one",)), (task("finish"), BOTH)]) == {0: "done", 1: "done"}
    assert fleet.notes[-1] == "two is given up: its process ended"


def test_a_worker_that_alone_does_its_work_and_never_starts_ends_the_run(cluster: Cluster) -> None:
    fleet = ToyFleet(cluster, {"one": 0}, dying="one")
    with pytest.raises(
        RoostError, match=r"^one was lost 3 times in a row, and no other worker does its work: its process ended;"
    ):
        fleet.run([(task("finish"), ("one",))])


@pytest.mark.parametrize("roles", [False, True])
def test_a_lost_node_leaves_its_requests_to_who_can_do_them(
    roles: bool, nodes: Any, cluster: Cluster, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(lambda: nodes.add_node(**NODE))
    lost = next(iter(nodes.worker_nodes))
    number = next(number for number, each in enumerate(cluster.nodes) if each.key == lost.node_id)
    fleet = ToyFleet(cluster, {"one": 0, "two": number}, roles=roles)
    ups = []

    def lose(_: str) -> None:
        ups.append(1)
        if len(ups) == 2:
            nodes.remove_node(lost, allow_graceful=False)

    fleet.on_up = lose
    if roles:  # until Ray knows of it, processes there just end
        why = f"its process ended|its node, {cluster.nodes[number].name}, is gone"
        with pytest.raises(RoostError, match=f"^two was lost 3 times in a row, .*: ({why});"):
            fleet.run([(task("finish", seconds=1), ("two",))])
    else:
        ended = fleet.run([(task("finish", seconds=1), BOTH)] * 4)
        assert ended == dict.fromkeys(range(4), "done")
        assert fleet.notes[0].startswith("two is started again: ")


def _is_gone(pid: int) -> bool:
    """Within some seconds: a node ends a process in its own time."""
    try:
        psutil.Process(pid).wait(10)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True
