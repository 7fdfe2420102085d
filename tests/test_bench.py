"""A bench with planted trials: whatever one does, the others are measured, nothing is lost, and the best one wins."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from planted_bench import Setting, gone, row_of, with_vram
from roost.api.plans.plan import search_question
from roost.api.requests.option_sets import PlanOptions
from roost.errors import UsageError
from roost.facts.machine import HostFacts
from roost.plan.results import TrialResult
from roost.planner.search_question import SearchQuestion
from roost.probes.machine.gpu import PcieLink
from roost.probes.machine.gpu_conditions import GpuConditions
from roost.tune.bench import key_facts
from roost.tune.results.document import results_document
from roost.tune.results.figures import process_bytes, run_figures
from roost.tune.results.records import PLAIN
from roost.tune.trials import process
from roost.tune.trials.candidates import STRATEGIES, list_candidates, parse_strategies
from roost.tune.trials.process import COMMAND
from roost.tune.trials.recorded import BenchWatcher
from tiny_models import build

STREAMED = "layerwise k=0 strided p1"
STREAMED_KEY = "layerwise-offload 0 strided 1"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> SearchQuestion:
    model = build("wan2.1", tmp_path_factory.mktemp("bench") / "model")
    return search_question(
        model, PlanOptions(gpu="emulated", vram="64MiB", headroom=0, size="64x64", frames=9, steps=10)
    )


@pytest.fixture
def setting(asked: SearchQuestion, tmp_path: Path) -> Setting:
    return Setting(asked, tmp_path)


def test_the_fastest_wins_and_every_candidate_has_a_row(setting: Setting) -> None:
    setting.plant_keys({STREAMED_KEY: {"step_s": 0.002}, PLAIN: {"step_s": 0.02}})
    results = setting.run()
    assert results.winner == STREAMED
    assert results.reference == PLAIN
    assert row_of(results, PLAIN).result.status in ("ok", "eliminated")
    assert {row.candidate.name for row in results.rows} >= {PLAIN, "resident", "snapshot-offload", STREAMED}


@pytest.mark.parametrize(
    ("what", "status", "reason"),
    [
        ("crash", "crashed", "died of SIGSEGV, while loading transformer"),
        ("oom", "oom", "decode (vae): out of memory"),
        ("hang", "hung", "not done after 1.0 s, while loading transformer"),
    ],
)
def test_a_trial_that_fails_costs_only_its_candidate(setting: Setting, what: str, status: str, reason: str) -> None:
    setting.plant_keys({"resident": {"do": what}})
    results = setting.run(deadline_s=1.0 if what == "hang" else 30.0)
    row = row_of(results, "resident").result
    assert (row.status, row.reason) == (status, reason)
    assert results.winner is not None
    assert row_of(results, "snapshot-offload").result.status in ("ok", "eliminated")


def test_killed_by_the_kernel_for_memory_is_out_of_host_memory(setting: Setting, monkeypatch) -> None:
    count = iter(range(10**6))
    monkeypatch.setattr(process, "count_oom_kills", lambda: next(count))
    setting.plant_keys({"resident": {"do": "kill"}})
    row = row_of(setting.run(), "resident").result
    assert (row.status, (row.reason or "")[:20]) == ("oom", "host memory ran out:")


def test_a_candidate_far_slower_than_the_best_is_stopped_and_one_slow_step_is_forgiven(setting: Setting) -> None:
    setting.plant_keys({"resident": {"said_s": [0.2] * 5}, "snapshot-offload": {"said_s": [0.01, 0.2, 0.01, 0.01]}})
    results = setting.run()
    row = row_of(results, "resident")
    assert row.result.status == "eliminated"
    assert (row.result.reason or "").startswith("a step took 200.0 ms, more than ")
    assert row_of(results, "snapshot-offload").result.total_s is not None


def test_another_output_is_wrong_and_never_wins(setting: Setting) -> None:
    setting.plant_keys({STREAMED_KEY: {"step_s": 0.0001, "digest": "b" * 64}})
    results = setting.run()
    row = row_of(results, STREAMED).result
    assert row.status == "wrong"
    assert row.reason == f"its output differs from that of {PLAIN}: {'b' * 12} instead of {'a' * 12}"
    assert results.winner not in (None, STREAMED)


def test_memory_that_did_not_allow_the_plan_counts_as_out_of_memory(setting: Setting) -> None:
    setting.plant_keys({STREAMED_KEY: {"step_s": 0.0001, "demotions": {"transformer": {"resident_blocks": 1}}}})
    row = row_of(setting.run(), STREAMED).result
    assert (row.status, row.reason) == ("oom", "memory did not allow the plan (transformer: resident_blocks 1)")


def test_nothing_runs_when_everything_fails_and_there_is_no_winner(setting: Setting) -> None:
    setting.plant_keys({key: {"do": "oom"} for key in (PLAIN, "resident", "snapshot-offload", STREAMED_KEY)})
    setting.entrants = list_candidates(setting.asked, ("resident", "snapshot-offload"))
    results = setting.run()
    assert (results.winner, results.reference) == (None, None)
    assert {row.result.status for row in results.rows} == {"oom"}


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Ctrl-C raises, also in a test run that was started in the background, where a shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_loses_nothing_leaves_nobody_and_is_taken_up_where_it_was(setting: Setting) -> None:
    setting.plant_keys({"snapshot-offload": {"do": "sleep"}})
    watcher = _InterruptIn("snapshot-offload")
    with pytest.raises(KeyboardInterrupt):
        setting.run(watcher=watcher)
    done = [line["name"] for line in setting.lines()]
    assert done == watcher.finished
    assert len(done) >= 2
    assert "snapshot-offload" not in done
    assert all(gone(pid) for pid in setting.pids)
    before = len(setting.started)
    setting.plant()
    again = _Begun()
    results = setting.run(watcher=again)
    assert again.begun[0] == "snapshot-offload"
    assert not set(done) & set(again.begun)
    assert len(setting.started) == before + len(again.begun)
    assert results.winner is not None


class _InterruptIn(BenchWatcher):
    """Sends a real SIGINT while that candidate's trial runs."""

    def __init__(self, name: str) -> None:
        self.name, self.finished = name, list[str]()

    def on_trial(self, name: str, round: int) -> None:
        if name == self.name:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

    def on_result(self, name: str, result: TrialResult) -> None:
        self.finished.append(name)


