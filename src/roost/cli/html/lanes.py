"""The two lanes as rows of a chart, and the memory below them, on the same pieces of time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from roost.cli.html.axis import Piece, nice_step
from roost.cli.html.markup import CHARACTER_PX, box, element, label, line, plain, shortened
from roost.facts.stage import stage_text
from roost.timeline import MemoryLevel, Slice, TimelineRecord
from roost.units import GiB, MiB, format_bytes, format_seconds

# What a row of the chart leaves at its left for names, and at its right.
LEFT, MARGIN = 64.0, 6.0
_LANE = 34.0
# Operations narrower than this are drawn at it, and merged with neighbours that are as narrow and as near.
_THINNEST = 0.8


def lanes(record: TimelineRecord, pieces: Sequence[Piece], colours: Mapping[str, str], top: float) -> str:
    """Two rows, compute above copy, with the bands between; they end at ``top`` + ``lanes_height()``."""
    drawn = []
    left, right = pieces[0].left, pieces[-1].right
    for row, lane in enumerate(("compute", "copy")):
        y = top + row * (_LANE + 8)
        drawn.append(label(left - 8, y + _LANE / 2 + 4, lane, "end"))
        drawn.append(box(left, y, right - left, _LANE, fill="var(--soft)"))
        here = [each for each in record.slices if each.lane == lane]
        for piece in pieces:
            if not piece.band:
                drawn.extend(_boxes(here, piece, colours, y))
    drawn.extend(_band(piece, record.text_of(piece.stages), top, lanes_height()) for piece in pieces if piece.band)
    return "".join(drawn)


def lanes_height() -> float:
    return 2 * _LANE + 8


def _boxes(slices: Sequence[Slice], piece: Piece, colours: Mapping[str, str], y: float) -> Iterator[str]:
    inside = [each for each in slices if each.start_s < piece.end_s and each.end_s > piece.start_s]
    for count, group in enumerate(_merged(inside, piece)):
        first, last = group[0], group[-1]
        x = piece.x(first.start_s)
        width = max(_THINNEST, piece.x(last.end_s) - x)
        yield box(
            x, y, width, _LANE, _tip(group), fill=colours[first.component], fill_opacity=0.8 if count % 2 else None
        )
        number = first.part.rpartition(".")[2]
        if len(group) == 1 and number.isdigit() and width >= CHARACTER_PX * len(number) + 4:
            yield label(x + width / 2, y + _LANE / 2 + 4, number, "middle", class_="on")


def _merged(slices: Sequence[Slice], piece: Piece) -> Iterator[list[Slice]]:
    """Slices in their order, those together that no eye could tell apart."""
    group: list[Slice] = []
    for each in slices:
        thin = piece.x(each.end_s) - piece.x(each.start_s) < _THINNEST
        near = group and piece.x(each.start_s) - piece.x(group[-1].end_s) < _THINNEST / 2
        narrow = group and piece.x(group[-1].end_s) - piece.x(group[0].start_s) < 2 * _THINNEST
        if group and not (thin and near and narrow and each.component == group[0].component):
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def _tip(group: Sequence[Slice]) -> str:
    first, last = group[0], group[-1]
    parts = first.part if len(group) == 1 else f"{first.part} to {last.part}"
    moved = sum(each.bytes for each in group)
    size = f", {format_bytes(abs(moved))} {'to' if moved > 0 else 'from'} the device" if moved else ""
    took = format_seconds(last.end_s - first.start_s)
    return f"{first.component} {parts}: {took} from {format_seconds(first.start_s)}{size}"


def _band(piece: Piece, stages: str, top: float, height: float) -> str:
    """Equal passes that are not drawn."""
    width, middle = piece.right - piece.left, (piece.left + piece.right) / 2
    texts = (f"{piece.passes} more passes", format_seconds(piece.end_s - piece.start_s))
    count = texts[0] if shortened(texts[0], width) == texts[0] else f"{piece.passes} more"
    written = "".join(
        label(middle, top + height / 2 - 4 + 17 * row, shortened(text, width), "middle")
        for row, text in enumerate((count, texts[1]))
    )
    tip = f"{texts[0]}, {texts[1]}: {stages}"
    return box(piece.left, top, width, height, tip, fill="var(--soft)", stroke="var(--line)") + written


def headings(record: TimelineRecord, pieces: Sequence[Piece], y: float, bottom: float) -> str:
    """The stages' names above their pieces, and a line where each begins."""
    drawn = []
    for first, last in _stages(pieces):
        stage = record.text_of(first.stages)
        width = last.right - first.left
        drawn.append(line(first.left, y - 12, first.left, bottom, stroke="var(--muted)", stroke_width=1))
        title = element("title", plain(stage))
        name = shortened(stage, width - 8) or shortened(stage_text(first.stages[0].phase, named=False), width - 8)
        drawn.append(element("text", title + plain(name), x=first.left + 5, y=y))
    return "".join(drawn)


def _stages(pieces: Sequence[Piece]) -> Iterator[tuple[Piece, Piece]]:
    starts = [index for index, each in enumerate(pieces) if index == 0 or pieces[index - 1].stages != each.stages]
    for first, last in zip(starts, [*starts[1:], len(pieces)], strict=True):
        yield pieces[first], pieces[last - 1]


