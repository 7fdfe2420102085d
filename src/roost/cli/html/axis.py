"""The time axis of a chart: a generation in pieces, each with a scale of its own; equal passes are one band."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from roost.facts.stage import StageKey
from roost.timeline import Pass

# Of the passes of one kind these are drawn: so many rounds at the beginning, and one at the end.
_FIRST_ROUNDS = 2
# A run of passes that is no longer than this is drawn whole.
_WHOLE = 4
# The least width of a pass: a stage that does not find it in a row begins the next.
_LEAST_PX = 84.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A stretch of time between two places of the chart. In a band nothing is drawn but ``passes`` as a number."""

    stages: tuple[StageKey, ...]
    start_s: float
    end_s: float
    passes: int
    band: bool = False
    left: float = 0.0
    right: float = 0.0

    def x(self, time_s: float) -> float:
        """Where a moment of this piece lies."""
        seconds = self.end_s - self.start_s
        share = (time_s - self.start_s) / seconds if seconds else 0.0
        return self.left + min(1.0, max(0.0, share)) * (self.right - self.left)


def rows_of(passes: Sequence[Pass], left: float, right: float) -> list[list[Piece]]:
    """The axis of a generation in rows, each from ``left`` to ``right``; only between stages is it broken."""
    rows: list[list[Piece]] = []
    room = 0.0
    for run in _runs(passes):
        found = list(_pieces(run))
        needed = _LEAST_PX * sum(_share(each) for each in found)
        if not rows or needed > room:
            rows.append([])
            room = right - left
        rows[-1].extend(found)
        room -= needed
    return [_placed(row, left, right) for row in rows]


def _placed(row: Sequence[Piece], left: float, right: float) -> list[Piece]:
    scale = (right - left) / sum(_share(each) for each in row)
    placed, start = [], left
    for piece in row:
        width = _share(piece) * scale
        placed.append(replace(piece, left=start, right=start + width))
        start += width
    return placed


def _share(piece: Piece) -> float:
    """How wide a piece is, beside a single pass."""
    return 1.0 if piece.band else 1 + (piece.passes - 1) / 2


def _runs(passes: Sequence[Pass]) -> Iterator[list[Pass]]:
    """Passes of one stage in a row; components that take turns (a ControlNet, two encoders) are one run."""
    run: list[Pass] = []
    stages: set[StageKey] = set()
    for index, each in enumerate(passes):
        here = set(each.stages)
        following = set(passes[index + 1].stages) if index + 1 < len(passes) else set()
        if run and not here & stages and not following & stages:
            yield run
            run, stages = [], set()
        run.append(each)
        stages |= here
    if run:
        yield run


def _pieces(run: list[Pass]) -> Iterator[Piece]:
    stages = tuple(dict.fromkeys(stage for each in run for stage in each.stages))
    skipped = [index for index, each in enumerate(run) if each.skipped]
    first, last = len(run), len(run)
    if skipped or len(run) > _WHOLE * len(stages):
        first = min([_FIRST_ROUNDS * len(stages), *skipped])
        last = max(len(run) - len(stages), skipped[-1] + 1 if skipped else 0)
    for part, band in ((run[:first], False), (run[first:last], True), (run[last:], False)):
        if part:
            yield Piece(
                stages=stages,
                start_s=part[0].start_s,
                end_s=part[-1].end_s,
                passes=sum(each.count for each in part),
                band=band,
            )


def nice_step(most: float, steps: int) -> float:
    """The step of 1, 2 or 5 times a power of ten that divides 0 to ``most`` into about ``steps``."""
    if most <= 0:
        return 1.0
    rough = most / steps
    power = 10.0 ** _exponent(rough)
    return next((factor * power for factor in (1, 2, 5) if factor * power >= rough), 10 * power)


def _exponent(value: float) -> int:
    """Of the power of ten at or below ``value``."""
    exponent = 0
    while value >= 10:
        value, exponent = value / 10, exponent + 1
    while value < 1:
        value, exponent = value * 10, exponent - 1
    return exponent
