"""Pages at every width: one drawing of each chart is shown, tables say their columns twice, labels keep free."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations, pairwise, product
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.cli.html.axis import Piece, rows_of
from roost.cli.html.labels import Disc, Frame, place_labels
from roost.cli.html.lanes import stretches
from roost.cli.html.layout import LAYOUTS, NARROW
from roost.cli.html.markup import CHARACTER_PX
from roost.cli.html.report_page import report_page
from roost.cli.html.scatter import Point, scatter
from roost.cli.html.timeline_page import timeline_page
from roost.facts.stage import StageKey
from roost.timeline import MemoryLevel, Pass, Slice, TimelineRecord
from roost.tune.results.document import Results
from test_report import RESULTS, row

GIB = 1024**3
LONG = "a_component_whose_name_is_longer_than_a_telephone_is_wide"
STAGES = [
    StageKey("a", "text_encode"), StageKey("b", "text_encode"), StageKey("c", "denoise"), StageKey("d", "decode")
]  # fmt: skip
PASSES = st.lists(
    st.tuples(st.sampled_from(STAGES), st.floats(1e-4, 9.0), st.booleans()),
    min_size=1,
    max_size=40,
)


def passes_of(drawn: list[tuple[StageKey, float, bool]]) -> tuple[list[Pass], float]:
    """Passes one after the other, and where the last ends."""
    passes, clock = [], 0.0
    for stage, seconds, skipped in drawn:
        times = {"start_s": clock, "end_s": clock + seconds, "count": 5 if skipped else 1}
        passes.append(Pass(stages=(stage,), component=stage.component, skipped=skipped, **times))
        clock += seconds
    return passes, clock


def record(names: tuple[str, str] = ("text_encoder", "transformer")) -> TimelineRecord:
    """Texts, forty steps of which four are drawn, and a decode: 44 blocks, copied while the one before computes."""
    encoder, denoiser = names
    steps = [(StageKey(denoiser, "denoise"), 50.0, index == 2) for index in range(4)]
    passes, end_s = passes_of([(StageKey(encoder, "text_encode"), 2.0, False), *steps, (STAGES[3], 9.0, False)])
    slices = [
        Slice(lane=lane, component=denoiser, part=f"blocks.{block}", start_s=start_s, end_s=start_s + 1.0, bytes=size)
        for each in passes[1:5]
        if not each.skipped
        for block in range(44)
        for lane, start_s, size in (("compute", each.start_s + block * 1.1, 0), ("copy", each.start_s + block, GIB))
    ]
    memory = [MemoryLevel(time_s=each.start_s, bytes={denoiser: 20 * GIB, "activations": GIB}) for each in passes]
    return TimelineRecord(
        kind="predicted",
        model="a-model",
        workload="1280×720 × 81 frames, 40 steps",
        device="a card",
        budget_bytes=22 * GIB,
        slices=tuple(slices),
        passes=tuple(passes),
        memory=tuple(memory),
        figures={"generation": f"{end_s} s"},
    )


def crowded_results(count: int) -> Results:
    """A bench whose candidates are nearly alike, with long names."""
    rows = [
        row(f"{LONG} k={each}", 60 + each % 7, 20 + each % 5 / 4, reason=each % 3 and LONG) for each in range(count)
    ]
    return Results.model_validate(
        RESULTS | {"candidates": [each | {"reason": each["reason"] or None} for each in rows]}
    )


PAGES = {
    "timeline": lambda: timeline_page(record(), [["denoise", "40", "1 s", "9%", "9%", "1 s", "1 GiB", "link"]]),
    "timeline with long names": lambda: timeline_page(record((f"{LONG}_1", f"{LONG}_2")), []),
    "report": lambda: report_page(Results.model_validate(RESULTS)),
    "report of twenty alike": lambda: report_page(crowded_results(20)),
}


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest) -> str:
    return PAGES[request.param]()


def charts(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(each) for each in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_every_chart_is_drawn_for_each_width_under_one_name(page: str) -> None:
    drawn = charts(page)
    assert drawn
    names = [(each.get("aria-label"), each.get("class")) for each in drawn]
    assert len(names) == len(set(names))
    assert set(names) == set(product({name for name, _ in names}, {each.name for each in LAYOUTS}))
    assert {each.get("role") for each in drawn} == {"img"}


@pytest.mark.parametrize("window_px", [1, 320, 400, 679, 679.5, 680, 800, 999, 999.5, 1000, 1280, 4000])
def test_one_drawing_is_shown_in_a_window_of_any_width(page: str, window_px: float) -> None:
    shown = [
        name
        for low, high, name in re.findall(
            r"@media\(min-width:([\d.]+)px\)(?: and \(max-width:([\d.]+)px\))?\{svg\.(\w+)\{display:block\}\}", page
        )
        if float(low) <= window_px <= float(high or "inf")
    ]
    assert shown == [next(each.name for each in LAYOUTS if window_px < (each.below_px or float("inf")))]


def test_nothing_is_wider_than_a_telephone_or_scrolls_sideways(page: str) -> None:
    rules = re.sub(r"@media\([^{]*\{", "", re.findall(r"<style>(.*?)</style>", page, re.DOTALL)[0])
    least = [float(each) for each in re.findall(r"(?<![\w-])(?:min-)?width:([\d.]+)px", rules)]
    assert least
    assert max(least) <= NARROW.width / 2
    assert "overflow-x" not in page


def written(text: ElementTree.Element) -> str:
    """What a text shows: all of it but its tip."""
    return (text.text or "") + "".join(each.tail or "" for each in text)


def text_frame(text: ElementTree.Element) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a text, by the width that the charts count with."""
    width = CHARACTER_PX * len(written(text))
    x, y = float(text.get("x", "")), float(text.get("y", ""))
    left = x - {"start": 0, "middle": width / 2, "end": width}[text.get("text-anchor", "start")]
    return left, y - 9, left + width, y + 2


def meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_texts_of_a_chart_lie_in_it_and_on_no_other_text_or_point(page: str) -> None:
    for drawn in charts(page):
        _, _, width, height = map(float, drawn.get("viewBox", "").split())
        frames = [text_frame(each) for each in drawn.iter("text") if written(each)]
        assert all(left >= -1 and right <= width + 1 for left, _, right, _ in frames)
        assert all(top >= -1 and bottom <= height + 1 for _, top, _, bottom in frames)
        assert not any(meet(one, other) for one, other in combinations(frames, 2))
        for point in drawn.iter("circle"):
            x, y, radius = (float(point.get(key, "")) for key in ("cx", "cy", "r"))
            near = [(min(max(x, each[0]), each[2]) - x, min(max(y, each[1]), each[3]) - y) for each in frames]
            assert all(across**2 + down**2 >= radius**2 for across, down in near)


def test_every_cell_says_of_which_column_it_is(page: str) -> None:
    (shown,) = re.findall(r"<table.*?</table>", page, re.DOTALL)
    table = ElementTree.fromstring(shown)
    headings = [each.text for each in table.iter("th")]
    assert all(headings)
    for line in [each for body in table.iter("tbody") for each in body]:
        labels = [cell.get("data-label") for cell in line]
        # What says why stands alone in its line, as wide as the table: it makes no other cell tall.
        assert labels == headings or (labels == ["Why"] and line[0].get("colspan") == str(len(headings)))


PLOT = Frame(48.0, 36.0, 340.0, 344.0)
WHERE = st.one_of(
    st.tuples(st.floats(55, 333), st.floats(43, 337)),
    st.tuples(st.floats(180, 230), st.floats(150, 190)),  # crowds
)
DISCS = st.lists(
    st.builds(
        lambda where, text: Disc(x=where[0], y=where[1], radius=6.0 if text else 7.0, text=text),
        WHERE,
        st.sampled_from(["", "7", "12", "137"]),
    ),
    max_size=40,
)


