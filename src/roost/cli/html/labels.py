"""Where the labels of a chart's points stand: on no point, on no other label and on no line that leads to one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from roost.cli.html.markup import CHARACTER_PX

# Height of a line of text above and below its baseline, at 12 pixels.
_ASCENT, _DESCENT = 10.0, 3.0
# Free space around a label.
_GAP = 1.5
# How far from its point a label may stand, and in which directions (degrees from the right, upwards first).
_DISTANCES = (0.0, 8.0, 18.0, 30.0, 44.0, 60.0)
_DIRECTIONS = (45, 135, 315, 225, 90, 270, 0, 180, 65, 115, 20, 160, 295, 245, 340, 200)
# Labels that stand further off are tied to their points by a line.
_TIED_FROM = 8.0


@dataclass(frozen=True, slots=True)
class Frame:
    """A rectangle of a chart; ``top`` is the smaller number."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Frame) -> bool:
        """Whether the two share more than an edge."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def holds(self, other: Frame) -> bool:
        """Whether the other lies inside."""
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom

    def distance(self, x: float, y: float) -> float:
        """From a place to the nearest place of the rectangle; 0 inside."""
        return math.hypot(max(self.left - x, 0.0, x - self.right), max(self.top - y, 0.0, y - self.bottom))


@dataclass(frozen=True, slots=True, kw_only=True)
class Disc:
    """A point as it is drawn, with its label; a point without one is only in the way."""

    x: float
    y: float
    radius: float
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A label that has found its place. ``line`` leads to it from its point's edge (x, y, x, y), if it needs one."""

    disc: Disc
    frame: Frame
    line: tuple[float, float, float, float] | None

    @property
    def middle(self) -> float:
        return (self.frame.left + self.frame.right) / 2

    @property
    def baseline(self) -> float:
        return self.frame.bottom - _GAP - _DESCENT


def place_labels(discs: Sequence[Disc], inside: Frame, avoided: Sequence[Frame] = ()) -> list[Label]:
    """A label for each disc with a text, in their order, the nearest free place first.

    Labels lie ``inside`` and not on what is ``avoided``. A label for which no place is free is left out.
    """
    placed: list[Label] = []
    for disc in discs:
        if disc.text:
            free = (each for each in _places(disc) if _is_free(each, discs, placed, inside, avoided))
            found = next(free, None)
            placed.extend([found] if found is not None else [])
    return placed


def _places(disc: Disc) -> Iterator[Label]:
    """Where the label could stand, the best place first."""
    half = CHARACTER_PX * len(disc.text) / 2 + 1 + _GAP
    tall = (_ASCENT + _DESCENT) / 2 + _GAP
    for distance in _DISTANCES:
        for direction in _DIRECTIONS:
            right, down = math.cos(math.radians(direction)), -math.sin(math.radians(direction))
            edge = disc.radius + _GAP
            # The label's nearest corner or side, not its middle, is as far away as the distance says.
            x = disc.x + right * (edge + distance) + half * _side(right)
            y = disc.y + down * (edge + distance) + tall * _side(down)
            frame = Frame(x - half, y - tall, x + half, y + tall)
            yield Label(disc=disc, frame=frame, line=_line(disc, frame) if distance >= _TIED_FROM else None)


def _side(share: float) -> float:
    """Towards which side a direction goes: -1, 1, or between where it hardly does."""
    return max(-1.0, min(1.0, 2 * share))


def _line(disc: Disc, frame: Frame) -> tuple[float, float, float, float]:
    """From the edge of the disc to the nearest place of the label."""
    x, y = min(max(disc.x, frame.left), frame.right), min(max(disc.y, frame.top), frame.bottom)
    share = disc.radius / max(math.hypot(x - disc.x, y - disc.y), disc.radius)
    return disc.x + (x - disc.x) * share, disc.y + (y - disc.y) * share, x, y


def _is_free(
    label: Label, discs: Sequence[Disc], placed: Sequence[Label], inside: Frame, avoided: Sequence[Frame]
) -> bool:
    if not inside.holds(label.frame) or any(label.frame.overlaps(each) for each in avoided):
        return False
    if any(label.frame.distance(each.x, each.y) < each.radius for each in discs):
        return False
    if any(label.frame.overlaps(each.frame) or _on_line(label.frame, each) for each in placed):
        return False
    along = _along(label)
    return not any(each.frame.distance(x, y) == 0 for each in placed for x, y in along) and not any(
        math.hypot(each.x - x, each.y - y) < each.radius
        for each in discs
        if (each.x, each.y) != (label.disc.x, label.disc.y)
        for x, y in along
    )


def _on_line(frame: Frame, other: Label) -> bool:
    return any(frame.distance(x, y) == 0 for x, y in _along(other))


def _along(label: Label) -> list[tuple[float, float]]:
    """Places on a label's line, close to each other; none without a line. Its ends belong to the point and the label."""
    if label.line is None:
        return []
    x0, y0, x1, y1 = label.line
    steps = max(2, int(math.hypot(x1 - x0, y1 - y0) / 2))
    return [(x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps) for step in range(1, steps)]
