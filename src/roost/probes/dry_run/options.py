"""What a dry run may be told beyond the workload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunOptions:
    """``guidance_argument`` is the call's parameter that the workload's guidance sets; ``more`` are further ones."""

    prompt: str = "A fox in the snow"
    negative_prompt: str | None = None
    guidance_argument: str = "guidance_scale"
    more: Mapping[str, object] = field(default_factory=dict)
