"""Plans from before a fact was a field: what their text says of it, read here and nowhere else.

Plans of 0.1 tell only in ``source`` whether a card is known by its name alone (``profile:KEY``) and whether its free
memory (``…+--vram``) or the host's memory (``--ram``) was typed, and in a stage's ``name`` alone what it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def gpu_facts(record: Any) -> Any:
    """A GPU's record with the fields that it lacks."""
    source = _source(record)
    if source is None:
        return record
    return {"named": source.startswith("profile:"), "vram_typed": source.endswith("+--vram"), **record}


def host_facts(record: Any) -> Any:
    """A host's record with the fields that it lacks."""
    source = _source(record)
    return record if source is None else {"ram_typed": source.startswith("--ram"), **record}


_PHASES = {
    "text encode": "text_encode",
    "image encode": "image_encode",
    "encode image": "image_encode",
    "denoise": "denoise",
    "check": "check",
    "decode": "decode",
}


def stage_facts(record: Any) -> Any:
    """A stage's record with what it does; None of a component that a run named by itself."""
    name = record.get("name") if isinstance(record, Mapping) else None
    return {"phase": _PHASES.get(name.partition(" (")[0]), **record} if isinstance(name, str) else record


def _source(record: Any) -> str | None:
    """The text, of a record that may be anything."""
    source = record.get("source") if isinstance(record, Mapping) else None
    return source if isinstance(source, str) else None
