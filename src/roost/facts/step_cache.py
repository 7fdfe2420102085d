"""A cache over steps: which one a denoiser has, and how much it may skip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from roost.facts.limits import Limited

CacheName = Literal["first-block"]
Threshold = Annotated[float, Limited(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCache:
    """With ``first-block`` a call runs its first block alone where that block's residual has changed by less than the
    share ``threshold`` since the last whole call; the rest is what that call added."""

    name: CacheName
    threshold: Threshold

    @property
    def text(self) -> str:
        """As it is typed: ``first-block=0.05``."""
        return f"{self.name}={self.threshold:g}"
