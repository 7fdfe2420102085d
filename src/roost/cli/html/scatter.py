"""Two quantities against each other: points with numbers, fronts as steps, axes from zero or by powers of ten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from roost.cli.html.axis import nice_step
from roost.cli.html.labels import Disc, Frame, Label, place_labels
from roost.cli.html.layout import Layout
from roost.cli.html.markup import CHARACTER_PX, element, label, line, plain

# What the plot leaves at its left for numbers, at its right, above it for two lines of text and below it for two.
_LEFT, _RIGHT, _ABOVE, _BELOW = 48.0, 20.0, 36.0, 46.0
# A ratio of the highest to the lowest value from which an axis goes by powers of ten.
_WIDE = 12.0
_RADIUS = 6.0
# A ring's line reaches further out than a disc.
_RING = 7.0


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
            step = nice_step(self._high, max(3, int(abs(self._end - self._start) / 90)))
            return [index * step for index in range(int(self._high / step) + 1)]
        first, last = math.floor(math.log10(self._low)), math.ceil(math.log10(self._high))
        every = (1, 2, 5) if last - first <= 3 else (1,)
        values = [factor * 10.0**power for power in range(first, last + 1) for factor in every]
        return [each for each in values if self._low <= each <= self._high]


def scatter(
    points: Sequence[Point], axes: tuple[str, str], limit: tuple[float, str] | None, layout: Layout
) -> tuple[str, float]:
    """The chart's content and height: measured points with their numbers, predictions hollow, and the front of each.

    ``axes`` say what is across and what is up, ``limit`` is a value across that has a name.
    """
    height = min(480.0, 300 + layout.width / 4)
    plot = Frame(_LEFT, _ABOVE, layout.width - _RIGHT, height - _BELOW)
    x = _Scale([each.x for each in points], plot.left, plot.right)
    y = _Scale([each.y for each in points], plot.bottom, plot.top)
    drawn = [*_grid(x, y, axes, plot)]
    for hollow, dashes in ((True, "4 4"), (False, None)):
        front = pareto([(each.x, each.y) for each in points if each.counts and each.hollow == hollow])
        drawn.append(_steps([(x(a), y(b)) for a, b in front], dashes, plot))
    limits = [x(limit[0])] if limit is not None and x(limit[0]) < plot.right else []
    drawn += [_limit(at, limit[1], plot) for at in limits if limit is not None]
    placed = [(each, x(each.x), y(each.y)) for each in sorted(points, key=lambda point: not point.hollow)]
    drawn += _ties(placed)
    labels = _numbers(placed, plot, [Frame(at - 2, plot.top, at + 2, plot.bottom) for at in limits])
    drawn += [line(*each.line, stroke="var(--muted)", stroke_width=1) for each in labels if each.line is not None]
    drawn += [_dot(each, at, up) for each, at, up in placed]
    drawn += [label(each.middle, each.baseline, each.disc.text, "middle", class_="number") for each in labels]
    shown = {each.disc.text for each in labels}
    listed = _listed([each.number for each in points if not each.hollow and str(each.number) not in shown], layout)
    drawn += [label(4, height + 12 + 16 * row, each, class_="muted") for row, each in enumerate(listed)]
    return "".join(drawn), height + 16 * len(listed)


def _limit(at: float, name: str, plot: Frame) -> str:
    """A line, and its name above the plot."""
    start = max(plot.left, at - CHARACTER_PX * len(name) / 2)
    drawn = line(at, plot.top, at, plot.bottom, stroke="var(--alarm)", stroke_width=1.5, stroke_dasharray="6 4")
    if start + CHARACTER_PX * len(name) > plot.right:
        return drawn + label(plot.right, plot.top - 6, name, "end", class_="alarm")
    return drawn + label(start, plot.top - 6, name, class_="alarm")


def _ties(placed: Sequence[tuple[Point, float, float]]) -> list[str]:
    """A line from each prediction to what was measured."""
    measured = {each.number: (x, y) for each, x, y in placed if not each.hollow}
    return [
        line(x, y, *measured[each.number], stroke=each.fill, stroke_opacity=0.35)
        for each, x, y in placed
        if each.hollow and each.number in measured
    ]


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other is at most as high as in both, from left to right."""
    front: list[tuple[float, float]] = []
    for point in sorted(set(points)):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def _grid(x: _Scale, y: _Scale, axes: tuple[str, str], plot: Frame) -> list[str]:
    drawn = [label(4, plot.top - 22, axes[1], class_="muted")]
    drawn.append(label(plot.right, plot.bottom + 38, axes[0], "end", class_="muted"))
    for value in y.ticks():
        at = y(value)
        drawn.append(line(plot.left, at, plot.right, at, stroke="var(--line)", stroke_width=1))
        drawn.append(label(plot.left - 8, at + 4, f"{value:g}", "end", class_="muted"))
    free_from = 0.0
    for value in x.ticks():
        text, at = f"{value:g}", x(value)
        drawn.append(line(at, plot.bottom, at, plot.bottom + 5, stroke="var(--muted)", stroke_width=1))
        half = CHARACTER_PX * len(text) / 2
        if at - half >= free_from:
            drawn.append(label(at, plot.bottom + 20, text, "middle", class_="muted"))
            free_from = at + half + 8
    return drawn


def _steps(corners: Sequence[tuple[float, float]], dashes: str | None, plot: Frame) -> str:
    """The front: with so much of the one, that much of the other is the best."""
    if not corners:
        return ""
    path = f"M{corners[0][0]:.1f} {plot.top:.1f}V{corners[0][1]:.1f}"
    path += "".join(f"H{at:.1f}V{height:.1f}" for at, height in corners[1:]) + f"H{plot.right:.1f}"
    return element("path", "", d=path, fill="none", stroke="var(--muted)", stroke_width=1.5, stroke_dasharray=dashes)


def _dot(point: Point, x: float, y: float) -> str:
    filled = (
        {"fill": "var(--paper)", "stroke": point.fill, "stroke_width": 2.0} if point.hollow else {"fill": point.fill}
    )
    return element("circle", element("title", plain(point.tip)), cx=x, cy=y, r=_RADIUS, **filled)


def _numbers(placed: Sequence[tuple[Point, float, float]], plot: Frame, avoided: Sequence[Frame]) -> list[Label]:
    """Each measured point's number, where there is room for it."""
    discs = [
        Disc(x=x, y=y, radius=_RING if each.hollow else _RADIUS, text="" if each.hollow else str(each.number))
        for each, x, y in placed
    ]
    return place_labels(discs, plot, avoided)


def _listed(numbers: Sequence[int], layout: Layout) -> list[str]:
    """The numbers that stand at no point, in lines below the chart."""
    text = f"no room for the numbers of {', '.join(map(str, numbers))}" if numbers else ""
    return wrap(text, int((layout.width - 8) / CHARACTER_PX))
