"""GPUs as tests make them up: every fact that a test doesn't name is unknown."""

from __future__ import annotations

from dataclasses import replace

from roost.facts.machine import GpuFacts

_NOWHERE = GpuFacts(
    device_kind="cuda",
    platform="cuda",
    name="Made-up GPU",
    total_bytes=0,
    free_bytes=0,
    source="made up",
    profile=None,
    uuid=None,
    driver=None,
    compute_capability=None,
    pcie_generation=None,
    pcie_width=None,
)


def card(total_bytes: int, free_bytes: int, **facts: object) -> GpuFacts:
    """A GPU of these bytes with these ``facts``, ``GpuFacts``' own fields."""
    return replace(_NOWHERE, total_bytes=total_bytes, free_bytes=free_bytes, **facts)  # type: ignore[arg-type]
