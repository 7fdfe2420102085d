"""``roost report``: a bench's results as one offline page; what is no results file is one line."""

from __future__ import annotations

import copy
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_up_bench import bench_results
from pages import needs_chromium, opened
from roost.cli.app import run
from roost.cli.html.layout import LAYOUTS
from roost.cli.html.report_page import report_page
from roost.cli.html.scatter import pareto
from roost.plan.results import Shortage, TrialResult
from roost.tune.results.document import Results, read_results, results_document

GIB = 1024**3
TRIAL_KEYS = [each.name for each in fields(TrialResult)]


def row(strategy: str, total_s: float | None, peak_gib: float | None, **changed: Any) -> dict[str, Any]:
    """A candidate with the keys that scripts rely on, and no other."""
    steps = {"mean": None, "sd": None, "n": 0} if total_s is None else {"mean": total_s / 28, "sd": 0.01, "n": 12}
    made = {
        "strategy": strategy,
        "params": {},
        "status": "skipped" if total_s is None else "ok",
        "reason": None,
        "load_s": 20.0,
        "step_s": steps,
        "total_s": total_s,
        "peak_bytes": None if peak_gib is None else int(peak_gib * GIB),
        "reserved_bytes": None,
        "host_peak_bytes": None,
        "pinned_bytes": 0,
        "bytes_copied": 0,
        "stall_s": 0.0,
        "digest": None,
        "predicted": None,
    }
    return made | changed


def figures(first_s: float, peak_gib: float) -> dict[str, Any]:
    return {
        "peak_bytes": {"low": 0, "mid": int(peak_gib * GIB), "high": 0},
        "step_s": {"low": 0.0, "mid": first_s / 28, "high": 0.0},
        "first_s": {"low": 0.0, "mid": first_s, "high": 0.0},
        "stages": [{"name": "denoise (transformer)", "component": "transformer", "seconds": first_s}],
    }


STAGES = [{"name": "denoise", "component": "transformer", "seconds": 12.0, "peak_bytes": 1}]
RESULTS: dict[str, Any] = {
    "schema": 1,
    "model": "made-up/model",
    "workload": {"width": 1024, "height": 1024, "frames": None, "steps": 28, "batch": 1, "guidance": 3.5},
    "machine": {"gpu": {"name": "Made-up GPU"}, "budget_bytes": 24 * GIB},
    "device_kind": "cuda",
    "candidates": [
        row("resident", None, None, reason="does not fit", predicted=figures(14, 34)),
        row("component-offload", 61.2, 23.1, status="eliminated", predicted=figures(55, 23)),
        *(
            row("layerwise-offload", 40 - k / 2, 3 + k / 3, params={"resident_blocks": k}, stages=STAGES,
                predicted=figures(38 - k / 2, 2.9 + k / 3))
            for k in (0, 1, 2, 20, 21, 40)
        ),
        row("wrong", 10.0, 2.0, status="wrong", reason="its output differs"),
        row("hung", None, None, status="hung", reason="no heartbeat"),
    ],
    "winner": "layerwise-offload resident_blocks=40",
}  # fmt: skip


def results(**changed: Any) -> Results:
    return Results.model_validate(RESULTS | changed)


def test_a_page_names_every_candidate_with_status_ratio_and_reason() -> None:
    page = report_page(results())
    for name in ("resident", "component-offload", "layerwise-offload resident_blocks=21", "hung"):
        assert name in page
    assert "layerwise-offload resident_blocks=40 (winner)" in page
    assert ">3.06<" in page  # 61.2 s over the winner's 20 s
    assert "its output differs" in page
    assert page.count("<circle") == len(LAYOUTS) * (2 * 7 + 1 + 1)


def test_a_bench_s_own_document_can_be_drawn(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results_document(bench_results())), encoding="utf-8")
    found = read_results(tmp_path / "results.json")
    page = report_page(found)
    assert found.winner in page
    assert all(each.title in page for each in found.candidates)


