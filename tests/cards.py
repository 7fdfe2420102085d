"""GPUs as tests make them up: every fact that a test doesn't name is unknown."""

from __future__ import annotations

from dataclasses import replace

from roost.api.machine import emulated_gpu
from roost.facts.machine import GpuFacts

_NOWHERE = replace(emulated_gpu(0), device_kind="cuda", name="Made-up GPU", source="made up")


def card(total_bytes: int, free_bytes: int, **facts: object) -> GpuFacts:
    """A GPU of these bytes with these ``facts``, ``GpuFacts``' own fields."""
    return replace(_NOWHERE, total_bytes=total_bytes, free_bytes=free_bytes, **facts)  # type: ignore[arg-type]
