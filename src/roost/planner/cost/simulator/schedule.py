"""What the simulation is given: how each component's weights move, what each use costs, and the order of uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from roost.blocks import streaming_bytes
from roost.facts.request import Strategy
from roost.facts.stage import StageKey

# The longest repeating group of uses that is looked for: two guidance passes of two components, twice.
_MAX_PATTERN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedWeights:
    """How one component's weights move. Blocks are counted as ``blocks.block_names`` lists them.

    ``trunk_s`` and ``block_s`` are the seconds of one copy to the device from the master's tier; ``back_s`` those of
    copying the whole component back (``component-offload`` only). ``resident`` are the blocks that never use a slot.
    ``late_s`` are those in which its masters are read when it is used for the first time.
    """

    component: str
    strategy: Strategy
    trunk_bytes: int
    block_bytes: tuple[int, ...]
    trunk_s: float
    block_s: tuple[float, ...]
    resident: frozenset[int] = frozenset()
    slots: int = 0
    hold: bool = False
    linger: bool = False
    back_s: float = 0.0
    late_s: float = 0.0

    @property
    def streams(self) -> bool:
        """Whether some blocks go through slots."""
        return self.strategy == "layerwise-offload" and not self.hold and len(self.resident) < len(self.block_bytes)

    @property
    def stays(self) -> bool:
        """Whether nothing of it ever moves after loading."""
        return self.strategy in ("resident", "fsdp")

    @property
    def total_bytes(self) -> int:
        return self.trunk_bytes + sum(self.block_bytes)

    @property
    def acquired_bytes(self) -> int:
        """What an acquire allocates: all of it, or the trunk, the residents and the slots."""
        if self.streams:
            return self.trunk_bytes + streaming_bytes(self.block_bytes, self.resident, self.slots)
        return self.trunk_bytes if self.strategy == "layerwise-offload" and self.hold else self.total_bytes

    @property
    def active_bytes(self) -> int:
        """The most it holds on the device while in use."""
        return self.acquired_bytes if self.streams else self.total_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCost:
    """One call of a component: compute seconds outside its blocks and of each block, in call order.

    A tiled or chunked VAE runs its blocks in ``rounds``; block seconds are over all rounds. ``unusable_bytes`` are what
    the allocator can't do without beside the activations: rounding and gaps.
    """

    component: str
    stage: StageKey
    before_s: float
    blocks: tuple[tuple[int, float], ...]
    after_s: float
    activation_bytes: int
    unusable_bytes: int = 0
    rounds: int = 1

    @property
    def compute_s(self) -> float:
        return self.before_s + sum(seconds for _, seconds in self.blocks) + self.after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One generation to simulate. ``sequence`` is the order of uses as (index into ``uses``, consecutive calls).

    Idle components are released when the next one would not fit ``budget_bytes``, the furthest next use first;
    ``context_bytes`` are on the device throughout.
    """

    weights: Mapping[str, MovedWeights]
    uses: tuple[UseCost, ...]
    sequence: tuple[tuple[int, int], ...]
    budget_bytes: int
    context_bytes: int = 0


def flat_sequence(sequence: Iterable[tuple[int, int]]) -> list[int]:
    """Every call of a generation in its order."""
    return [index for index, count in sequence for _ in range(count)]


def repeated_patterns(calls: Sequence[int]) -> list[tuple[int, int]]:
    """The calls as (pattern length, repeats), front to back, the longest stretch first; unrepeated calls are (1, 1)."""
    found: list[tuple[int, int]] = []
    start = 0
    while start < len(calls):
        best = (1, 1)
        for length in range(1, _MAX_PATTERN + 1):
            repeats = _repeats(calls, start, length)
            if repeats > 2 and length * repeats > best[0] * best[1]:
                best = (length, repeats)
        found.append(best)
        start += best[0] * best[1]
    return found


def _repeats(calls: Sequence[int], start: int, length: int) -> int:
    pattern = calls[start : start + length]
    repeats = 1
    while calls[start + repeats * length : start + (repeats + 1) * length] == pattern:
        repeats += 1
    return repeats
