"""``plan --tune``: trials decide between what the search proposes, and never against what was typed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planted_bench import STUB, Setting, row_of
from roost.api.plans.plan import search_question
from roost.api.requests.option_sets import PlanOptions
from roost.cli.app import run
from roost.plan import PlanDocument, plan_to_yaml, read_plan
from roost.planner.search_question import SearchQuestion
from roost.profiles.store import MeasuredStore
from roost.tune.choice import searched_plan, tuned_plan, tuning_field
from roost.tune.results.records import BenchResults
from roost.tune.trials.candidates import RULE_PLAN, SEARCHED_PLAN, placement_of
from roost.tune.trials.runner import Trials
from tiny_models import build

WHEN = "2026-01-02T03:04:05Z"
SMALL = ("--size", "64x64", "--frames", "9", "--steps", "10")
EMULATED = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0")
STREAMED, STREAMED_KEY = "layerwise k=0 strided p1", "layerwise-offload 0 strided 1"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build("wan2.1", tmp_path_factory.mktemp("tune") / "model"))


@pytest.fixture(scope="module")
def asked(model: str) -> SearchQuestion:
    return question(model)


def question(model: str, **typed: Any) -> SearchQuestion:
    small = {"gpu": "emulated", "vram": "64MiB", "headroom": 0, "size": "64x64", "frames": 9, "steps": 10}
    return search_question(model, PlanOptions(**small, **typed))


def trials_of(asked: SearchQuestion, folder: Path, **planted: Any) -> BenchResults:
    """The results of a field whose trials do what is planted by the denoiser's placement."""
    setting = Setting(asked, folder)
    setting.entrants = tuning_field(asked, searched_plan(asked))
    setting.plant_keys(planted)
    return setting.run(rounds=2)


def tuned(asked: SearchQuestion, folder: Path, **planted: Any) -> PlanDocument:
    return tuned_plan(searched_plan(asked), trials_of(asked, folder, **planted), WHEN)


def test_the_searched_plan_and_the_rule_plan_always_take_part(asked: SearchQuestion) -> None:
    field = tuning_field(asked, searched_plan(asked))
    everybody = [each.name for each in (*field.racing, *(candidate for candidate, _ in field.left_out))]
    assert field.racing[0].name == SEARCHED_PLAN
    assert RULE_PLAN in everybody
    assert 2 <= len(field.racing) <= 5
    placements = [placement_of(each.plan) for each in field.racing if each.plan]
    assert len(set(placements)) == len(field.racing)


def test_the_winner_becomes_the_plan_with_what_was_measured(asked: SearchQuestion, tmp_path: Path) -> None:
    plan = tuned(asked, tmp_path, **{STREAMED_KEY: {"step_s": 0.004}, "resident": {"step_s": 0.008}})
    transformer = plan.components["transformer"]
    assert (transformer.strategy, transformer.resident_blocks) == ("layerwise-offload", 0)
    assert {each.decided_by for each in plan.components.values()} == {"trial"}
    assert transformer.why.startswith(f"{STREAMED} won the trials on the emulated device; the time of others beside it")
    measured = plan.measured
    assert measured is not None
    assert (measured.candidate, measured.device_kind, measured.when) == (STREAMED, "emulated", WHEN)
    assert (measured.step_s.mean, measured.peak_bytes, measured.trial_steps) == (pytest.approx(0.004), 1000, 5)
    rivals = {each.name: each for each in measured.rivals}
    # A generation counts: 1 s beside 5 steps, and 5 more steps at the median.
    assert rivals[SEARCHED_PLAN].ratio == pytest.approx((1 + 10 * 0.008) / (1 + 10 * 0.004), rel=0.01)
    assert plan.policy == searched_plan(asked).policy


def test_the_plan_can_be_written_read_and_is_for_the_same_model(asked: SearchQuestion, tmp_path: Path) -> None:
    plan = tuned(asked, tmp_path, **{STREAMED_KEY: {"step_s": 0.001}})
    path = tmp_path / "plan.yaml"
    path.write_text(plan_to_yaml(plan))
    assert read_plan(path) == plan
    assert plan.model == searched_plan(asked).model


def test_among_equals_the_predicted_plan_stays(asked: SearchQuestion, tmp_path: Path) -> None:
    plan = tuned(asked, tmp_path)
    assert plan.measured is not None
    assert plan.measured.candidate == SEARCHED_PLAN
    assert placement_of(plan) == placement_of(searched_plan(asked))
    assert plan.also == searched_plan(asked).also


def test_what_was_typed_is_what_every_candidate_does(model: str, tmp_path: Path) -> None:
    typed = question(model, set=["vae=snapshot-offload"])
    field = tuning_field(typed, searched_plan(typed))
    assert {each.plan.components["vae"].strategy for each in field.racing if each.plan} == {"snapshot-offload"}
    plan = tuned(typed, tmp_path)
    assert plan.components["vae"].decided_by == searched_plan(typed).components["vae"].decided_by
    assert plan.components["transformer"].decided_by == "trial"


