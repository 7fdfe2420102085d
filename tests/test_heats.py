"""Heats: rounds on stacks cut short decide who is timed whole, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from planted_bench import Setting, Silence, row_of, with_vram
from roost.api.options import PlanOptions
from roost.api.planning import search_question
from roost.planner.search_plan import SearchQuestion
from roost.tune import bench
from roost.tune.candidates import list_candidates
from roost.tune.cuts import Cut
from roost.tune.expected import TrialCost
from roost.tune.race import race
from roost.tune.records import PLAIN, TrialResult
from roost.tune.results import results_document
from tiny_models import build_deep

FAST, SLOW = {"step_s": 100.0, "said_s": [1.0]}, {"step_s": 900.0, "said_s": [1.0]}
TRIAL_S = 10.0
STREAMED = "layerwise k=0 strided p1"
STREAMED_KEY = "layerwise-offload 0 strided 1"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> SearchQuestion:
    model = build_deep(tmp_path_factory.mktemp("heats") / "model", 16)
    return search_question(
        model, PlanOptions(gpu="emulated", vram="64MiB", headroom=0, size="64x64", frames=9, steps=10)
    )


@pytest.fixture
def setting(asked: SearchQuestion, tmp_path: Path) -> Setting:
    setting = Setting(asked, tmp_path)
    plant(setting)
    return setting


def plant(setting: Setting, **changed: dict) -> None:
    """Everybody takes the same time, but for what ``changed`` says by key."""
    keys = {PLAIN, *(key_of(each) for each in setting.entrants.racing)}
    setting.plant_keys({**dict.fromkeys(keys, FAST), **changed})


def key_of(candidate) -> str:
    placed = candidate.plan.components["transformer"]
    if placed.strategy != "layerwise-offload":
        return placed.strategy
    return f"layerwise-offload {placed.resident_blocks} {placed.resident_policy} {placed.prefetch}"


@pytest.fixture(autouse=True)
def _trials_seem_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted trials take no time; a bench that measures one takes it for a long one."""
    cost = TrialCost(seconds=TRIAL_S, steps_s=TRIAL_S)
    monkeypatch.setattr(bench, "measured_cost", lambda took_s, result, world: cost)


def short(setting: Setting) -> float:
    """Not quite the time of one whole round."""
    return TRIAL_S * len(setting.entrants.racing)


class Hears(Silence):
    """What a bench said of its heat."""

    def __init__(self) -> None:
        self.expected: list[float] = []
        self.heats: list[tuple[str, int]] = []
        self.over: list[tuple[int, str | None]] = []
        self.begun: list[str] = []

    def on_expected(self, seconds: float, candidates: int) -> None:
        self.expected.append(seconds)

    def on_heat(self, cut: Cut, candidates: int, seconds: float) -> None:
        assert 0 < seconds <= self.expected[-1]
        self.heats.append((str(cut), candidates))

    def on_heat_over(self, going_on: int, problem: str | None) -> None:
        self.over.append((going_on, problem))

    def on_trial(self, name: str, round: int) -> None:
        self.begun.append(name)


def heats_of(setting: Setting) -> list[str]:
    return [each.removeprefix("heat ") for each in setting.started if each.startswith("heat ")]


def test_with_time_for_a_whole_round_everybody_is_measured_whole(setting: Setting) -> None:
    watcher = Hears()
    results = setting.run(watcher=watcher)
    assert (heats_of(setting), watcher.heats, results.heat) == ([], [], None)
    assert results_document(results)["heat"] is None


