"""The screen of a bench, whole, and the line that lives while it runs."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from made_up_bench import FAILED, bench_results
from roost.cli.views.bench import LiveLine, show_results
from roost.plan.results import TrialResult
from roost.tune.race.race import RoundReport
from roost.tune.trials.messages import Beat, Phase, StepTook

GOLDEN = Path(__file__).parent / "golden"
REPORT = RoundReport(round=1, best="rule plan", best_step_s=0.5, racing=("rule plan", "b"), out={}, spent_s=9.0)


def screen(capsys, **changed) -> str:
    show_results(bench_results(**changed))
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_the_whole_screen(capsys) -> None:
    shown = screen(capsys)
    assert shown == (GOLDEN / "bench.txt").read_text(encoding="utf-8")
    assert max(map(len, shown.splitlines())) <= 80


def test_emulated_figures_are_said_to_be_so_before_the_first_and_at_the_summary(capsys) -> None:
    lines = screen(capsys, device_kind="emulated").splitlines()
    assert lines[2] == "on an emulated device: no figure here is a GPU's, budget 22.5 GiB"
    assert "Summary (emulated)" in lines
    assert "NVIDIA" not in "\n".join(lines)


def test_without_a_winner_every_candidate_has_its_reason(capsys) -> None:
    results = bench_results()
    rows = tuple(row for row in results.rows if row.candidate.name in FAILED)
    shown = screen(capsys, rows=rows, standings=(), samples={}, winner=None, notes=())
    assert "no candidate ran to its end, so nobody won" in shown
    for name, result in FAILED.items():
        assert f"{name}: {result.status}: {result.reason}" in " ".join(shown.split())


def test_candidates_that_fail_alike_share_a_line(capsys) -> None:
    results = bench_results()
    short = TrialResult(status="skipped", reason="VRAM is 2.00 GiB short")
    rows = [replace(row, result=short) if row.candidate.name in FAILED else row for row in results.rows]
    shown = " ".join(screen(capsys, rows=tuple(rows)).split())
    assert f"{', '.join(FAILED)}: skipped: VRAM is 2.00 GiB short" in shown


def test_a_winner_by_a_tie_may_be_the_slower_one(capsys) -> None:
    results = bench_results()
    standings = tuple(
        replace(each, ratio=0.995, ratio_error=0.004) if each.name == "rule plan" else each
        for each in results.standings
    )
    assert "0.99 ± 0.00 × as fast as rule plan" in screen(capsys, standings=standings)


def test_a_candidate_that_fails_late_has_figures_no_more(capsys) -> None:
    results = bench_results()
    late = replace(results.rows[1], result=replace(results.rows[1].result, status="wrong", reason="another picture"))
    shown = screen(capsys, rows=(results.rows[0], late, results.rows[2]))
    assert "rule plan: wrong: another picture" in shown
    assert "faster than rule plan" not in shown


def test_what_falsifies_a_figure_is_said_below_it(capsys) -> None:
    shown = screen(capsys, samples={"rule plan": ((0.5, 0.5, 1.2), (0.501, 0.499, 0.5))})
    assert "warning: rule plan: 1 of 6 steps took up to 2.40 × the median" in shown


def test_names_can_not_be_terminal_codes(capsys) -> None:
    assert "\x1b" not in screen(capsys, notes=("evil \x1b[31m",), model="\x1b]0;x")


def test_in_a_pipe_progress_is_a_line_a_round_and_a_failure(capsys) -> None:
    with LiveLine() as live:
        live.on_begin("emulated", 0)
        live.on_expected(271.0, 8)
        live.on_trial("rule plan", 1)
        live.on_message("rule plan", StepTook(seconds=0.5))
        live.on_result("rule plan", TrialResult(status="ok"))
        live.on_result("resident", TrialResult(status="oom", reason="too large"))
        live.on_round(REPORT)
        live.on_round(replace(REPORT, round=2, best=None, best_step_s=None, racing=()))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "8 candidates, up to 4 min 30 s",
        "resident: oom: too large",
        "round 1: 2 left in the race · best: rule plan, 500 ms (emulated)",
        "round 2: 0 left in the race",
    ]


def test_too_little_time_is_said_before_the_first_trial(capsys) -> None:
    with LiveLine() as live:
        live.on_shortage(5, 12, 123.4)
    assert capsys.readouterr().err.splitlines() == [
        "2 min 00 s hold trials of about 5 of the 12: the best predicted come first"
    ]


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            Phase(phase="loading [red]vae\x1b[0m"),
            "round 2 · k=20: loading [red]vae\\x1b[0m · best: rule plan…",
        ),
        (StepTook(seconds=0.41234), "round 2 · k=20: step 412 ms · best: rule plan, 500 ms"),
        (Beat(), "round 2 · k=20: starts · best: rule plan, 500 ms"),
    ],
)
def test_on_a_terminal_progress_is_one_line_that_is_wiped(monkeypatch, message, line) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in (("TERM", "xterm"), ("COLUMNS", "60")):
        monkeypatch.setenv(name, value)
    with LiveLine() as live:
        live.on_begin("cuda", 0)
        live.on_round(REPORT)
        live.on_trial("k=20", 2)
        live.on_message("k=20", message)
    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert drawn.split("\r")[-2].strip()[2:] == line
    assert terminal.getvalue().endswith("\x1b[2K")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True