def test_a_trial_that_had_to_step_down_is_out_of_memory_and_can_not_win(asked: SearchQuestion, tmp_path: Path) -> None:
    demoted = {"step_s": 0.0001, "demotions": {"transformer": {"resident_blocks": 1}}}
    plan = tuned(asked, tmp_path, **{STREAMED_KEY: demoted})
    assert plan.measured is not None
    assert plan.measured.candidate != STREAMED
    (rival,) = [each for each in plan.measured.rivals if each.name == STREAMED]
    assert (rival.status, rival.ratio) == ("oom", None)


def test_plans_that_may_differ_in_bits_are_not_compared_bit_for_bit(asked: SearchQuestion, tmp_path: Path) -> None:
    def standing(name: str, **changed: bool) -> tuple[str, str | None]:
        setting = Setting(asked, tmp_path / name)
        field = tuning_field(asked, searched_plan(asked))
        streamed = next(each for each in field.racing if each.name == STREAMED)
        assert streamed.plan is not None
        vae = streamed.plan.components["vae"].model_copy(update=changed)
        plan = streamed.plan.model_copy(update={"components": {**streamed.plan.components, "vae": vae}})
        setting.entrants = replace(field, racing=(field.racing[0], replace(streamed, plan=plan)))
        setting.plant_keys({STREAMED_KEY: {"step_s": 0.0001, "digest": "b" * 64}})
        results = setting.run()
        return row_of(results, STREAMED).result.status, results.winner

    for name in ("plain", "tiled"):
        (tmp_path / name).mkdir()
    assert standing("plain") == ("wrong", SEARCHED_PLAN)
    assert standing("tiled", tiling=True) == ("ok", STREAMED)


def test_when_every_trial_fails_the_prediction_decides_and_the_plan_says_why(
    asked: SearchQuestion, tmp_path: Path
) -> None:
    results = trials_of(asked, tmp_path)
    failed = replace(results, winner=None, rows=tuple(replace(row, rounds=1) for row in results.rows), standings=())
    plan = tuned_plan(searched_plan(asked), failed, WHEN)
    assert plan.measured is None
    assert plan.components == searched_plan(asked).components
    assert "no trial ran to its end, so the prediction decides" in plan.warnings[-1]


def test_tune_as_a_person_calls_it(model: str, tmp_path: Path, monkeypatch, capsys) -> None:
    planted = tmp_path / "planted.json"
    planted.write_text(json.dumps({STREAMED_KEY: {"step_s": 0.001}, "resident": {"step_s": 0.05}}))
    command = (sys.executable, str(STUB), str(planted))
    monkeypatch.setattr(Trials.__init__, "__defaults__", (command,))
    path = tmp_path / "plan.yaml"
    assert run(["plan", model, *EMULATED, *SMALL, "--tune", "--tune-seconds", "60", "-v", "-o", str(path)]) == 0
    out, err = capsys.readouterr()
    assert any(line.startswith("transformer ") and line.endswith("  trial") for line in out.splitlines())
    assert "measured  a step 1.000 ms" in out
    assert "on the emulated device, not a GPU" in out
    assert err.startswith("--tune: trials of ")
    assert "round 1: " in err
    plan = read_plan(path)
    assert plan.measured is not None
    taught = [kept.entry for kept in MeasuredStore().entries() if kept.entry.model_class]
    assert [len(entry.residuals) > 0 for entry in taught] == [True]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tune", "--policy", "rules"), "leave --policy rules out"),
        (("--tune", "--objective", "memory"), "leave --objective memory out"),
        (("--tune", "--tune-seconds", "0"), "--tune-seconds 0 is out of range"),
        (("--tune-seconds", "60"), "add --tune"),
    ],
)
def test_what_trials_contradict_is_refused(model: str, capsys, words: tuple[str, ...], said: str) -> None:
    assert run(["plan", model, *EMULATED, *SMALL, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--gpu", "rtx-4090", "--ram", "8GiB"), "trials need the GPU itself"),
        ((*EMULATED, "--ram", "8GiB", "--fsdp"), "needs torchrun"),
        (("--gpu", "emulated", "--vram", "1MiB", "--headroom", "0", "--ram", "8GiB"), "nothing fits"),
    ],
)
def test_where_nothing_can_be_tried_the_prediction_stays(model: str, capsys, words: tuple[str, ...], said: str) -> None:
    codes = [run(["plan", model, *words, *SMALL, "--json", *tune]) for tune in ((), ("--tune",))]
    assert codes[0] == codes[1]
    out, err = capsys.readouterr()
    predicted, tuned_document = map(json.loads, out.splitlines())
    assert tuned_document == predicted
    assert "--tune: " in err
    assert said in err
    assert "the prediction decides" in err


def test_a_model_by_its_name_is_not_tried_on_an_emulated_gpu(capsys) -> None:
    words = ("--gpu", "emulated", "--vram", "16GiB", "--ram", "32GiB", "--size", "512x512", "--steps", "2")
    assert run(["plan", "sdxl", *words, "--tune"]) == 0
    out, err = capsys.readouterr()
    assert "known only by its name" in err
    assert "measured" not in out
