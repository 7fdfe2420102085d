"""Plans from before a fact was a field: what their text says of it, read here and nowhere else.

Plans of 0.1 tell only in ``source`` whether a card is known by its name alone (``profile:KEY``) and whether its free
memory (``…+--vram``) or the host's memory (``--ram``) was typed, in a stage's ``name`` alone what it does, and in the
sentences of figures where those come from. One of a pipeline in memory has ``path: null`` like one by a model's name,
and differs from it only where no family was recognised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationInfo

FROM_FILE = "a file"  # the context of validating what a file holds; records that code builds say everything themselves

Upgrade = Callable[[Any, ValidationInfo], Any]


def _in_files(upgrade: Callable[[Any], Any]) -> Upgrade:
    """A validator that upgrades the records of files, and leaves others as they are."""

    def validator(record: Any, info: ValidationInfo) -> Any:
        return upgrade(record) if info.context == FROM_FILE else record

    return validator


@_in_files
def model_facts(record: Any) -> Any:
    """A model's record with what it was: a name is a family's, so without a path or a family it was in memory."""
    if not isinstance(record, Mapping) or "path" not in record:
        return record
    if record["path"] is not None:
        return {"source": "directory", **record}
    return {"source": "memory" if record.get("family") is None else "name", **record}


@_in_files
def plan_facts(record: Any) -> Any:
    """A plan with which of its VAEs may decode in tiles when memory runs out: where its person allowed tiling."""
    policy, components = (
        record.get(name) if isinstance(record, Mapping) else None for name in ("policy", "components")
    )
    allowed = policy.get("allow") if isinstance(policy, Mapping) else None
    if not isinstance(components, Mapping) or not isinstance(allowed, list) or "tiling" not in allowed:
        return record
    return {**record, "components": {name: _may_tile(each) for name, each in components.items()}}


def _may_tile(component: Any) -> Any:
    if not isinstance(component, Mapping) or component.get("kind") != "vae":
        return component
    return {"may_tile": True, **component}


@_in_files
def gpu_facts(record: Any) -> Any:
    """A GPU's record with the fields that it lacks."""
    source = _source(record)
    if source is None:
        return record
    return {"named": source.startswith("profile:"), "vram_typed": source.endswith("+--vram"), **record}


@_in_files
def host_facts(record: Any) -> Any:
    """A host's record with the fields that it lacks."""
    source = _source(record)
    return record if source is None else {"ram_typed": source.startswith("--ram"), **record}


@_in_files
def trace_facts(record: Any) -> Any:
    """A trace's or prediction's record with whether it was guessed."""
    source = _source(record)
    return record if source is None else {"guessed": source.startswith("weights only"), **record}


@_in_files
def kappa_facts(record: Any) -> Any:
    """A factor's record with whether it was fitted."""
    source = _source(record)
    return record if source is None else {"fitted": source.startswith("fitted:"), **record}


@_in_files
def rate_facts(record: Any) -> Any:
    """A rate's record with whether it is a prior."""
    why = record.get("why") if isinstance(record, Mapping) else None
    return {"prior": why.startswith("prior: "), **record} if isinstance(why, str) else record


@_in_files
def budget_facts(record: Any) -> Any:
    """A budget's record with its verdict alone, where the verdict goes on with what would fit."""
    verdict = record.get("verdict") if isinstance(record, Mapping) else None
    finding, says_what, _ = verdict.partition(" Would fit: ") if isinstance(verdict, str) else ("", "", "")
    return {"finding": finding, **record} if says_what and record.get("would_fit") else record


_PHASES = {
    "text encode": "text_encode",
    "image encode": "image_encode",
    "encode image": "image_encode",
    "denoise": "denoise",
    "check": "check",
    "decode": "decode",
}


@_in_files
def stage_facts(record: Any) -> Any:
    """A stage's record with what it does; None of a component that a run named by itself."""
    name = record.get("name") if isinstance(record, Mapping) else None
    return {"phase": _PHASES.get(name.partition(" (")[0]), **record} if isinstance(name, str) else record


def _source(record: Any) -> str | None:
    """The text, of a record that may be anything."""
    source = record.get("source") if isinstance(record, Mapping) else None
    return source if isinstance(source, str) else None
