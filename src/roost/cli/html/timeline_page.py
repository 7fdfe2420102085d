"""The page of ``roost timeline``: the whole generation, both lanes with the memory, and one pass in full."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from roost.cli.html.axis import Piece, nice_step, rows_of
from roost.cli.html.lanes import LEFT, MARGIN, headings, lanes, lanes_height, memory, moments, ticks
from roost.cli.html.layout import WIDE, Layout, chart
from roost.cli.html.markup import box, label, shortened
from roost.cli.html.page import colour, legend, page, section
from roost.cli.html.table import Row, columns, table
from roost.facts.stage import StageKey
from roost.timeline import Pass, TimelineRecord, stages_of
from roost.units import format_bytes, format_seconds

# Height of the memory where the whole generation is one row, and where it is several.
_MEMORY_HEIGHT, _MEMORY_HEIGHT_IN_ROWS = 210.0, 130.0


def timeline_page(record: TimelineRecord, stages: list[list[str]], notes: Iterable[str] = ()) -> str:
    """The page of one timeline. ``stages`` are the rows of the table below the overview."""
    colours = colours_of(record)
    sections = [
        section(
            "The whole generation",
            chart(lambda layout: _overview(record, colours, layout), "Stages at their true lengths"),
            _stage_table(stages),
            note=" ".join(notes),
        ),
        section(
            "Lanes and memory",
            legend(colours),
            chart(
                lambda layout: _lanes_and_memory(record, colours, layout),
                "Copy lane, compute lane and device memory over time",
            ),
            note="Every part has a time scale of its own; a grey band stands for passes like the ones beside it.",
        ),
    ]
    steady = steady_pass(record.passes)
    if steady is not None:
        sections.append(_zoomed(record, steady, colours))
    subtitle = f"{record.model} · {record.workload} · {record.device}"
    return page("Timeline", record.kind, subtitle, record.figures, sections)


def colours_of(record: TimelineRecord) -> dict[str, str]:
    """A colour for everything that is drawn, in the order in which memory is stacked."""
    names = [*(each.component for each in record.passes), *(each.component for each in record.slices)]
    held = [name for level in record.memory for name in level.bytes]
    special = {"context": "var(--context)", "activations": "var(--activations)", "other": "var(--activations)"}
    components = [name for name in dict.fromkeys((*names, *held)) if name not in special]
    components.sort(key=lambda name: -held.count(name))  # what is always there lies below
    found = {name: colour(index) for index, name in enumerate(components)}
    before = {"context": special["context"]} if "context" in held else {}
    after = {name: fill for name, fill in special.items() if name in held and name not in before}
    return {**before, **found, **after}


def _overview(record: TimelineRecord, colours: Mapping[str, str], layout: Layout) -> tuple[str, float]:
    """The stages at their true lengths."""
    right = layout.width - MARGIN
    scale = right / record.seconds if record.seconds else 0.0
    drawn = []
    component_of = {each.stages: each.component for each in reversed(record.passes)}
    for stages, start_s, end_s in stages_of(record.passes):
        x, width = start_s * scale, (end_s - start_s) * scale
        stage = record.text_of(stages)
        tip = f"{stage}: {format_seconds(end_s - start_s)}"
        drawn.append(box(x, 22, max(1.0, width - 1.0), 30, tip, fill=colours[component_of[stages]]))
        drawn.append(label(x, 14, shortened(stage, width - 6)))
    drawn.append(label(0, 70, "0 s", class_="muted"))
    drawn.append(label(right, 70, format_seconds(record.seconds), "end", class_="muted"))
    return "".join(drawn), 76.0


def _stage_table(rows: list[list[str]]) -> str:
    numbers = ["Passes", "Takes", "Compute busy", "Copy busy", "Waits", "Peak"]
    return table(columns("Stage", numbers, ["Limited by"]), [Row(cells=each) for each in rows])


def _lanes_and_memory(record: TimelineRecord, colours: Mapping[str, str], layout: Layout) -> tuple[str, float]:
    """A whole generation, in as many rows as its stages need at this width."""
    rows = rows_of(record.passes, LEFT, layout.width - MARGIN)
    height = _MEMORY_HEIGHT if len(rows) == 1 else _MEMORY_HEIGHT_IN_ROWS
    drawn, top = [], 0.0
    for pieces in rows:
        memory_top = top + 26 + lanes_height() + 24
        bottom = memory_top + height
        drawn.append(memory(record, pieces, colours, memory_top, height))
        drawn.append(lanes(record, pieces, colours, top + 26))
        drawn.append(headings(record, pieces, top + 14, bottom))
        drawn.append(moments(pieces, bottom + 18))
        top = bottom + 38
    return "".join(drawn), top


def steady_pass(passes: tuple[Pass, ...]) -> Pass | None:
    """The drawn pass to look at: of the stage that takes longest, the latest before equal ones, else the last."""
    drawn = [each for each in passes if not each.skipped]
    if not drawn:
        return None
    seconds: dict[StageKey, float] = {}
    for each in passes:
        for stage in each.stages:
            seconds[stage] = seconds.get(stage, 0.0) + each.seconds
    longest = max(seconds, key=lambda stage: seconds[stage])
    for index, each in enumerate(passes[:-1]):
        if each.stages == (longest,) and not each.skipped and passes[index + 1].skipped:
            return each
    return next((each for each in reversed(drawn) if each.stages == (longest,)), None)


def _zoomed(record: TimelineRecord, steady: Pass, colours: Mapping[str, str]) -> str:
    busy = {
        lane: sum(
            min(each.end_s, steady.end_s) - max(each.start_s, steady.start_s)
            for each in record.slices
            if each.lane == lane and each.start_s < steady.end_s and each.end_s > steady.start_s
        )
        for lane in ("compute", "copy")
    }
    moved = sum(
        each.bytes for each in record.slices if steady.start_s <= each.start_s < steady.end_s and each.bytes > 0
    )
    share = {lane: seconds / steady.seconds if steady.seconds else 0.0 for lane, seconds in busy.items()}
    copied = f"{format_seconds(busy['copy'])} ({share['copy']:.0%}), {format_bytes(moved)} copied"
    return section(
        "One pass in full",
        chart(lambda layout: _one_pass(record, steady, colours, layout), "Both lanes during one pass"),
        note=f"{record.text_of(steady.stages)}, from {format_seconds(steady.start_s)}: takes"
        f" {format_seconds(steady.seconds)}. Compute is busy for {format_seconds(busy['compute'])}"
        f" ({share['compute']:.0%}), the link for {copied}. Numbers are blocks.",
    )


def _one_pass(record: TimelineRecord, steady: Pass, colours: Mapping[str, str], layout: Layout) -> tuple[str, float]:
    """Both lanes of a pass in rows of equal time, so that blocks are as wide as in the widest layout."""
    rows = round(WIDE.width / layout.width)
    seconds = steady.seconds / rows
    step = nice_step(seconds, round(layout.width / 140))
    drawn, top = [], 8.0
    for row in range(rows):
        start_s = steady.start_s + row * seconds
        piece = Piece(
            stages=steady.stages,
            start_s=start_s,
            end_s=start_s + seconds,
            passes=1,
            left=LEFT,
            right=layout.width - MARGIN,
        )
        bottom = top + lanes_height()
        drawn.append(lanes(record, [piece], colours, top) + ticks(piece, steady.start_s, step, bottom + 26))
        top = bottom + 44
    return "".join(drawn), top