def moments(pieces: Sequence[Piece], y: float) -> str:
    """The time at which each piece begins, as far as there is room, and the end."""
    drawn, free_from = [], 0.0
    right, end = pieces[-1].right, format_seconds(pieces[-1].end_s)
    until = right - CHARACTER_PX * len(end) - 12
    for x, time_s in [(each.left, each.start_s) for each in pieces]:
        text = format_seconds(time_s) if time_s else "0 s"
        if x >= free_from and x + CHARACTER_PX * len(text) < until:
            drawn.append(label(x + 2, y, text, class_="muted"))
            free_from = x + CHARACTER_PX * len(text) + 12
    return "".join((*drawn, label(right, y, end, "end", class_="muted")))


def ticks(piece: Piece, origin_s: float, step: float, y: float) -> str:
    """Evenly spaced moments of one piece, counted from ``origin_s``."""
    first, last = (math.floor(round((each - origin_s) / step, 6)) for each in (piece.start_s, piece.end_s))
    times = [index * step for index in range(first, last + 1)]
    places = [(time_s, piece.x(origin_s + time_s)) for time_s in times if origin_s + time_s >= piece.start_s]
    half = CHARACTER_PX * len(_tick(times[-1], step)) / 2
    return "".join(
        line(x, y - 14, x, y - 18, stroke="var(--muted)") + label(x, y, _tick(time_s, step), "middle", class_="muted")
        for time_s, x in places
        if x + half <= piece.right + MARGIN
    )


def _tick(time_s: float, step: float) -> str:
    if step < 1e-3:
        return f"{time_s * 1e6:g} µs"
    return f"{round(time_s * 1e3, 3):g} ms" if step < 1 else f"{time_s:g} s"


def memory(
    record: TimelineRecord, pieces: Sequence[Piece], colours: Mapping[str, str], top: float, height: float
) -> str:
    """What is on the device over time, stacked, against the budget."""
    most = max(record.budget_bytes, record.peak_bytes, 1) * 1.12

    def y(size: float) -> float:
        return top + height * (1 - size / most)

    unit, name = (GiB, "GiB") if most >= GiB else (MiB, "MiB")
    left, right = pieces[0].left, pieces[-1].right
    drawn = [label(left - 8, top + 4, name, "end", class_="muted")]
    step = nice_step(most / unit, 5)
    for index in range(int(most / unit / step) + 1):
        at = y(index * step * unit)
        drawn.append(line(left, at, right, at, stroke="var(--line)", stroke_width=1))
        if at > top + 20:
            drawn.append(label(left - 8, at + 4, f"{index * step:g}", "end", class_="muted"))
    for name, fill in colours.items():
        steps = "".join(
            f"M{x0:.1f} {y(below):.1f}H{x1:.1f}V{y(below + size):.1f}H{x0:.1f}Z"
            for x0, x1, level in stretches(record.memory, pieces)
            for below, size in [_stacked(level, name, colours)]
            if size
        )
        drawn.append(element("path", element("title", plain(name)), d=steps, fill=fill) if steps else "")
    for piece in pieces:
        if piece.band:
            width = piece.right - piece.left
            drawn.append(box(piece.left, top, width, height, fill="var(--soft)", fill_opacity=0.6))
    at = y(record.budget_bytes)
    drawn.append(line(left, at, right, at, stroke="var(--alarm)", stroke_width=1.5, stroke_dasharray="6 4"))
    drawn.append(label(right, at - 6, f"budget {format_bytes(record.budget_bytes)}", "end", class_="alarm"))
    return "".join(drawn)


def _stacked(level: MemoryLevel, name: str, order: Mapping[str, str]) -> tuple[int, int]:
    """What lies below ``name`` in the stack, and its own size."""
    below = 0
    for each in order:
        if each == name:
            break
        below += level.bytes.get(each, 0)
    return below, level.bytes.get(name, 0)


def stretches(levels: Sequence[MemoryLevel], pieces: Sequence[Piece]) -> Iterator[tuple[float, float, MemoryLevel]]:
    """Each level from where to where."""
    ends = [*(each.time_s for each in levels[1:]), float("inf")][: len(levels)]
    for piece in pieces:
        inside = [
            (max(level.time_s, piece.start_s), min(end_s, piece.end_s), level)
            for level, end_s in zip(levels, ends, strict=True)
            if level.time_s < piece.end_s and (end_s > piece.start_s or level.time_s >= piece.start_s)
        ]
        if piece.band:  # what its passes hold is what the passes beside it hold
            inside = [(piece.start_s, piece.end_s, max((each for *_, each in inside), key=_total))] if inside else []
        yield from _visible([(piece.x(start_s), piece.x(end_s), level) for start_s, end_s, level in inside])


def _visible(stretches: Sequence[tuple[float, float, MemoryLevel]]) -> Iterator[tuple[float, float, MemoryLevel]]:
    """The same, those in a row that are too thin to be seen as one with the highest of them."""
    thin: list[tuple[float, float, MemoryLevel]] = []
    for start, end, level in stretches:
        wide = end - start >= _THINNEST
        if not wide:
            thin.append((start, end, level))
        if thin and (wide or end - thin[0][0] >= _THINNEST):
            yield thin[0][0], max(thin[-1][1], thin[0][0] + _THINNEST), max((each for *_, each in thin), key=_total)
            thin = []
        if wide:
            yield start, end, level
    if thin:
        yield thin[0][0], thin[-1][1], max((each for *_, each in thin), key=_total)


def _total(level: MemoryLevel) -> int:
    return level.total_bytes