@given(DISCS, st.lists(st.floats(60, 330), max_size=2))
def test_no_label_lies_on_a_point_on_another_label_or_on_what_it_is_to_avoid(
    discs: list[Disc], limits: list[float]
) -> None:
    avoided = [Frame(at - 2, PLOT.top, at + 2, PLOT.bottom) for at in limits]
    labels = place_labels(discs, PLOT, avoided)
    frames = [(each.frame.left, each.frame.top, each.frame.right, each.frame.bottom) for each in labels]
    assert not Counter(map(id, (each.disc for each in labels))) - Counter(id(each) for each in discs if each.text)
    assert not any(meet(one, other) for one, other in combinations(frames, 2))
    for left, top, right, bottom in frames:
        assert PLOT.left <= left < right <= PLOT.right
        assert PLOT.top <= top < bottom <= PLOT.bottom
        assert not any(meet((left, top, right, bottom), (at - 2, 0, at + 2, 999)) for at in limits)
        for disc in discs:
            across, down = min(max(disc.x, left), right) - disc.x, min(max(disc.y, top), bottom) - disc.y
            assert across**2 + down**2 >= disc.radius**2 - 1e-6
    assert place_labels(discs, PLOT, avoided) == labels


@given(WHERE)
def test_a_point_alone_always_has_its_label_beside_it(where: tuple[float, float]) -> None:
    (label,) = place_labels([Disc(x=where[0], y=where[1], radius=6.0, text="137")], PLOT)
    assert label.line is None


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_each_number_stands_at_its_point_or_in_the_list_below(layout) -> None:
    points = [Point(number=each, x=20 + each % 6 / 9, y=60 + each % 5 / 3, tip="", fill="red") for each in range(1, 61)]
    drawn, _ = scatter(points, ("across", "up"), None, layout)
    chart = ElementTree.fromstring(f"<svg>{drawn}</svg>")
    shown = [int(each.text or "") for each in chart.iter("text") if each.get("class") == "number"]
    others = " ".join(each.text or "" for each in chart.iter("text") if each.get("class") == "muted")
    listed = [int(each) for each in others.partition("no room for the numbers of ")[2].split(", ")]
    assert sorted([*shown, *listed]) == list(range(1, 61))


@given(PASSES, st.sampled_from([110.0, 400.0, 4000.0]))
def test_pieces_of_the_axis_cover_all_time_and_count_every_pass(
    drawn: list[tuple[StageKey, float, bool]], right: float
) -> None:
    passes, end_s = passes_of(drawn)
    rows = rows_of(passes, 10.0, right)
    for line in rows:
        assert line[0].left == 10.0
        assert line[-1].right == pytest.approx(right)
        assert all(before.right == after.left for before, after in pairwise(line))
    pieces = [piece for line in rows for piece in line]
    assert (pieces[0].start_s, pieces[-1].end_s) == (0.0, end_s)
    assert all(before.end_s == after.start_s for before, after in pairwise(pieces))
    assert sum(each.passes for each in pieces) == sum(each.count for each in passes)
    for each in passes:
        if each.skipped:
            assert any(piece.band and piece.start_s <= each.start_s and each.end_s <= piece.end_s for piece in pieces)


def test_a_narrow_axis_begins_a_row_where_a_stage_finds_no_room() -> None:
    passes = record().passes
    assert [len(rows_of(passes, 64.0, right)) for right in (1074.0, 354.0)] == [1, 3]


def test_a_moment_of_much_memory_is_drawn_as_a_moment() -> None:
    piece = Piece(stages=(STAGES[0],), start_s=0.0, end_s=10.0, passes=1, left=0.0, right=100.0)
    levels = [
        MemoryLevel(time_s=0.0, bytes={"a": 9, "b": 4}),
        MemoryLevel(time_s=0.0, bytes={"b": 4}),
        MemoryLevel(time_s=5.0, bytes={"b": 4, "c": 3}),
        MemoryLevel(time_s=5.001, bytes={"b": 5}),
    ]
    drawn = list(stretches(levels, [piece]))
    assert [(end - start > 1, level.total_bytes) for start, end, level in drawn] == [
        (False, 13), (True, 4), (False, 7), (True, 5)
    ]  # fmt: skip
