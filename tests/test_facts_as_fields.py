"""What behaviour hangs on is a field: other words in the text that people read change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from roost.api.machine import find_machine
from roost.api.plans.explain import explain_plan, explanation_document
from roost.api.plans.preflight import gpu_differences
from roost.cli import screen
from roost.cli.html.axis import rows_of
from roost.cli.html.timeline_page import steady_pass
from roost.cli.screen import rate_name, rate_value
from roost.facts import stage
from roost.facts.decider import decider_of, spelled
from roost.facts.rates import RateKey, known_rates, spelled_rates
from roost.foreign_words import tell_of_refused_memory
from roost.plan import PlanDocument, plan_to_yaml, read_plan
from roost.plan.budget import Budget
from roost.plan.earlier import FROM_FILE
from roost.plan.figures import Predicted, PredictedStage, TraceRecord
from roost.plan.measurements import RunFigures
from roost.plan.results import StageTime, TrialResult
from roost.plan.schema import MachineRecord
from roost.planner.calibration import paced_by
from roost.planner.documents import writer
from roost.planner.documents.reader import machine_of
from roost.planner.prediction_error import denoisers
from roost.timeline import Pass
from roost.tune.results.document import result_of
from roost.tune.results.figures import completed, run_figures
from roost.tune.results.records import Candidate, Row
from roost.tune.trials.candidates import why_unfit
from roost.tune.trials.runner import _host_bytes
from searched_plans import STEPS, USES, forget, ruled, searched
from traces import trace

OLD = Path(__file__).parent / "fixtures" / "plans-0.1"
GIB = 1024**3


@pytest.fixture
def _reworded() -> Iterator[None]:
    """For a test that rewords what plans say: none of its plans is kept."""
    forget()
    yield
    forget()


def test_a_card_by_name_and_typed_memory_are_fields_of_the_machine() -> None:
    machine = find_machine("rtx-4090", vram="12GiB", ram="64GiB")
    assert (machine.gpu.named, machine.gpu.vram_typed, machine.host.ram_typed) == (True, True, True)
    machine = find_machine("rtx-4090", pinned_max="1GiB")
    assert (machine.gpu.named, machine.gpu.vram_typed, machine.host.ram_typed) == (True, False, False)
    assert not find_machine("emulated", vram="12GiB").gpu.vram_typed


@pytest.mark.parametrize(
    ("source", "named", "typed"),
    [
        ("nvml+--vram", False, True),
        ("profile:t4", True, False),
        ("profile:t4+--vram", True, True),
    ],
)
def test_plans_that_lack_the_fields_get_them_from_their_text(source: str, named: bool, typed: bool) -> None:
    old = yaml.safe_load((OLD / "wan2.2-t2v-a14b-rtx-4090.yaml").read_text(encoding="utf-8"))["machine"]
    for text, ram_typed in (("--ram, --pinned-max", True), ("x", False)):
        machine = MachineRecord.model_validate(
            {"gpu": old["gpu"] | {"source": source}, "host": old["host"] | {"source": text}},
            context=FROM_FILE,
        )
        assert (machine.gpu.named, machine.gpu.vram_typed) == (named, typed)
        assert machine.host.ram_typed == ram_typed


def test_where_a_figure_came_from_may_be_said_in_other_words(tmp_path: Path) -> None:
    plan = read_plan(OLD / "wan2.2-t2v-a14b-rtx-4090.yaml")
    said = yaml.safe_load(plan_to_yaml(plan))
    said["machine"]["gpu"] |= {"source": "WHAT THE USER SAID", "vram_typed": True, "total_bytes": 30 * GIB}
    said["machine"]["gpu"] |= {"free_bytes": 30 * GIB}
    said["machine"]["host"] |= {"source": "A GUESS", "ram_typed": True, "process_bytes": GIB}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(said), encoding="utf-8")
    reworded = read_plan(tmp_path / "plan.yaml")
    machine = machine_of(reworded)
    assert machine.gpu.named
    here = replace(machine.gpu, total_bytes=24 * GIB)
    assert gpu_differences(reworded, here) == []  # the total grew with what was typed, and says nothing of the card
    host_bytes = _host_bytes(machine)
    assert host_bytes is not None
    assert host_bytes > machine.host.available_bytes
    found = replace(machine, host=replace(machine.host, source="--ram", ram_typed=False))
    assert _host_bytes(found) is None


@pytest.mark.parametrize(
    "text", ["flag:--set vae=resident", "rule:A:B", "run:out-of-memory", "search", "live module", "x:y"]
)
def test_who_decided_is_read_back_as_it_was_written(text: str) -> None:
    assert spelled(decider_of(text)) == text


@pytest.mark.usefixtures("_reworded")
def test_who_decided_may_be_spelled_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [searched(20, "vae=component-offload"), ruled(12)]
    monkeypatch.setattr(writer, "spelled", lambda decider: spelled(decider).upper())
    forget()
    shouted = [searched(20, "vae=component-offload"), ruled(12)]
    for one, other in zip(plain, shouted, strict=True):
        names = {name: each.decided_by for name, each in one.components.items()}
        assert {name: each.decided_by for name, each in other.components.items()} == {
            name: decided_by.upper() for name, decided_by in names.items()
        }
        same = {name: each.model_copy(update={"decided_by": names[name]}) for name, each in other.components.items()}
        assert other.model_copy(update={"components": same}) == one


@pytest.fixture
def shouted_stages(monkeypatch: pytest.MonkeyPatch, _reworded: None) -> None:
    monkeypatch.setattr(stage, "_TEXTS", {phase: text.upper() for phase, text in stage._TEXTS.items()})
    experts = {name: text.upper() for name, text in stage._EXPERTS_IN_RUNS.items()}
    monkeypatch.setattr(stage, "_EXPERTS_IN_RUNS", experts)
    monkeypatch.setattr(stage, "_ENCODE_IN_RUNS", stage._ENCODE_IN_RUNS.upper())


def decisions(plan: PlanDocument) -> dict[str, object]:
    """All that is worked out from a plan, in small letters."""
    explained = str(explanation_document(plan, explain_plan(plan))).lower()
    return {"plan": plan_to_yaml(plan).lower(), "explained": explained, "paced_by": paced_by(plan)}


@pytest.fixture
def plain() -> list[dict[str, object]]:
    """Decisions of plans in the words that people read."""
    return [decisions(each) for each in (searched(20), ruled(12))]


def test_stages_may_be_called_otherwise(plain: list[dict[str, object]], shouted_stages: None) -> None:
    plans = [searched(20), ruled(12)]
    assert "DENOISE (transformer)" in plan_to_yaml(plans[0])
    assert [decisions(each) for each in plans] == plain
    assert plans[0].predicted is not None
    assert denoisers(plans[0].predicted) == {"transformer"}


def timed(name: str, phase: stage.Phase, seconds: float) -> StageTime:
    return StageTime(name=name, component="transformer", phase=phase, seconds=seconds, peak_bytes=7)


def learned(result: TrialResult) -> RunFigures:
    row = Row(
        candidate=Candidate(name="x", strategy="x", params={}, plan=None, predicted=None), result=result, rounds=1
    )
    return run_figures(row, "cuda", whole=False)


def test_what_trials_teach_hangs_on_what_a_stage_does() -> None:
    found = TrialResult(
        status="ok", generation_s=5.0, stages=(timed("x", "denoise", 4.0), timed("denoise", "decode", 1.0))
    )
    assert completed(found, steps=10, trial_steps=2).step_seconds == (2.0,)
    assert [each.seconds for each in learned(found).stages] == [None, 1.0]


def test_trials_and_plans_that_lack_the_phase_get_it_from_the_name() -> None:
    stages = [{"name": name, "component": "c", "seconds": 1.0, "peak_bytes": 7} for name in OLD_NAMES]
    result = result_of({"status": "ok", "stages": stages})
    assert result is not None
    assert [each.phase for each in result.stages] == list(OLD_NAMES.values())
    written = [PredictedStage.model_validate({**each, "binding": "link"}, context=FROM_FILE) for each in stages]
    assert [each.phase for each in written] == list(OLD_NAMES.values())


OLD_NAMES = {
    "denoise (high noise)": "denoise",
    "denoise (transformer)": "denoise",
    "text encode": "text_encode",
    "image encode (vae)": "image_encode",
    "encode image": "image_encode",
    "decode (vae)": "decode",
    "check (safety_checker)": "check",
    "controlnet": None,
}


def test_a_component_with_and_in_its_name_is_one_stage_of_a_timeline() -> None:
    key = stage.StageKey("this and that", "denoise")
    passes = [Pass(stages=(key,), component="this and that", start_s=at, end_s=at + 1) for at in range(3)]
    assert [[each.stages for each in row] for row in rows_of(passes, 0, 100)] == [[(key,)]]
    assert steady_pass(tuple(passes)) == passes[-1]


def test_figures_may_say_otherwise_where_they_come_from() -> None:
    """Of a guessed plan: not that it is one, so neither a run of it teaches nor a timeline traces."""
    plan = searched(20)
    assert plan.predicted is not None
    guess = plan.predicted.model_copy(update={"source": "ESTIMATED", "guessed": True})
    assert paced_by(plan) != {}
    assert paced_by(plan.model_copy(update={"predicted": guess})) == {}
    known = plan.predicted.model_copy(update={"source": "weights only: a word", "guessed": False})
    assert paced_by(plan.model_copy(update={"predicted": known})) == paced_by(plan)


def test_plans_that_lack_the_fields_of_figures_get_them_from_their_text() -> None:
    made = yaml.safe_load(plan_to_yaml(searched(20)))
    made["predicted"]["source"] = made["trace"]["source"] = "weights only: no pipeline class"
    rate, kappa = {"value": 1.0, "spread": 1.0, "source": "spec"}, {"low": 1.0, "mid": 1.0, "high": 1.0}
    made["arithmetic"]["rates"] = {"a": {**rate, "why": "prior: a disk"}, "b": {**rate, "why": "80% of PCIe"}}
    made["arithmetic"]["kappas"] = {"A": {**kappa, "source": "fitted: 2 runs"}, "B": {**kappa, "source": "prior: x"}}
    del made["predicted"]["guessed"], made["trace"]["guessed"], made["budget"]["finding"]
    made["budget"] |= {"verdict": "does not fit: x. Would fit: --vram 9GiB.", "would_fit": ["--vram 9GiB"]}
    plan = PlanDocument.model_validate(made, context=FROM_FILE)
    assert plan.predicted is not None
    assert plan.trace is not None
    assert plan.arithmetic is not None
    assert plan.predicted.guessed
    assert plan.trace.guessed
    assert [each.prior for each in plan.arithmetic.rates.values()] == [True, False]
    assert [each.fitted for each in plan.arithmetic.kappas.values()] == [True, False]
    assert plan.budget.verdict_alone == "does not fit: x."


def test_of_a_record_that_code_builds_no_text_is_read() -> None:
    plan = searched(4, "all=resident")
    assert plan.predicted is not None
    assert plan.trace is not None
    predicted = {**plan.predicted.model_dump(), "source": "weights only: x"}
    del predicted["guessed"], predicted["stages"][0]["phase"]
    built = Predicted(**predicted)
    assert (built.guessed, built.stages[0].phase) == (False, None)
    assert not TraceRecord(source="weights only: x", seconds=0.0, uses=[]).guessed
    assert Budget(**plan.budget.model_dump(exclude={"finding"})).finding is None


def test_a_plan_without_a_dry_run_is_guessed_whatever_its_source_says() -> None:
    calls = replace(trace(*USES, steps=STEPS), source="SIZES ALONE", no_dry_run="x")
    plan = searched(20, trace=calls)
    assert plan.predicted is not None
    assert plan.trace is not None
    assert (plan.trace.source, plan.predicted.source) == ("SIZES ALONE", "SIZES ALONE")
    assert (plan.trace.guessed, plan.predicted.guessed) == (True, True)
    known = searched(20, trace=replace(calls, source="weights only: a word", no_dry_run=None))
    assert known.predicted is not None
    assert known.trace is not None
    assert (known.trace.guessed, known.predicted.guessed) == (False, False)


@pytest.mark.usefixtures("shouted_stages")
def test_a_plan_says_what_its_stages_do_whatever_they_are_called() -> None:
    plan = searched(20)
    assert plan.predicted is not None
    assert plan.arithmetic is not None
    phases = ["text_encode", "denoise", "decode"]
    assert [each.phase for each in plan.predicted.stages] == phases
    assert [each.phase for each in plan.arithmetic.stages] == phases


def test_a_verdict_may_be_worded_otherwise() -> None:
    refused = searched(4, "all=resident")
    assert not refused.fits
    assert refused.budget.finding is not None
    said = {"verdict": "NO. TRY THIS: more", "finding": "NO WOULD FIT: none."}
    reworded = refused.model_copy(update={"budget": refused.budget.model_copy(update=said)})
    left_out = Candidate(name="x", strategy="search", plan=reworded)
    assert why_unfit(left_out) == "NO WOULD FIT: none"
    assert why_unfit(replace(left_out, plan=refused)) == refused.budget.finding.rstrip(".")
    assert refused.budget.lacks == refused.budget.verdict.removeprefix("does not fit: ").partition(":")[0]


def test_rates_that_a_newer_version_measured_are_left_out_and_shown_as_they_are() -> None:
    written = spelled_rates(known_rates({"disk_bytes_per_s": 2.0, "from_the_future_per_s": 1.0}).items())
    assert written == {"disk_bytes_per_s": 2.0}
    assert {type(each) for each in written} == {str}
    assert (rate_name("from_the_future_per_s"), rate_value("from_the_future_per_s", 3.0)) == (
        "from_the_future_per_s", rate_value(RateKey.KERNELS, 3.0)
    )  # fmt: skip


def test_rates_may_be_called_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.cli.screen._RATES", {key: text.upper() for key, text in screen._RATES.items()})
    assert rate_name(RateKey.PINNED_H2D) == "PINNED H2D"
    assert rate_value(RateKey.PINNED_H2D, 2e9) == "2.00 GB/s"


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (ImportError("libx.so: failed to map segment from shared object"), True),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_a_refusal_of_host_memory_is_known_by_the_words_of_those_who_have_no_code(error, refused: bool) -> None:
    assert tell_of_refused_memory(error) is refused
