"""What behaviour hangs on is a field: other words in the text that people read change nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from roost.api.machine import find_machine
from roost.api.plans.preflight import gpu_differences
from roost.facts.decider import decider_of, spelled
from roost.plan import plan_to_yaml, read_plan
from roost.plan.schema import MachineRecord
from roost.planner.documents import writer
from roost.planner.documents.reader import machine_of
from roost.tune.trials.runner import _host_bytes
from searched_plans import ruled, searched

OLD = Path(__file__).parent / "fixtures" / "plans-0.1"
GIB = 1024**3


def test_a_card_by_name_and_typed_memory_are_fields_of_the_machine() -> None:
    machine = find_machine("rtx-4090", vram="12GiB", ram="64GiB")
    assert (machine.gpu.named, machine.gpu.vram_typed, machine.host.ram_typed) == (True, True, True)
    machine = find_machine("rtx-4090", pinned_max="1GiB")
    assert (machine.gpu.named, machine.gpu.vram_typed, machine.host.ram_typed) == (True, False, False)
    machine = find_machine("emulated", vram="12GiB")
    assert (machine.gpu.named, machine.gpu.vram_typed) == (False, False)


@pytest.mark.parametrize(
    ("source", "named", "typed"),
    [
        ("nvml", False, False),
        ("nvml+--vram", False, True),
        ("profile:t4", True, False),
        ("profile:t4+--vram", True, True),
    ],
)
def test_plans_that_lack_the_fields_get_them_from_their_text(source: str, named: bool, typed: bool) -> None:
    old = yaml.safe_load((OLD / "wan2.2-t2v-a14b-rtx-4090.yaml").read_text(encoding="utf-8"))["machine"]
    for text, ram_typed in (("--ram, --pinned-max", True), ("x", False)):
        machine = MachineRecord.model_validate(
            {"gpu": old["gpu"] | {"source": source}, "host": old["host"] | {"source": text}}
        )
        assert (machine.gpu.named, machine.gpu.vram_typed) == (named, typed)
        assert machine.host.ram_typed == ram_typed


def test_where_a_figure_came_from_may_be_said_in_other_words(tmp_path: Path) -> None:
    plan = read_plan(OLD / "wan2.2-t2v-a14b-rtx-4090.yaml")
    said = yaml.safe_load(plan_to_yaml(plan))
    said["machine"]["gpu"] |= {"source": "WHAT THE USER SAID", "vram_typed": True, "total_bytes": 30 * GIB}
    said["machine"]["gpu"] |= {"free_bytes": 30 * GIB}
    said["machine"]["host"] |= {"source": "A GUESS", "ram_typed": True}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(said), encoding="utf-8")
    reworded = read_plan(tmp_path / "plan.yaml")
    machine = machine_of(reworded)
    assert machine.gpu.named
    here = replace(machine.gpu, total_bytes=24 * GIB)
    assert gpu_differences(reworded, here) == []  # the total grew with what was typed, and says nothing of the card
    host_bytes = _host_bytes(machine)
    assert host_bytes is not None
    assert host_bytes > machine.host.available_bytes
    found = replace(machine, host=replace(machine.host, source="--ram", ram_typed=False))
    assert _host_bytes(found) is None


@pytest.mark.parametrize(
    "text", ["flag:--set vae=resident", "rule:A:B", "run:out-of-memory", "search", "live module", "x:y"]
)
def test_who_decided_is_read_back_as_it_was_written(text: str) -> None:
    assert spelled(decider_of(text)) == text


def test_who_decided_may_be_spelled_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [searched(20, "vae=component-offload"), ruled(12)]
    monkeypatch.setattr(writer, "spelled", lambda decider: spelled(decider).upper())
    shouted = [searched(20, "vae=component-offload"), ruled(12)]
    for one, other in zip(plain, shouted, strict=True):
        names = {name: each.decided_by for name, each in one.components.items()}
        assert {name: each.decided_by for name, each in other.components.items()} == {
            name: decided_by.upper() for name, decided_by in names.items()
        }
        same = {name: each.model_copy(update={"decided_by": names[name]}) for name, each in other.components.items()}
        assert other.model_copy(update={"components": same}) == one
