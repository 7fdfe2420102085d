"""What every target is given and gives: a placement, and the text with its notes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from roost.errors import UsageError
from roost.option_spelling import option
from roost.plan import ComponentPlan, PlanDocument
from roost.profiles.published import load_published_model, model_names

STREAMED, MOVED = "layerwise-offload", ("component-offload", "snapshot-offload")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The target's text, whole, and what of the plan it can't express: a line each, which the text has as comments."""

    text: str
    notes: tuple[str, ...]


def model_of(plan: PlanDocument, model: str | None) -> str:
    """Where the target finds the model: as typed, the plan's directory, or the hub id of a model known by name.

    UsageError for a plan that no target can be given: of a fleet, of one role, or of a pipeline in memory whose place
    is unknown.
    """
    if len(plan.workers) > 1:
        raise UsageError(
            f"this plan is for a fleet of {len(plan.workers)} workers; export a plan that is made without"
            f" {option('fleet')}."
        )
    if plan.role.name != "monolithic":
        raise UsageError(
            f"this plan is for the role {plan.role.name}, which only serving engines split a pipeline by; export a plan"
            f" that is made without {option('role')}."
        )
    if not plan.model.pipeline.isidentifier():  # it stands in what others run
        raise UsageError(f"{plan.model.pipeline!r} is no name of a pipeline class; plan the model again.")
    if model is not None:
        return model
    if plan.model.path is not None:
        return plan.model.path
    if plan.model.source == "name" and plan.model.family in model_names():
        return load_published_model(plan.model.family).source
    raise UsageError(
        f"this plan was made of a {plan.model.pipeline} in memory; say where that model is with"
        f" {option('model', 'DIR')}."
    )


def block_count(component: ComponentPlan) -> int:
    return sum(stack.count for stack in component.stacks)


def common_notes(name: str, component: ComponentPlan, *, from_file: bool = False) -> Iterator[str]:
    """What no target has a word for, but for weights that this one takes ``from_file``."""
    if component.strategy == "snapshot-offload":
        yield f"{name}: its weights are copied back to the host each time, which Roost spares."
    if component.linger:
        yield f"{name}: Roost would let it stay after its stage while there is room."
    if component.hold:
        yield f"{name}: Roost would hold its blocks from their first use to the end of the stage."
    if component.source is not None and not from_file:
        file = shlex.quote(component.source.path)
        yield f"{name}: Roost takes its weights from {file} as they are stored; here the model's own are loaded."
    if component.storage is not None:
        yield f"{name}: Roost would store linear weights of its blocks in 8 bits; here they take their whole size."
    master = component.master
    if master is not None and master.mapped:
        yield f"{name}: Roost would leave {master.mapped} of its blocks in the model's files instead of host memory."
