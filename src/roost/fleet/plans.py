"""A fleet's plan taken apart: what each worker runs by, and the whole that all of them run together."""

from __future__ import annotations

from typing import Any

from roost.errors import UsageError
from roost.facts.model import RolePart
from roost.option_spelling import option
from roost.plan.fleet import WorkerRecord
from roost.plan.revision import revised
from roost.plan.schema import PlanDocument

_OF_THE_FLEET: dict[str, Any] = {"layout": None, "workers": [], "fleet": None, "layouts": [], "worker_plans": {}}
# What the document says of its own worker, and of nobody else's.
_OF_ANOTHER: dict[str, Any] = {
    "predicted": None,
    "compared": None,
    "trace": None,
    "arithmetic": None,
    "alternatives": [],
    "also": [],
}


def plan_of(document: PlanDocument, worker: WorkerRecord) -> PlanDocument:
    """The worker's own plan, as one card's. Raises UsageError where an earlier version left it out."""
    own = {} if worker.plan is None else {**_OF_ANOTHER, **dict(document.worker_plans[worker.plan])}
    found = revised(document, **{**_OF_THE_FLEET, **own})
    if found.role.name != worker.role or found.components.keys() != worker.components.keys():
        raise UsageError(
            f"this plan doesn't say how {worker.name} loads, since an earlier version made it; plan the fleet again"
            f" with {option('fleet')}."
        )
    return found


def whole_plan(document: PlanDocument) -> PlanDocument:
    """The document with every component and LoRA that a worker has, as if one process had them all."""
    plans = [plan_of(document, each) for each in document.workers]
    components = {name: each for plan in reversed(plans) for name, each in plan.components.items()}
    whole = RolePart(
        name="monolithic",
        stages=("encode", "denoise", "decode"),
        loads=tuple(components),
        keeps=tuple(dict.fromkeys(name for plan in plans for name in plan.role.keeps)),
        skips=(),
        load_bytes=sum(each.load_bytes for each in components.values()),
        warnings=(),
    )
    loras = {(each.path, each.component, each.scale): each for plan in plans for each in plan.loras}
    return revised(
        document,
        **{**_OF_THE_FLEET, **_OF_ANOTHER},
        components=components,
        load_order=list(components),
        role=whole,
        loras=list(loras.values()),
    )
