"""Masters that processes share lie on all NUMA nodes by turns, where there are several; the system says so."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_cases import digest_of
from given_folders import Saved
from plans import LAYERWISE
from roost.probes.machine.host import memory_nodes
from roost.residency.weights.shared import memory_file
from roost.residency.weights.shared.memory_file import MemoryFile
from shared_worlds import digest_alone, held, kinds, plan_of

MAPS = Path("/proc/self/numa_maps")
needs_policies = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64") or not MAPS.exists(),
    reason="only Linux with NUMA says where memory is to lie",
)
# A node that isn't there is left out by the system, so that two can be asked for on any host.
NODES = (0, 1)


def policies() -> set[str]:
    """Of the mappings of shared masters that all processes have."""
    found = re.findall(r"^\S+ (\S+) file=/memfd:roost", MAPS.read_text(encoding="utf-8"), re.MULTILINE)
    return {policy.split(":")[0] for policy in found}


@pytest.fixture
def files() -> Iterator[list[MemoryFile]]:
    made: list[MemoryFile] = []
    yield made
    for each in made:
        each.close()


def policy_of(memory: MemoryFile) -> str:
    start = f"{memory.common.data_ptr():x} "
    (line,) = [each for each in MAPS.read_text(encoding="utf-8").splitlines() if each.startswith(start)]
    return line.split()[1]


@needs_policies
@pytest.mark.parametrize(("nodes", "policy"), [((), "default"), ((0,), "default"), (NODES, "interleave:0")])
def test_pages_lie_on_several_nodes_by_turns_and_on_one_as_ever(nodes, policy, files) -> None:
    files.append(MemoryFile.of("pages", 1 << 16, nodes))
    assert policy_of(files[0]).startswith(policy)
    files[0].common.fill_(7)
    assert files[0].private.unique().tolist() == [7]


@needs_policies
def test_nodes_that_the_system_does_not_have_change_nothing(files) -> None:
    files.append(MemoryFile.of("pages", 1 << 16, (900, 1000)))
    assert policy_of(files[0]) == "default"


@needs_policies
def test_nothing_is_asked_of_an_unknown_processor(files, monkeypatch) -> None:
    monkeypatch.setattr(memory_file.platform, "machine", lambda: "riscv64")
    files.append(MemoryFile.of("pages", 1 << 16, NODES))
    assert policy_of(files[0]) == "default"


@needs_policies
def test_masters_of_processes_that_share_lie_so_and_have_the_same_bits(saved: Saved, folder: Path) -> None:
    plan = plan_of(saved("ltx"), LAYERWISE)
    with held(plan, saved("ltx"), folder, NODES) as first, held(plan, saved("ltx"), folder, NODES) as second:
        assert kinds(second) == {"SharedMaster"}
        assert "interleave" in policies()
        assert [digest_of(each, "ltx") for each in (first, second)] == [
            digest_alone("layerwise-offload", "ltx", saved("ltx"))
        ] * 2


@pytest.mark.parametrize(
    ("memory", "cpus", "nodes"),
    [
        ("0", "0", (0,)),
        ("0-1", "0-1", (0, 1)),
        ("0-2,5", "0,2,5-7", (0, 2, 5)),  # 1 is memory alone
        ("", "0", ()),
        ("much", "0", ()),
        (None, "0", ()),
    ],
)
def test_nodes_are_those_with_memory_and_processors(memory, cpus, nodes, tmp_path: Path) -> None:
    place = tmp_path / "sys/devices/system/node"
    place.mkdir(parents=True)
    for name, text in (("has_memory", memory), ("has_cpu", cpus)):
        if text is not None:
            (place / name).write_text(f"{text}\n")
    assert memory_nodes(tmp_path) == nodes