def test_without_time_for_a_whole_round_those_who_are_far_slower_in_a_heat_are_not_measured_whole(
    setting: Setting,
) -> None:
    plant(setting, **{f"heat {STREAMED_KEY}": SLOW})
    watcher = Hears()
    results = setting.run(watcher=watcher, max_seconds=short(setting))
    ((cut, judged),) = watcher.heats
    assert cut.endswith("of 16 blocks")
    assert judged == len(heats_of(setting))
    row = row_of(results, STREAMED)
    assert (row.result.status, row.rounds) == ("eliminated", 0)
    assert row.result.reason is not None
    assert row.result.reason.startswith(f"heat on {cut}: ")
    assert STREAMED_KEY not in setting.started
    assert results.winner not in (None, STREAMED)
    assert watcher.over == [(len(results.standings) - 1, None)]
    assert any(note.startswith(f"a heat on {cut} came first") for note in results.notes)


def test_figures_of_a_heat_are_nobodys_figures(setting: Setting) -> None:
    plant(setting, **{f"heat {STREAMED_KEY}": SLOW, "heat resident": {"step_s": 60.0, "said_s": [1.0]}})
    document = json.loads(json.dumps(results_document(setting.run(max_seconds=short(setting))), allow_nan=False))
    rows = {each["name"]: each for each in document["candidates"]}
    out = rows[STREAMED]
    assert [out[key] for key in ("load_s", "total_s", "peak_bytes", "bytes_copied", "digest")] == [None] * 5
    assert out["step_s"]["n"] == 0
    assert rows["resident"]["step_s"]["mean"] == pytest.approx(100.0)
    assert STREAMED not in document["samples"]
    assert document["heat"]["ratios"]["resident"] == 1.0
    assert document["heat"]["margin"] == 2.0
    standings = {each["name"]: each for each in document["standings"]}
    assert (standings[STREAMED]["mean_s"], standings[STREAMED]["ratio"]) == (None, None)


def test_ratios_count_what_the_cut_took_away(setting: Setting) -> None:
    """The rest of a generation, which no cut shortens, must not hide or make a difference."""
    plant(
        setting,
        resident={"step_s": 100.0, "said_s": [1.0]},
        **{f"heat {STREAMED_KEY}": {"step_s": 190.0, "said_s": [1.0]}},
    )
    results = setting.run(max_seconds=short(setting))
    assert results.heat is not None
    assert results.heat.ratios[STREAMED] == pytest.approx(1.9, rel=0.01)
    assert row_of(results, STREAMED).rounds


@pytest.mark.parametrize(
    ("planted", "status", "reason"),
    [
        ({"do": "oom"}, "oom", "decode (vae): out of memory"),
        (
            {**FAST, "digest": "b" * 64},
            "wrong",
            f"its output differs from that of {PLAIN}: {'b' * 12} instead of {'a' * 12}",
        ),
        ({"do": "hang"}, "hung", "not done after 2.0 s, while loading transformer"),
    ],
    ids=["memory", "another output", "a hang"],
)
def test_what_fails_in_a_heat_is_out(setting: Setting, planted: dict, status: str, reason: str) -> None:
    plant(setting, **{f"heat {STREAMED_KEY}": planted})
    row = row_of(setting.run(deadline_s=2.0 if status == "hung" else 30.0, max_seconds=short(setting)), STREAMED)
    assert (row.result.status, row.rounds) == (status, 0)
    assert row.result.reason is not None
    assert row.result.reason.endswith(f"blocks: {reason}")


def test_what_crashes_in_a_heat_is_tried_whole(setting: Setting) -> None:
    plant(setting, **{f"heat {STREAMED_KEY}": {"do": "crash"}})
    assert row_of(setting.run(max_seconds=short(setting)), STREAMED).rounds


def test_a_model_that_can_not_be_run_cut_short_is_measured_whole_and_that_is_said_once(setting: Setting) -> None:
    plant(setting, **{f"heat {PLAIN}": {"do": "crash"}, f"heat {STREAMED_KEY}": SLOW})
    watcher = Hears()
    results = setting.run(watcher=watcher, max_seconds=short(setting))
    assert heats_of(setting) == [PLAIN]
    assert watcher.over == [(len(results.standings), "died of SIGSEGV, while loading transformer")]
    assert sum("stacks cut short" in note for note in results.notes) == 1
    assert all(row.rounds for row in results.rows if row.result.status in ("ok", "eliminated"))
    assert results.heat is None


