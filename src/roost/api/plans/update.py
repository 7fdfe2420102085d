"""Writing back into a plan what a run had to give up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roost.facts.decider import Decider, spelled
from roost.plan import ComponentPlan, plan_to_yaml, read_plan, write_text_atomically
from roost.plan.fields import Masters
from roost.plan.revision import revised

_DECIDED_BY = spelled(Decider("run", "out-of-memory"))
_WARNING = "changed after a run that was short of memory; the budget's figures are those from before, and not less"


def update_plan(path: Path, demotions: Mapping[str, Mapping[str, Any]]) -> None:
    """Replaces the plan file at ``path`` by the same plan with the fields of ``demotions``, whole or not at all.

    Raises InvalidFile when the file is no plan any more, RoostError when it can't be written.
    """
    plan = read_plan(path)
    components = {
        name: _lowered(each, demotions[name]) if name in demotions else each for name, each in plan.components.items()
    }
    warnings = [*(each for each in plan.warnings if each != _WARNING), _WARNING]
    # What was measured is of what is no longer the plan.
    write_text_atomically(path, plan_to_yaml(revised(plan, components=components, measured=None, warnings=warnings)))


def _lowered(component: ComponentPlan, fields: Mapping[str, Any]) -> ComponentPlan:
    said = ", ".join(f"{name} {value}" for name, value in fields.items())
    why = f"A run was short of memory with what was planned, and went on with {said}."
    resident_blocks: int | None = fields.get("resident_blocks", component.resident_blocks)
    master = component.master if resident_blocks is None else _masters(component, resident_blocks)
    return revised(component, **fields, master=master, decided_by=_DECIDED_BY, why=why)


def _masters(component: ComponentPlan, resident_blocks: int) -> Masters:
    """The planned masters, with those that blocks need in a run which no longer stay."""
    streamed = sum(stack.count for stack in component.stacks) - resident_blocks
    master = component.master or Masters(pinned=0, pageable=0, mapped=0)
    lacking = max(0, streamed - master.pinned - master.pageable - master.mapped)
    return Masters(pinned=master.pinned, pageable=master.pageable + lacking, mapped=master.mapped)