def test_what_a_bench_found_is_read_back_as_it_was(tmp_path: Path) -> None:
    made = bench_results(shortage=Shortage(max_seconds=300.0, raced=3, left_out=("component-offload",)))
    (tmp_path / "results.json").write_text(json.dumps(results_document(made)), encoding="utf-8")
    found = read_results(tmp_path / "results.json")
    assert (found.standings, found.shortage) == (made.standings, made.shortage)
    for row, read in zip(made.rows, found.candidates, strict=True):
        assert (read.name, read.strategy, read.rounds) == (row.candidate.name, row.candidate.strategy, row.rounds)
        assert {key: getattr(read, key) for key in TRIAL_KEYS} == {key: getattr(row.result, key) for key in TRIAL_KEYS}


def test_emulated_figures_are_said_to_be() -> None:
    assert "emulated" not in report_page(results())
    assert "measured on an emulated device" in report_page(results(device_kind="emulated"))


@pytest.mark.parametrize("changed", [{"candidates": [], "winner": None}, {"candidates": [row("hung", None, None)]}])
def test_a_bench_in_which_nothing_ran_has_a_page(changed: dict[str, Any]) -> None:
    assert "No candidate ran to its end" in report_page(results(**changed))


def test_a_page_is_one_small_file_that_asks_for_nothing() -> None:
    page = report_page(results())
    assert len(page.encode()) < 200_000
    assert not any(word in page for word in ("http:", "https:", " src=", "<script", "@import", "url("))


def test_names_from_a_results_file_can_not_become_markup() -> None:
    evil = "<script>alert(1)</script>"
    page = report_page(results(model=evil, winner=evil, candidates=[row(evil, 3.0, 1.0, reason=evil, stages=STAGES)]))
    assert "<script" not in page


POINTS = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=30)


@pytest.mark.long
@given(POINTS)
def test_the_front_has_all_points_that_none_beats_and_no_other(points: list[tuple[float, float]]) -> None:
    def beaten(point: tuple[float, float]) -> bool:
        return any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)

    assert pareto(points) == sorted({point for point in points if not beaten(point)})


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(500, False), (800, True), (1280, False)])
def test_a_browser_renders_the_page_without_a_complaint_the_network_or_crowded_texts(width, dark, tmp_path) -> None:
    seen = opened(report_page(results()), tmp_path, width, dark)
    assert seen.console == []
    assert seen.crowded == []
    assert "All candidates" in seen.document


def test_the_command_writes_the_page(tmp_path: Path, capsys) -> None:
    (tmp_path / "results.json").write_text(json.dumps(RESULTS), encoding="utf-8")
    assert run(["report", f"{tmp_path}/results.json", "-o", f"{tmp_path}/new/report.html", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["winner"] == RESULTS["winner"]
    assert (tmp_path / "new" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in RESULTS.items() if name != key}


def spoiled(**changed: Any) -> dict[str, Any]:
    made = copy.deepcopy(RESULTS)
    made["candidates"][1] |= changed
    return made


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "not JSON"),
        (json.dumps(RESULTS)[:-40], "not JSON"),
        ("[1, 2]", "all of it"),
        ("[" * 100_000, "not valid"),
        ('{"schema": 1}', "model"),
        (json.dumps(without("candidates")), "candidates"),
        (json.dumps(without("winner")), "winner"),
        (json.dumps(RESULTS | {"schema": 2}), "schema"),
        (json.dumps(spoiled(status="great")), "candidates.1.status"),
        (json.dumps(spoiled(total_s=float("nan"))), "candidates.1.total_s"),
        (json.dumps(spoiled(peak_bytes=-1)), "candidates.1.peak_bytes"),
    ],
)
def test_what_is_no_results_file_is_one_line_and_exit_code_2(text: str, named: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "results.json").write_text(text, encoding="utf-8")
    assert run(["report", f"{tmp_path}/results.json", "-o", f"{tmp_path}/report.html"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert named in line
    assert "roost bench" in line
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("words", [["nowhere.json", "-o", "x.html"], ["results.json", "-o", "x.pdf"]])
def test_a_wrong_path_is_one_line_and_exit_code_2(words: list[str], tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps(RESULTS), encoding="utf-8")
    assert run(["report", *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
