"""How long a bench says that it will take, and what an interrupted one has left."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from planted_bench import Setting, Silence, with_vram
from roost.api.options import PlanOptions
from roost.api.planning import search_question
from roost.planner.search_plan import SearchQuestion
from roost.tune.candidates import list_candidates
from roost.tune.records import PLAIN, TrialResult
from tiny_models import build


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> SearchQuestion:
    model = build("wan2.1", tmp_path_factory.mktemp("bench") / "model")
    return search_question(
        model, PlanOptions(gpu="emulated", vram="64MiB", headroom=0, size="64x64", frames=9, steps=10)
    )


class _StopIn(Silence):
    """Interrupts the bench when that candidate's trial begins."""

    def __init__(self, name: str) -> None:
        self.name, self.finished = name, list[str]()

    def on_trial(self, name: str, round: int) -> None:
        if name == self.name:
            raise KeyboardInterrupt

    def on_result(self, name: str, result: TrialResult) -> None:
        self.finished.append(name)


def test_going_on_counts_the_time_that_was_spent_before(asked: SearchQuestion, tmp_path: Path) -> None:
    setting = Setting(asked, tmp_path)
    watcher = _StopIn("snapshot-offload")
    with pytest.raises(KeyboardInterrupt):
        setting.run(watcher=watcher)
    lines = setting.lines()
    assert all(line["took_s"] > 0 for line in lines)
    setting.journal_file.write_text("".join(json.dumps({**line, "took_s": 1000.0}) + "\n" for line in lines))
    results = setting.run()
    assert {row.result.status for row in results.rows if row.candidate.name not in watcher.finished} == {"skipped"}


def test_without_the_reference_nothing_says_how_long_it_will_take(asked: SearchQuestion, tmp_path: Path) -> None:
    class Hears(Silence):
        def on_expected(self, seconds: float, candidates: int) -> None:
            pytest.fail(f"nothing is known that says {seconds} s")

    (resident,) = list_candidates(asked, ("resident",)).racing
    assert resident.predicted is not None
    question = asked.question
    host = replace(question.machine.host, available_bytes=2 * question.inventory.load_bytes)
    small = replace(asked, question=replace(question, machine=replace(question.machine, host=host)))
    setting = Setting(with_vram(small, resident.predicted.peak_bytes.mid - 1024), tmp_path)
    results = setting.run(watcher=Hears())
    assert results.winner is not None
    assert PLAIN not in setting.started