def test_diffusers_alone_is_never_out_since_its_output_is_the_reference(setting: Setting) -> None:
    plant(setting, **{f"heat {PLAIN}": SLOW})
    results = setting.run(max_seconds=short(setting))
    assert row_of(results, PLAIN).rounds
    assert results.reference == PLAIN


def test_the_journal_tells_heats_from_whole_trials_and_an_interrupted_heat_goes_on(setting: Setting) -> None:
    watcher = StopsAfterHeatOf("resident")
    with pytest.raises(KeyboardInterrupt):
        setting.run(watcher=watcher, max_seconds=short(setting))
    lines = setting.lines()
    whole, cut = ([each for each in lines if (each["heat"] is None) == without] for without in (True, False))
    assert [each["name"] for each in whole] == [PLAIN]
    assert [each["name"] for each in cut] == [PLAIN, "resident"]
    assert all(each["heat"]["of_blocks"] == 16 for each in cut)
    again = Hears()
    results = setting.run(watcher=again, max_seconds=short(setting))
    heats = heats_of(setting)
    assert len(heats) == len(set(heats)) == again.heats[0][1]
    assert again.begun[0] not in (PLAIN, "resident")
    assert results.winner is not None


class StopsAfterHeatOf(Hears):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def on_result(self, name: str, result: TrialResult) -> None:
        if self.heats and name == self.name:
            raise KeyboardInterrupt


def test_the_fastest_of_a_heat_run_whole_first(setting: Setting) -> None:
    plant(setting, **{f"heat {STREAMED_KEY}": {"step_s": 50.0, "said_s": [1.0]}})
    watcher = Hears()
    setting.run(watcher=watcher, max_seconds=short(setting))
    heats = watcher.heats[0][1]
    assert watcher.begun[heats + 1] == STREAMED  # after diffusers alone, whole and cut


def test_who_was_run_whole_before_the_heat_begins_the_race_which_may_have_no_time_for_others(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = []

    def noting(names, *others):
        orders.append(list(names))
        return race(names, *others)

    monkeypatch.setattr(bench, "race", noting)
    plant(setting, **{f"heat {PLAIN}": {"step_s": 150.0, "said_s": [1.0]}})
    setting.run(max_seconds=short(setting))
    assert len(heats_of(setting)) > 1
    assert [order[0] for order in orders] == [PLAIN]


def test_without_room_for_diffusers_alone_its_digest_on_the_same_cut_is_the_heats_reference(asked, tmp_path) -> None:
    (resident,) = list_candidates(asked, ("resident",)).racing
    assert resident.predicted is not None
    small = with_vram(asked, resident.predicted.peak_bytes.mid - 1024)
    setting = Setting(small, tmp_path, ("layerwise-offload",))
    first, *_ = setting.entrants.racing
    plant(setting, **{f"heat {key_of(first)}": {**FAST, "digest": "b" * 64}})
    results = setting.run(max_seconds=short(setting) - TRIAL_S)
    assert heats_of(setting)[0] == PLAIN
    assert setting.started.count(PLAIN) == 1  # and once whole
    assert row_of(results, PLAIN).result.status == "skipped"
    row = row_of(results, first.name).result
    assert row.status == "wrong"
    assert (row.reason or "").endswith(f"its output differs from that of {PLAIN}: {'b' * 12} instead of {'a' * 12}")


def test_a_first_candidate_that_was_run_whole_to_know_the_time_may_be_out_too(setting: Setting) -> None:
    first, *others = setting.entrants.racing
    setting.entrants = replace(setting.entrants, plain=None)
    plant(setting, **{f"heat {key_of(first)}": SLOW})
    results = setting.run(max_seconds=short(setting) - TRIAL_S / 2)
    row = row_of(results, first.name)
    assert (row.result.status, row.rounds) == ("eliminated", 0)
    assert results.winner in {each.name for each in others}
    assert results.reference == first.name  # its output counts all the same
