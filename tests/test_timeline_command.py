"""``roost timeline``: the plan's own simulation again, as a trace for Perfetto and as a page."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from build_demo_model import build_demo_model
from pages import needs_chromium, opened
from roost.api.plans.plan import make_plan
from roost.api.plans.timeline import record_of, replay_plan
from roost.cli.app import run
from roost.cli.html.axis import rows_of
from roost.cli.html.layout import LAYOUTS
from roost.cli.html.timeline_page import timeline_page
from roost.facts.model import Component
from roost.facts.stage import StageKey
from roost.plan import PlanDocument, plan_to_yaml
from roost.plan.revision import revised
from roost.planner.cost.estimate import predict
from roost.planner.cost.simulator import simulate
from roost.planner.documents.cost_model import cost_model_of
from roost.planner.documents.reader import forecast_of, placements_of
from roost.timeline import Pass, TimelineRecord, perfetto_document
from roost.trace import Trace
from searched_plans import PARTS, STEPS, USES, searched
from trace_event_format import check_trace
from traces import trace

SMALL = {"gpu": "emulated", "vram": "22MiB", "headroom": "0", "size": "96x64", "frames": 9, "steps": 6}
CALLS: Trace = trace(*USES, steps=STEPS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("timeline") / "model"
    build_demo_model(folder)
    return folder


@pytest.fixture(scope="module")
def plan(model: Path) -> PlanDocument:
    return make_plan(model, **SMALL)


def simulated(*sets: str, link: float = 20e9, parts: tuple[Component, ...] = PARTS) -> TimelineRecord:
    document = searched(20, *sets, link=link, parts=parts)
    forecast = forecast_of(document, parts, CALLS, cost_model_of(document.arithmetic))
    return record_of(document, simulate(forecast.schedule(placements_of(document, parts, CALLS)), record=True), parts)


@pytest.mark.dealt(2)
@pytest.mark.parametrize(
    "sets",
    [
        (),
        ("vae=component-offload",),
        ("transformer=layerwise-offload,resident_blocks=7,resident_policy=leading,prefetch=2",),
        ("text_encoder=snapshot-offload,linger=true", "transformer=layerwise-offload,hold=true"),
    ],
)
def test_the_document_alone_gives_back_the_prediction_that_it_records(sets: tuple[str, ...]) -> None:
    document = searched(40, *sets)
    forecast = forecast_of(document, PARTS, CALLS, cost_model_of(document.arithmetic))
    again = revised(predict(forecast, placements_of(document, PARTS, CALLS)), notes=document.predicted.notes)
    assert again == document.predicted


def test_a_replay_takes_what_the_plan_predicts(plan: PlanDocument) -> None:
    replay = replay_plan(plan)
    assert replay.notes == ()
    assert replay.timeline.seconds == pytest.approx(plan.predicted.first_s.mid)
    assert replay.record.seconds == pytest.approx(plan.predicted.first_s.mid)
    assert replay.record.peak_bytes == plan.predicted.peak_bytes.mid


def test_a_plan_by_rules_alone_has_a_timeline_too(model: Path) -> None:
    ruled = make_plan(model, policy="rules", **SMALL)
    assert ruled.arithmetic is None
    assert replay_plan(ruled).timeline.seconds > 0


def test_passes_of_a_record_follow_each_other_and_are_as_many_as_the_trace_s() -> None:
    record = simulated()
    assert record.passes[0].start_s == 0
    for before, after in pairwise(record.passes):
        assert before.end_s == pytest.approx(after.start_s)
    assert sum(each.count for each in record.passes) == sum(count for _, count in CALLS.sequence)
    assert any(each.skipped for each in record.passes)


def test_a_perfetto_trace_has_named_tracks_whose_slices_never_overlap() -> None:
    record = simulated("transformer=layerwise-offload,resident_blocks=10", link=10e9)
    document = json.loads(json.dumps(perfetto_document([record, record])))
    names = {(each["pid"], each["tid"]): each["args"]["name"] for each in document["traceEvents"]
             if each["name"] == "thread_name"}  # fmt: skip
    assert set(names.values()) == {"stages", "passes", "compute", "copy"}
    assert {pid for pid, _ in names} == {1, 2}
    tracks = defaultdict(list)
    for each in document["traceEvents"]:
        if each["ph"] == "X":
            tracks[each["pid"], each["tid"]].append((each["ts"], each["ts"] + each["dur"]))
    assert tracks.keys() == names.keys()
    for spans in tracks.values():
        assert all(start <= end for start, end in spans)
        assert all(before[1] <= after[0] for before, after in pairwise(sorted(spans)))


@pytest.mark.parametrize(
    ("phase", "change"),
    [
        ("X", {"ts": 1.5}),
        ("X", {"dur": -1}),
        ("X", {"tid": 77}),  # a thread without a name
        ("X", {"name": ""}),
        ("X", {"ph": "B"}),
        ("X", {"colour": "red"}),
        ("C", {"args": {}}),
        ("C", {"args": {"transformer": "much"}}),
        ("C", {"ts": 10**12}),
        ("M", {"args": {"label": "x"}}),
        ("M", {"name": "process_title"}),
    ],
)
def test_the_check_of_the_trace_format_sees_what_the_format_does_not_have(phase: str, change: dict) -> None:
    document = perfetto_document([simulated()])
    check_trace(document)
    next(each for each in document["traceEvents"] if each["ph"] == phase).update(change)
    with pytest.raises((AssertionError, KeyError)):
        check_trace(document)


def test_the_check_of_the_trace_format_sees_a_slice_that_reaches_into_the_next() -> None:
    document = perfetto_document([simulated()])
    next(each for each in document["traceEvents"] if each["ph"] == "X")["dur"] += 1
    with pytest.raises(AssertionError):
        check_trace(document)


def test_counters_of_a_perfetto_trace_reach_the_peak_and_never_pass_it() -> None:
    record = simulated()
    counters = [each for each in perfetto_document([record])["traceEvents"] if each["name"] == "device memory"]
    totals = [sum(each["args"].values()) for each in counters]
    assert max(totals) == record.peak_bytes
    assert min(totals) >= 0
    assert len({tuple(each["args"]) for each in counters}) == 1, "a series that is left out keeps its old value"


def test_forty_steps_are_drawn_as_two_passes_a_band_and_one() -> None:
    (row,) = rows_of(simulated().passes, 0, 1000)
    pieces = [each for each in row if each.stages == (StageKey("transformer", "denoise"),)]
    assert [(each.passes, each.band) for each in pieces] == [(2, False), (2 * STEPS - 3, True), (1, False)]


RECORDS = {
    "streamed": lambda: simulated(link=4e9),
    "resident": lambda: simulated("vae=resident"),
    "one component": lambda: simulated(parts=PARTS[2:]),
}


def page_of(name: str) -> str:
    stages = [["denoise (transformer)", "80", "40.0 s", "100%", "3%", "1 ms", "11.0 GiB", "compute"]]
    return timeline_page(RECORDS[name](), stages)


@pytest.mark.dealt(2)
@pytest.mark.parametrize("name", RECORDS)
def test_a_page_is_one_small_file_that_asks_for_nothing(name: str) -> None:
    page = page_of(name)
    assert len(page.encode()) < 1_000_000
    assert not any(word in page for word in ("http:", "https:", " src=", "<script", "@import", "url("))
    assert "predicted" in page
    assert "prefers-color-scheme:dark" in page


@needs_chromium
def test_the_look_into_the_browser_sees_requests_and_crowded_texts(tmp_path: Path) -> None:
    page = timeline_page(simulated(), [])
    spoiled = page.replace("</svg>", '<text x="9" y="9">one</text><text x="12" y="9">two</text></svg><img src="x.png">')
    seen = opened(spoiled, tmp_path)
    assert "one on two" in seen.crowded
    assert "x.png" in seen.console[0]


def test_names_from_a_model_can_not_become_markup() -> None:
    evil = "</title><script>alert(1)</script>"
    record = TimelineRecord(
        kind="predicted",
        model=evil,
        workload="w",
        device="d",
        budget_bytes=1,
        slices=(),
        passes=(Pass(stages=(StageKey(evil, "denoise"),), component=evil, start_s=0, end_s=1),),
        memory=(),
    )
    assert "<script" not in timeline_page(record, [[evil] * 8], [evil])


@needs_chromium
@pytest.mark.parametrize(
    ("name", "width", "dark"), [("streamed", 1280, False), ("resident", 800, True), ("one component", 500, False)]
)
def test_a_browser_renders_the_page_without_a_complaint_the_network_or_crowded_texts(
    name, width, dark, tmp_path
) -> None:
    seen = opened(page_of(name), tmp_path, width, dark)
    assert seen.console == []
    assert seen.crowded == []
    assert seen.document.count("<svg") == 3 * len(LAYOUTS)


def test_the_command_writes_both_kinds(plan: PlanDocument, tmp_path: Path, capsys) -> None:
    (tmp_path / "plan.yaml").write_text(plan_to_yaml(plan), encoding="utf-8")
    assert run(["timeline", f"{tmp_path}/plan.yaml", "-o", f"{tmp_path}/out.html"]) == 0
    assert "saved" in capsys.readouterr().out
    assert run(["timeline", f"{tmp_path}/plan.yaml", "-o", f"{tmp_path}/out.json", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert {(each["component"], each["phase"]) for each in summary["stages"]} >= {("vae", "decode")}
    assert summary["seconds"] == pytest.approx(plan.predicted.first_s.mid)
    assert (tmp_path / "out.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    document = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    check_trace(document)
    assert {each["ph"] for each in document["traceEvents"]} == {"M", "X", "C"}


def failed(words: list[str], capsys) -> tuple[int, str]:
    code = run(["timeline", *words])
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return code, line


def test_what_can_not_be_drawn_is_one_line(plan: PlanDocument, tmp_path: Path, capsys) -> None:
    gone = plan.model_copy(update={"model": plan.model.model_copy(update={"path": "/nowhere"})})
    (tmp_path / "gone.yaml").write_text(plan_to_yaml(gone), encoding="utf-8")
    (tmp_path / "short.yaml").write_text(plan_to_yaml(plan)[:2000], encoding="utf-8")
    code, line = failed([f"{tmp_path}/gone.yaml", "-o", f"{tmp_path}/out.html"], capsys)
    assert code == 2
    assert "--model DIR" in line
    code, line = failed([f"{tmp_path}/gone.yaml", "-o", f"{tmp_path}/out.html", "--model", "flux.1-dev"], capsys)
    assert code == 4
    assert "is not the one that this plan is for" in line
    assert failed([f"{tmp_path}/short.yaml", "-o", f"{tmp_path}/out.html"], capsys)[0] == 2
    assert failed([f"{tmp_path}/gone.yaml", "-o", f"{tmp_path}/out.png"], capsys)[0] == 2
    assert not (tmp_path / "out.html").exists()
