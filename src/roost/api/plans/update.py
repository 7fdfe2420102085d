"""Writing back into a plan what a run had to give up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from roost.facts.decider import Decider, spelled
from roost.plan import ComponentPlan, PlanDocument, plan_to_yaml, read_plan, write_text_atomically
from roost.plan.fields import Masters

_DECIDED_BY = spelled(Decider("run", "out-of-memory"))
_WARNING = "changed after a run that was short of memory; the budget's figures are those from before, and not less"


def update_plan(path: Path, demotions: Mapping[str, Mapping[str, object]]) -> None:
    """Replaces the plan file at ``path`` by the same plan with the fields of ``demotions``, whole or not at all.

    Raises InvalidFile when the file is no plan any more, RoostError when it can't be written.
    """
    plan = read_plan(path)
    components = {
        name: _lowered(each, demotions[name]) if name in demotions else each for name, each in plan.components.items()
    }
    warnings = [*(each for each in plan.warnings if each != _WARNING), _WARNING]
    changed = plan.model_dump(by_alias=True) | {
        "components": {name: each.model_dump() for name, each in components.items()},
        "measured": None,  # of what is no longer the plan
        "warnings": warnings,
    }
    write_text_atomically(path, plan_to_yaml(PlanDocument.model_validate(changed)))


def _lowered(component: ComponentPlan, fields: Mapping[str, object]) -> ComponentPlan:
    said = ", ".join(f"{name} {value}" for name, value in fields.items())
    why = f"A run was short of memory with what was planned, and went on with {said}."
    lowered = component.model_copy(update={**fields, "decided_by": _DECIDED_BY, "why": why})
    if lowered.resident_blocks is None:
        return lowered
    # A block that no longer stays needs a host copy during the run.
    streamed = sum(stack.count for stack in lowered.stacks) - lowered.resident_blocks
    master = lowered.master or Masters(pinned=0, pageable=0, mapped=0)
    lacking = max(0, streamed - master.pinned - master.pageable - master.mapped)
    more = Masters(pinned=master.pinned, pageable=master.pageable + lacking, mapped=master.mapped)
    return lowered.model_copy(update={"master": more})
