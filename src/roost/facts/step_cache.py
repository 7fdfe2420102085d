"""A cache over steps: which one a denoiser has, and how much it may skip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from roost.facts.limits import Limited, Positive

CacheName = Literal["first-block", "mag", "pab", "taylorseer", "taylorseer-lite"]
Threshold = Annotated[float, Limited(ge=0, allow_inf_nan=False)]

BY_THRESHOLD: frozenset[CacheName] = frozenset(("first-block", "mag"))
_OF_ATTENTION: frozenset[CacheName] = frozenset(("pab", "taylorseer"))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCache:
    """Those by threshold skip all blocks, ``first-block`` all but the first, where that is expected to change a call's
    result by no more than the share ``threshold``; what the last whole call added is added again.

    The others compute one step in ``every``. In the rest ``pab`` gives each attention's last result again; with
    ``taylorseer`` it is extrapolated, with ``taylorseer-lite`` the last layer's is, and no block runs.
    """

    name: CacheName
    threshold: Threshold | None = None
    every: Positive | None = None

    def __post_init__(self) -> None:
        by_threshold = self.name in BY_THRESHOLD
        if (self.threshold is None) == by_threshold or (self.every is None) != by_threshold:
            raise ValueError(f"{self.name} has {'a threshold' if by_threshold else 'every'} and nothing else")

    @property
    def skips(self) -> Literal["blocks", "attention"]:
        """What it skips in a step that it cuts short."""
        return "attention" if self.name in _OF_ATTENTION else "blocks"

    @property
    def text(self) -> str:
        """As it is typed: ``first-block=0.05``."""
        return f"{self.name}={self.every if self.threshold is None else format(self.threshold, 'g')}"
