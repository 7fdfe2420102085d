"""How long a bench says that it will take, and what an interrupted one has left."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from planted_bench import Setting, row_of, with_vram
from roost.api.plans.plan import search_question
from roost.api.requests.option_sets import PlanOptions
from roost.cli.views.bench import show_results
from roost.plan.budget import HostTurn
from roost.plan.results import TrialResult
from roost.plan.revision import revised
from roost.planner.search_question import SearchQuestion
from roost.tune.results.document import results_document
from roost.tune.results.records import PLAIN
from roost.tune.trials.candidates import list_candidates
from roost.tune.trials.recorded import BenchWatcher, RecordedTrials
from tiny_models import build


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> SearchQuestion:
    model = build("wan2.1", tmp_path_factory.mktemp("bench") / "model")
    return search_question(
        model, PlanOptions(gpu="emulated", vram="64MiB", headroom=0, size="64x64", frames=9, steps=10)
    )


class _StopIn(BenchWatcher):
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
    class Hears(BenchWatcher):
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


TRIAL_S = 10.0


class Hears(BenchWatcher):
    """The order of the trials, and what was said of the time."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.shortages: list[tuple[int, int]] = []

    def on_trial(self, name: str, round: int) -> None:
        self.begun.append(name)

    def on_shortage(self, reached: int, candidates: int, seconds: float) -> None:
        self.shortages.append((reached, candidates))


@pytest.fixture
def slow(asked: SearchQuestion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """A bench by whose clock each trial takes ``TRIAL_S``."""
    setting = Setting(asked, tmp_path)
    monkeypatch.setattr(RecordedTrials, "clock", lambda _: TRIAL_S * len(setting.started))
    return setting


def test_without_time_for_all_the_best_predicted_are_raced_and_each_other_has_its_row(slow: Setting, capsys) -> None:
    watcher = Hears()
    results = slow.run(watcher=watcher, max_seconds=4.5 * TRIAL_S)
    racing = slow.entrants.racing
    predicted_s = [float(f"{each.predicted.next_s.mid:.2g}") for each in racing if each.predicted]
    assert predicted_s == sorted(predicted_s)
    assert watcher.begun == [PLAIN, *(each.name for each in racing[:3])]
    assert results.reference == PLAIN
    assert results.winner in watcher.begun
    left_out = [each.name for each in racing[3:]]
    assert left_out
    for name in left_out:
        row = row_of(results, name)
        assert (row.result.status, row.result.reason, row.rounds) == ("skipped", "no time was left of 45.0 s", 0)
    document = json.loads(json.dumps(results_document(results)))
    assert document["shortage"] == {"max_seconds": 45.0, "raced": 4, "left_out": left_out}
    said = f"45.0 s were too short for all: 4 of {len(racing) + 1} candidates were raced, the best predicted first"
    assert document["warnings"][0].startswith(said)
    show_results(results)
    assert said in " ".join(capsys.readouterr().out.split())


def test_with_time_for_all_nothing_is_said_of_a_shortage(slow: Setting) -> None:
    watcher = Hears()
    results = slow.run(watcher=watcher, max_seconds=1000.0)
    assert (watcher.shortages, results.shortage) == ([], None)
    assert results_document(results)["shortage"] is None


def test_on_a_gpu_the_shortage_is_foreseen_before_the_first_trial(slow: Setting) -> None:
    class Foresees(Hears):
        def on_shortage(self, reached: int, candidates: int, seconds: float) -> None:
            assert not self.begun
            super().on_shortage(reached, candidates, seconds)

    question = slow.asked.question
    gpu = replace(question.machine.gpu, device_kind="cuda")
    slow.asked = replace(slow.asked, question=replace(question, machine=replace(question.machine, gpu=gpu)))
    watcher = Foresees()
    slow.run(watcher=watcher, max_seconds=4.5 * TRIAL_S)
    ((reached, candidates),) = watcher.shortages
    assert 1 <= reached < candidates == len(slow.entrants.racing) + 1


def test_an_emulated_device_is_foreseen_by_what_the_reference_took(
    asked: SearchQuestion, tmp_path, monkeypatch
) -> None:
    (resident,) = list_candidates(asked, ("resident",)).racing
    assert resident.predicted is not None
    setting = Setting(with_vram(asked, resident.predicted.peak_bytes.mid - 1024), tmp_path, ("layerwise-offload",))
    monkeypatch.setattr(RecordedTrials, "clock", lambda _: TRIAL_S * len(setting.started))
    watcher = Hears()
    results = setting.run(watcher=watcher, max_seconds=3.5 * TRIAL_S)
    assert watcher.shortages == [(2, len(setting.entrants.racing))]
    assert setting.started[0] == PLAIN
    assert results.shortage is not None
    assert results.shortage.raced == 2


def test_a_plan_that_gives_host_memory_back_makes_one_generation_a_child_and_none_ahead(
    asked: SearchQuestion, tmp_path: Path
) -> None:
    setting = Setting(asked, tmp_path, ("resident",))
    (resident,) = setting.entrants.racing
    assert resident.plan is not None
    turn = HostTurn(component="vae", masters={"vae": 1}, host_bytes=1)
    plan = revised(resident.plan, budget=revised(resident.plan.budget, host_turns=[turn]))
    setting.entrants = replace(setting.entrants, racing=(replace(resident, plan=plan),))
    results = setting.run(rounds=2, keep=True, warm_up=True)
    assert (setting.started.count("resident"), setting.started.count(PLAIN)) == (2, 1)
    assert setting.warmed == {"resident": False, PLAIN: True}
    assert row_of(results, "resident").rounds == 2
