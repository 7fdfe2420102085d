"""What a ring of bytes would do where Roost has slots of the largest block: steady passes by arithmetic alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

PASSES, WARM = 10, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedBlock:
    """Bytes to copy before each use, and seconds of the use."""

    bytes: int
    seconds: float


Earlier = Callable[[int], int]  # of the n-th copy: the last use that must be over before it, below zero for none


def slots_of_largest(count: int) -> Earlier:
    """Every copy goes into the slot that was used ``count`` copies before."""
    return lambda copy: copy - count


def ring_of_bytes(blocks: Sequence[StreamedBlock], room_bytes: int) -> Earlier:
    """Copies follow one another through the room, none of which is lost where it ends."""

    def earlier(copy: int) -> int:
        held_bytes, before = blocks[copy % len(blocks)].bytes, copy - 1
        while before >= 0 and held_bytes + blocks[before % len(blocks)].bytes <= room_bytes:
            held_bytes += blocks[before % len(blocks)].bytes
            before -= 1
        return before

    return earlier


def steady_s(blocks: Sequence[StreamedBlock], bytes_per_s: float, earlier: Earlier) -> float:
    """Seconds of a pass once passes are alike; copies run one after another in the order of use."""
    copied_s = computed_s = 0.0
    uses_end_s: list[float] = []
    for number in range(PASSES * len(blocks)):
        block, before = blocks[number % len(blocks)], earlier(number)
        starts_s = max(copied_s, uses_end_s[before]) if before >= 0 else copied_s
        copied_s = starts_s + block.bytes / bytes_per_s
        computed_s = max(computed_s, copied_s) + block.seconds
        uses_end_s.append(computed_s)
    ends_s = uses_end_s[len(blocks) - 1 :: len(blocks)]
    return (ends_s[-1] - ends_s[WARM - 1]) / (PASSES - WARM)


def rings_on_paper(blocks: Sequence[StreamedBlock], bytes_per_s: float) -> list[dict[str, float]]:
    """For two to four slots: their bytes, a steady pass with them, and with a ring of as many bytes."""
    largest_bytes = max(block.bytes for block in blocks)
    found = []
    for slots in (2, 3, 4):
        ring = ring_of_bytes(blocks, slots * largest_bytes)
        found.append(
            {
                "slots": slots,
                "bytes": slots * largest_bytes,
                "slots_s": steady_s(blocks, bytes_per_s, slots_of_largest(slots)),
                "ring_s": steady_s(blocks, bytes_per_s, ring),
            }
        )
    return found
