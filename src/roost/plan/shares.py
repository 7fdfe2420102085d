"""What a kernel reaches of a rate, and the ends that such figures have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from roost.plan.fields import FACT

Factor = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Level = Literal["slow", "mid", "fast"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of a rate, with the ends of its interval."""

    low: Factor
    mid: Factor
    high: Factor
    why: str

    def at(self, level: Level) -> float:
        """``slow`` is the pessimistic end: the smallest share."""
        return {"slow": self.low, "mid": self.mid, "fast": self.high}[level]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShares:
    """What kernels reach of the attention rate: ``masked`` are passed a mask, ``narrow`` have heads up to 64 wide.

    ``beyond`` is for heads wider than 256.
    """

    plain: Annotated[Share, FACT]
    narrow: Annotated[Share, FACT]
    masked: Annotated[Share, FACT]
    masked_narrow: Annotated[Share, FACT]
    beyond: Annotated[Share, FACT]
