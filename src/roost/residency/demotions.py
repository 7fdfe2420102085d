"""What a run gave up for good, in the plan's own terms."""

from __future__ import annotations

from collections.abc import Iterable

from roost.residency.component import HeldComponent

_LOWERED = ("strategy", "linger", "resident_blocks", "resident_policy", "prefetch", "slots", "hold")


def demotions_of(components: Iterable[HeldComponent]) -> dict[str, dict[str, object]]:
    """The plan's fields that the run had to lower, by component; empty when it went as planned."""
    found = {component.name: _demotion(component) for component in components}
    return {name: fields for name, fields in found.items() if fields}


def _demotion(component: HeldComponent) -> dict[str, object]:
    planned, now = component.planned, component.plan
    fields: dict[str, object] = {
        name: getattr(now, name) for name in _LOWERED if getattr(now, name) != getattr(planned, name)
    }
    lowered = component.rungs.lowered()
    if lowered is not None:
        fields |= {"resident_blocks": lowered[0], "slots": lowered[1]}
    return fields
