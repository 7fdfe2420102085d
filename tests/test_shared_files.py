"""The memory files that trials share: who gets which, when there are none, and that nothing is left of them."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import roost
from planted_bench import gone
from roost.api.options import PlanOptions
from roost.api.planning import search_question
from roost.plan import PlanDocument
from roost.planner.search_plan import SearchQuestion
from roost.tune.candidates import Field, list_candidates
from roost.tune.process import Message
from roost.tune.shared_files import SharedFiles
from roost.tune.trials import Trials, world_of
from tiny_models import build

DYING = Path(__file__).with_name("dying_child.py")


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wan2.2", tmp_path_factory.mktemp("shared") / "wan")


@pytest.fixture
def own_wan(wan: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(wan, tmp_path / "wan"))


@pytest.fixture
def files() -> Iterator[SharedFiles]:
    files = SharedFiles(allowed=True)
    yield files
    files.close()


def plan_of(model: Path, strategy: str, **options: object) -> PlanDocument:
    given = {"gpu": "emulated", "vram": "64MiB", "headroom": "0", "policy": "rules", "set": f"all={strategy}"}
    return roost.make_plan(model, **{**given, **options})


def test_weights_in_8_bits_lie_beside_the_plain_ones(tmp_path: Path, files: SharedFiles) -> None:
    model = build("wan2.1", tmp_path / "wan")
    plain = plan_of(model, "layerwise-offload")
    transformer = plain.components["transformer"]
    fp8 = transformer.model_copy(update={"storage": "float8_e4m3fn"})
    stored = plain.model_copy(update={"components": {**plain.components, "transformer": fp8}})
    of_plain, of_stored = files.of(plain, 0), files.of(stored, 0)
    assert {name for name in of_plain if of_plain[name] != of_stored[name]} == {"transformer"}


def test_without_room_beside_a_trial_nothing_is_shared_any_more(wan: Path) -> None:
    plan = plan_of(wan, "resident")
    weights = sum(each.load_bytes for each in plan.components.values())
    left = 3 * weights
    files = SharedFiles(allowed=True, available_bytes=lambda: left)
    before = open_files()
    assert files.of(plan, 2 * weights)
    assert not files.given_up
    left = weights  # somebody else took memory, or the files were filled
    assert files.of(plan, 2 * weights) == {}
    assert files.given_up
    assert open_files() == before
    left = 9 * weights
    assert files.of(plan, 0) == {}, "what was given up stays so: it would be short again"


def test_weights_that_are_in_their_files_already_need_no_more_room(wan: Path) -> None:
    plan = plan_of(wan, "resident")
    weights = sum(each.load_bytes for each in plan.components.values())
    left = 2 * weights
    files = SharedFiles(allowed=True, available_bytes=lambda: left)
    filled = files.of(plan, weights)
    left = weights
    for name, descriptor in filled.items():
        os.pwrite(descriptor, b"x" * plan.components[name].load_bytes, 0)
    assert files.of(plan, weights) == filled
    os.ftruncate(filled["transformer"], 0)  # as one that nobody came to fill
    assert files.of(plan, weights) == {}


def test_where_the_system_has_no_memory_files_nothing_is_shared(wan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str) -> int:
        raise PermissionError(1, "not here")

    monkeypatch.setattr(os, "memfd_create", refused)
    files = SharedFiles(allowed=True)
    assert files.of(plan_of(wan, "resident"), 0) == {}
    monkeypatch.delattr(os, "memfd_create")
    assert SharedFiles(allowed=True).of(plan_of(wan, "resident"), 0) == {}


def open_files() -> list[str]:
    """This process's memory files, also those that are mapped."""
    gc.collect()  # components of trials in this process, which are used no more
    folder = Path("/proc/self/fd")
    names = [os.readlink(folder / each) for each in os.listdir(folder) if (folder / each).is_symlink()]
    return [each for each in names if "memfd:roost-" in each]


def asked_about(model: Path) -> SearchQuestion:
    return search_question(
        model, PlanOptions(gpu="emulated", vram="64MiB", headroom=0, size="64x64", frames=9, steps=2)
    )


def entrants_of(asked: SearchQuestion) -> Field:
    return list_candidates(asked, ("resident", "snapshot-offload"))


def test_processes_share_and_one_that_is_killed_while_it_fills_costs_the_next_only_a_load(own_wan: Path) -> None:
    asked = asked_about(own_wan)
    entrants = entrants_of(asked)
    marker = own_wan.parent / "died"
    with Trials(world_of(asked, entrants, own_wan, 2), (sys.executable, str(DYING), str(marker))) as trials:
        assert entrants.plain is not None
        dead = trials.run(entrants.plain)
        assert (dead.status, marker.read_text()) == ("crashed", "vae")
        second = trials.run(entrants.plain)
        assert second.status == "ok", second.reason
        assert trials.unshared == {}
        assert open_files()
        for file in own_wan.rglob("*.safetensors"):
            file.unlink()
        third = trials.run(entrants.racing[0])
        assert third.status == "ok", third.reason
        assert third.digest == second.digest
        assert third.host_peak_bytes is not None
    assert open_files() == []


def test_an_interrupt_leaves_no_memory_file(wan: Path, tmp_path: Path) -> None:
    asked = asked_about(wan)
    entrants = entrants_of(asked)
    others = child_pids()  # of other tests
    pids: list[int] = []

    def interrupt(message: Message) -> None:
        if message.get("phase") == "loading transformer_2":
            pids.extend(set(child_pids()) - set(others))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Trials(world_of(asked, entrants, wan, 2)) as trials:
        trials.run(entrants.racing[0], on_message=interrupt)
    assert pids
    assert all(gone(pid) for pid in pids)
    assert open_files() == []


def child_pids() -> list[int]:
    return [int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]
