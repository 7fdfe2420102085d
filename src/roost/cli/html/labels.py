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
_DISTANCES = (0.0, 8.0, 16.0, 26.0, 38.0, 52.0, 68.0, 86.0)
_DIRECTIONS = (45, 135, 315, 225, 90, 270, 0, 180, 67, 113, 22, 158, 293, 247, 338, 202)
# Labels that stand further off are tied to their points by a line.
_TIED_FROM = 8.0

# From where to where: x, y, x, y.
Line = tuple[float, float, float, float]


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
    """A point as it is drawn, with its label; one without a text is in the way of labels, not of their lines."""

    x: float
    y: float
    radius: float
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A label that has found its place. ``line`` leads to it from its point's edge, if it needs one."""

    disc: Disc
    frame: Frame
    line: Line | None

    @property
    def middle(self) -> float:
        return (self.frame.left + self.frame.right) / 2

    @property
    def baseline(self) -> float:
        return self.frame.bottom - _GAP - _DESCENT


def place_labels(discs: Sequence[Disc], inside: Frame, avoided: Sequence[Frame] = ()) -> list[Label]:
    """A label for each disc with a text, in their order, the nearest free place first.

    Labels lie ``inside`` and not on what is ``avoided``. A label for which no place is free is left out. Lines are
    to be drawn below the discs.
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


def _line(disc: Disc, frame: Frame) -> Line:
    """From the edge of the disc to the nearest place of the label."""
    x, y = min(max(disc.x, frame.left), frame.right), min(max(disc.y, frame.top), frame.bottom)
    share = disc.radius / max(math.hypot(x - disc.x, y - disc.y), disc.radius)
    return disc.x + (x - disc.x) * share, disc.y + (y - disc.y) * share, x, y


def _is_free(
    label: Label, discs: Sequence[Disc], placed: Sequence[Label], inside: Frame, avoided: Sequence[Frame]
) -> bool:
    frame = label.frame
    return (
        inside.holds(frame)
        and not any(frame.overlaps(each) for each in avoided)
        and not any(frame.distance(each.x, each.y) < each.radius for each in discs)
        and not any(frame.overlaps(each.frame) or _meet(each.line, frame) for each in placed)
        and not any(_meet(label.line, each.frame) for each in placed)
        and not any(_passes(label, each) for each in discs if each.text)
    )


def _meet(line: Line | None, frame: Frame) -> bool:
    """Whether any part of the line lies in the rectangle: what is left of it between each pair of sides."""
    if line is None:
        return False
    x0, y0, x1, y1 = line
    first, last = 0.0, 1.0
    for start, length, low, high in ((x0, x1 - x0, frame.left, frame.right), (y0, y1 - y0, frame.top, frame.bottom)):
        if length:
            enters, leaves = sorted(((low - start) / length, (high - start) / length))
            first, last = max(first, enters), min(last, leaves)
        elif not low <= start <= high:
            return False
    return first <= last


def _passes(label: Label, disc: Disc) -> bool:
    """Whether the label's line runs over the disc of another place."""
    if label.line is None or (disc.x, disc.y) == (label.disc.x, label.disc.y):
        return False
    x0, y0, x1, y1 = label.line
    along, down = x1 - x0, y1 - y0
    share = ((disc.x - x0) * along + (disc.y - y0) * down) / max(along * along + down * down, 1e-9)
    nearest = min(1.0, max(0.0, share))
    return math.hypot(x0 + nearest * along - disc.x, y0 + nearest * down - disc.y) < disc.radius
