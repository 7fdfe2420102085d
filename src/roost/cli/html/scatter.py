"""Two quantities against each other: points with numbers, fronts as steps, axes from zero or by powers of ten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from roost.cli.html.axis import nice_step
from roost.cli.html.markup import CHARACTER_PX, element, label, line, plain

WIDTH, HEIGHT = 1160.0, 480.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 84.0, 1140.0, 16.0, 432.0
# A ratio of the highest to the lowest value from which an axis goes by powers of ten.
_WIDE = 12.0
_RADIUS = 6.0
# Where the number of a point may stand beside it, the best place first.
_PLACES = ((11, -7), (-11, -7), (11, 15), (-11, 15), (0, -14), (0, 22), (24, -18), (-24, -18), (24, 26), (-24, 26))


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A candidate's place. ``number`` is its row; a hollow point is a prediction; ``counts`` for the front."""

    number: int
    x: float
    y: float
    tip: str
    fill: str
    hollow: bool = False
    counts: bool = True


class _Scale:
    """From values to places: from zero, or by powers of ten where values are far apart."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        positive = [each for each in values if each > 0]
        low, high = min(positive, default=1.0), max(positive, default=1.0)
        self.logarithmic = high > _WIDE * low
        self._start, self._end = start, end
        self._low = low / 1.4 if self.logarithmic else 0.0
        self._high = high * (1.4 if self.logarithmic else 1.1)

    def __call__(self, value: float) -> float:
        if self.logarithmic:
            share = math.log(max(value, self._low) / self._low) / math.log(self._high / self._low)
        else:
            share = value / self._high
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        if not self.logarithmic:
            step = nice_step(self._high, 6)
            return [index * step for index in range(int(self._high / step) + 1)]
        first, last = math.floor(math.log10(self._low)), math.ceil(math.log10(self._high))
        every = (1, 2, 5) if last - first <= 3 else (1,)
        values = [factor * 10.0**power for power in range(first, last + 1) for factor in every]
        return [each for each in values if self._low <= each <= self._high]


def scatter(points: Sequence[Point], across: str, up: str, limit: tuple[float, str] | None = None) -> str:
    """The chart's content: measured points with their numbers, predictions hollow, and the front of each.

    ``across`` and ``up`` are what the axes are of, ``limit`` a value across that has a name.
    """
    x = _Scale([each.x for each in points], _LEFT, _RIGHT)
    y = _Scale([each.y for each in points], _BOTTOM, _TOP)
    drawn = [*_grid(x, y, across, up)]
    if limit is not None and x(limit[0]) < _RIGHT:
        at = x(limit[0])
        drawn.append(line(at, _TOP, at, _BOTTOM, stroke="var(--alarm)", stroke_width=1.5, stroke_dasharray="6 4"))
        drawn.append(label(at - 6, _TOP + 10, limit[1], "end", class_="alarm"))
    for hollow, dashes in ((True, "4 4"), (False, None)):
        front = pareto([(each.x, each.y) for each in points if each.counts and each.hollow == hollow])
        drawn.append(_steps([(x(a), y(b)) for a, b in front], dashes))
    measured = {each.number: each for each in points if not each.hollow}
    for each in points:
        if each.hollow and each.number in measured:
            other = measured[each.number]
            drawn.append(line(x(each.x), y(each.y), x(other.x), y(other.y), stroke=each.fill, stroke_opacity=0.35))
    for each in sorted(points, key=lambda point: not point.hollow):
        drawn.append(_dot(each, x(each.x), y(each.y)))
    drawn.extend(_numbers([(each, x(each.x), y(each.y)) for each in points]))
    return "".join(drawn)


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other is at most as high as in both, from left to right."""
    front: list[tuple[float, float]] = []
    for point in sorted(set(points)):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def _grid(x: _Scale, y: _Scale, across: str, up: str) -> list[str]:
    drawn = [label(_LEFT - 8, _TOP - 4, up, "start", class_="muted")]
    drawn.append(label(_RIGHT, _BOTTOM + 38, across, "end", class_="muted"))
    for value in y.ticks():
        at = y(value)
        drawn.append(line(_LEFT, at, _RIGHT, at, stroke="var(--line)", stroke_width=1))
        if at > _TOP + 14:
            drawn.append(label(_LEFT - 10, at + 4, f"{value:.3g}", "end", class_="muted"))
    free_from = 0.0
    for value in x.ticks():
        text, at = f"{value:.3g}", x(value)
        drawn.append(line(at, _BOTTOM, at, _BOTTOM + 5, stroke="var(--muted)", stroke_width=1))
        half = CHARACTER_PX * len(text) / 2
        if at - half >= free_from:
            drawn.append(label(at, _BOTTOM + 20, text, "middle", class_="muted"))
            free_from = at + half + 8
    return drawn


def _steps(corners: Sequence[tuple[float, float]], dashes: str | None) -> str:
    """The front: with so much of the one, that much of the other is the best."""
    if not corners:
        return ""
    path = f"M{corners[0][0]:.1f} {_TOP:.1f}V{corners[0][1]:.1f}"
    path += "".join(f"H{at:.1f}V{height:.1f}" for at, height in corners[1:]) + f"H{_RIGHT:.1f}"
    return element("path", "", d=path, fill="none", stroke="var(--muted)", stroke_width=1.5, stroke_dasharray=dashes)


def _dot(point: Point, x: float, y: float) -> str:
    filled = (
        {"fill": "var(--paper)", "stroke": point.fill, "stroke_width": 2.0} if point.hollow else {"fill": point.fill}
    )
    return element("circle", element("title", plain(point.tip)), cx=x, cy=y, r=_RADIUS, **filled)


def _numbers(placed: Sequence[tuple[Point, float, float]]) -> list[str]:
    """Each measured point's number beside it, where there is room; its tip tells it in any case."""
    taken = [(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for _, x, y in placed]
    drawn = []
    for point, x, y in (each for each in placed if not each[0].hollow):
        text = str(point.number)
        half = CHARACTER_PX * len(text) / 2 + 1
        for right, down in _PLACES:
            frame = (x + right - half, y + down - 11, x + right + half, y + down + 3)
            inside = frame[0] > _LEFT and frame[2] < _RIGHT and frame[1] > _TOP and frame[3] < _BOTTOM
            if inside and not any(_overlap(frame, other) for other in taken):
                taken.append(frame)
                drawn.append(label(x + right, y + down, text, "middle"))
                break
    return drawn


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
