"""One process among those that work on a run together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Which of ``world`` processes this is, and which of those on its host. Source: torchrun's environment."""

    rank: int
    world: int
    local_rank: int
    local_world: int