class _Begun(BenchWatcher):
    def __init__(self) -> None:
        self.begun: list[str] = []

    def on_trial(self, name: str, round: int) -> None:
        self.begun.append(name)


def test_a_finished_bench_is_measured_anew_and_its_journal_is_kept(setting: Setting) -> None:
    setting.run()
    once = len(setting.started)
    setting.run()
    assert len(setting.started) == 2 * once
    assert setting.journal_file.with_suffix(".previous.jsonl").exists()


def test_kept_children_run_every_round_and_fresh_ones_start_for_each(setting: Setting) -> None:
    setting.entrants = list_candidates(setting.asked, ("resident",))
    results = setting.run(rounds=2, keep=True)
    assert sorted(setting.started) == sorted([PLAIN, "resident"])
    assert all(gone(pid) for pid in setting.pids)
    assert row_of(results, "resident").rounds == 2
    setting.run(rounds=2, keep=False)
    assert setting.started.count("resident") == 3


def test_what_can_not_fit_is_said_and_not_run_but_its_digest_is_the_reference(asked, tmp_path) -> None:
    (resident,) = list_candidates(asked, ("resident",)).racing
    assert resident.predicted is not None
    small = with_vram(asked, resident.predicted.peak_bytes.mid - 1024)
    setting = Setting(small, tmp_path, ("resident", "layerwise-offload"))
    results = setting.run()
    for name in ("resident", PLAIN):
        row = row_of(results, name).result
        assert row.status == "skipped"
        assert "does not fit" in (row.reason or "")
    assert "resident" not in setting.started
    assert setting.started.count(PLAIN) == 1
    assert row_of(results, PLAIN).result.digest == "a" * 64
    assert results.reference == PLAIN
    assert results.winner is not None


def test_the_document_has_every_key_that_scripts_rely_on(setting: Setting) -> None:
    setting.plant_keys({"resident": {"do": "crash"}})
    document = json.loads(json.dumps(results_document(setting.run()), allow_nan=False))
    assert {"schema", "model", "workload", "machine", "device_kind", "candidates", "winner"} <= set(document)
    assert (document["schema"], document["device_kind"]) == (1, "emulated")
    keys = {
        "strategy", "params", "status", "reason", "load_s", "step_s", "total_s", "peak_bytes", "reserved_bytes",
        "host_peak_bytes", "pinned_bytes", "bytes_copied", "stall_s", "digest", "predicted",
    }  # fmt: skip
    assert all(keys <= set(each) for each in document["candidates"])
    assert all({"mean", "sd", "n"} <= set(each["step_s"]) for each in document["candidates"])
    assert keys <= set(setting.lines()[0])
    ran = next(each for each in document["candidates"] if each["name"] == "snapshot-offload")
    # 1 s beside its steps; 5 of 10 steps were run.
    assert ran["total_s"] == pytest.approx(1.0 + 10 * 0.01)


def test_a_strategy_that_is_none_is_refused() -> None:
    assert parse_strategies("all") == STRATEGIES
    assert parse_strategies(" Resident,layerwise-offload,resident") == ("resident", "layerwise-offload")
    with pytest.raises(UsageError, match="there is no 'fsdp'"):
        parse_strategies("fsdp")


def test_candidates_have_names_of_their_own_and_equal_placements_run_once(asked: SearchQuestion) -> None:
    field = list_candidates(asked, STRATEGIES)
    every = [*field.racing, *(candidate for candidate, _ in field.left_out)]
    assert len({each.name for each in every}) == len(every)
    assert {"resident", "component-offload", "snapshot-offload", "rule plan", "searched plan", STREAMED} <= {
        each.name for each in every
    }
    reasons = {candidate.name: reason for candidate, reason in field.left_out}
    assert reasons["searched plan"] == "places everything as resident does"


def test_the_real_child_is_this_python() -> None:
    assert (sys.executable, "-P", "-m", "roost.tune.trials.child") == COMMAND


def test_a_process_that_came_with_the_trial_is_the_one_whose_memory_counts() -> None:
    def look(**held: int) -> GpuConditions:
        link = PcieLink(None, None)
        by_pid = {int(pid[1:]): count for pid, count in held.items()}
        return GpuConditions(
            sm_clock_mhz=None,
            throttled=frozenset(),
            link=link,
            fastest_link=link,
            pids=frozenset(by_pid),
            held_bytes=by_pid,
        )

    assert process_bytes([look(p7=900), look(p7=900, p8=300), look(p7=950, p8=500), look(p7=950)]) == 500
    assert process_bytes([look(), look()]) is None
    assert process_bytes([]) is None


def test_without_diffusers_alone_the_first_output_is_what_others_must_equal(setting: Setting) -> None:
    pair = list_candidates(setting.asked, ("resident", "snapshot-offload"))
    setting.entrants = replace(pair, plain=None)
    first, other = (each.name for each in pair.racing)
    setting.plant_keys({other: {"digest": "b" * 64}})
    results = setting.run()
    assert (results.reference, results.winner) == (first, first)
    assert {row.candidate.name for row in results.rows} == {first, other}
    assert row_of(results, other).result.status == "wrong"


def test_a_row_teaches_steps_and_whole_stages_but_no_denoising_that_was_cut_short(setting: Setting) -> None:
    row = row_of(setting.run(), "snapshot-offload")
    cut = run_figures(row, "cuda", whole=False)
    assert (cut.step_s, cut.load_s, cut.next_s) == (pytest.approx(0.01), 0.5, pytest.approx(1.1))
    assert [each.seconds for each in cut.stages] == [None]
    assert [each.seconds for each in run_figures(row, "cuda", whole=True).stages] == [pytest.approx(0.05)]
    assert run_figures(row, "emulated", whole=True).stages == []


def test_typed_host_memory_binds_trials_and_found_memory_does_not(setting: Setting) -> None:
    assert setting.world().host_bytes is None
    question = setting.asked.question
    host = HostFacts(
        available_bytes=5 * 1024**3,
        pinnable_bytes=1024**3,
        source="--ram",
        ram_typed=True,
        system_bytes=2 * 1024**3,
        process_bytes=1024**3,
    )
    setting.asked = replace(setting.asked, question=replace(question, machine=replace(question.machine, host=host)))
    bound = setting.world().host_bytes
    assert bound is not None
    assert bound == 6 * 1024**3 + question.machine.budget_bytes  # all that was typed but for the system's share
    other = setting.world(host_bytes=bound + 1)
    facts = key_facts(setting.asked, setting.world())
    assert facts != key_facts(setting.asked, other)  # a journal is one bound's
    attending = replace(setting.asked, question=replace(setting.asked.question, attention="native"))
    assert facts != key_facts(attending, setting.world())
