"""``--cache``: checked early, recorded, predicted at both ends; one cache has the same bits in every strategy."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from diffusers import (
    FirstBlockCacheConfig,
    MagCacheConfig,
    TaylorSeerCacheConfig,
)

import roost
from live_pipelines import STRATEGIES, digest_without_plan, held_by, live_pipeline, own_pipeline, request_for, state_of
from plans import plan_for
from roost.api.models.step_caches import cache_of
from roost.api.plans.diff import diff_plans
from roost.api.plans.export.sglang import sglang_command
from roost.cli.app import run
from roost.errors import UsageError
from roost.facts.step_cache import StepCache
from roost.pipelines.described_values import call_form
from roost.plan import plan_to_yaml, read_plan
from roost.plan.revision import revised
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.run.generate import generate, generate_with
from roost.residency.run.loader import load_held
from roost.residency.run.plain import load_plain, move_whole, place_plain
from roost.residency.run.rehearsal import rehearse
from step_cache_cases import CACHE, OTHERS
from tiny_models import build

STEPS = 5
ROOM = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0")
PLANNED = (*ROOM, "--size", "64x64", "--steps", str(STEPS), "--cache", "first-block=2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("flux", tmp_path_factory.mktemp("cached") / "model")


@pytest.fixture(scope="module")
def planned(model: Path) -> Path:
    path = model.with_name("plan.yaml")
    assert run(["plan", str(model), *PLANNED, "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def right() -> tuple[str, str]:
    """Digests of diffusers alone, with the cache and without."""
    pipeline = own_pipeline("flux")
    without = digest_without_plan(pipeline, "flux", num_inference_steps=STEPS)
    pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=2.0))
    return digest_without_plan(pipeline, "flux", num_inference_steps=STEPS), without


@pytest.mark.dealt(3)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_gives_the_bits_of_the_pipeline_with_that_cache(strategy: str, right: tuple[str, str]) -> None:
    pipeline = live_pipeline("flux")
    digest_without_plan(pipeline, "flux", num_inference_steps=1)  # a call leaves a registry of its own
    before = state_of(pipeline)
    with held_by(pipeline, revised(plan_for(pipeline, STRATEGIES[strategy]), cache=CACHE)) as held:
        request = request_for("flux", num_inference_steps=STEPS)
        assert [generate(held, request).digest for _ in range(2)] == [right[0]] * 2
    assert state_of(pipeline) == before
    assert right[0] != right[1]


def test_a_call_that_broke_off_leaves_nothing_to_the_next(right: tuple[str, str]) -> None:
    pipeline = live_pipeline("flux")
    request = request_for("flux", num_inference_steps=STEPS)

    def stop(_pipeline: Any, step: int, *_: object) -> Any:
        if step == 1:
            raise KeyboardInterrupt
        return {}

    with held_by(pipeline, revised(plan_for(pipeline), cache=CACHE)) as held:
        broken = replace(request, more={**request.more, "callback_on_step_end": stop})
        with pytest.raises(KeyboardInterrupt):
            generate(held, broken)
        assert generate(held, request).digest == right[0]


def test_a_rehearsal_is_of_a_whole_call_and_changes_no_bits(right: tuple[str, str]) -> None:
    pipeline, forms = live_pipeline("flux"), []
    request = request_for("flux", num_inference_steps=STEPS)
    with held_by(pipeline, revised(plan_for(pipeline, STRATEGIES["layerwise-offload"]), cache=CACHE)) as held:
        forward = pipeline.transformer.forward

        def noting(*args: Any, **kwargs: Any) -> Any:
            forms.append(call_form(args, kwargs))
            return forward(*args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline.transformer, "forward", noting)
            assert generate(held, request).digest == right[0]
        assert rehearse(held, "transformer", "forward", forms[-1]).peak_bytes > 0
        assert generate(held, request).digest == right[0]


def test_the_plan_records_it_and_runs_say_it(
    model: Path, planned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = read_plan(planned)
    assert plan.cache == CACHE
    assert "--cache first-block=2" in plan.policy.choices
    assert any("--cache first-block=2" in each and "changes pictures" in each for each in plan.warnings)
    digests = []
    for cached in (plan, revised(plan, cache=None)):
        path = tmp_path / f"{cached.cache is not None}.yaml"
        path.write_text(plan_to_yaml(cached))
        capsys.readouterr()
        assert run(["run", str(path), "--prompt", "a fox", "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        digests.append(record["digest"])
        assert record["cache"] == (None if cached.cache is None else asdict(CACHE))
        assert any("first-block=2" in each for each in record["warnings"]) == (cached.cache is not None)
    assert digests[0] != digests[1]
    assert record["compared"] is None or "cache" not in str(record["compared"]["why_not"])


def test_the_screen_has_both_ends(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ((), ("-v",)):
        assert run(["plan", str(model), *PLANNED, *more]) == 0
        out = capsys.readouterr().out
        assert "cache first-block=2" in out
        assert sum(line.startswith("with the cache first-block=2 ") for line in out.splitlines()) == 1


@pytest.mark.parametrize("cache", [CACHE, OTHERS["mag"][0]])
def test_what_trials_compare_with_has_the_cache_too(cache: StepCache, model: Path, planned: Path) -> None:
    plan, request = revised(read_plan(planned), cache=cache), request_for("flux", num_inference_steps=STEPS)
    with EmulatedDevice(2**30) as device:
        pipeline = load_plain(plan, model, device)
        assert pipeline.transformer.is_cache_enabled
        plain = place_plain(pipeline, plan, device, move_whole)
        alone = generate_with(plain.pipeline, plain.recorder, device, plain.recorder.finish, request)
    with EmulatedDevice(2**30) as device, load_held(plan, model, device) as held:
        assert generate(held, request).digest == alone.digest


def test_a_run_with_a_cache_teaches_nothing(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["run", str(planned), "--prompt", "a fox", "--json", "--no-resume"]) == 0
    compared = json.loads(capsys.readouterr().out)["compared"]
    assert (compared["kept"], "a cache over steps" in compared["why_not"]) == (False, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("teacache", "--cache 'teacache' is not known; choose first-block, mag, pab, taylorseer or taylorseer-lite."),
        ("", "--cache '' is not known"),
        ("first-block=", "--cache 'first-block=': the threshold is a number from 0, like first-block=0.05."),
        ("first-block=much", "--cache 'first-block=much': the threshold is"),
        ("first-block=-1", "--cache 'first-block=-1': the threshold is"),
        ("first-block=nan", "--cache 'first-block=nan': the threshold is"),
        ("first-block=inf", "--cache 'first-block=inf': the threshold is"),
        ("pab=0", "--cache 'pab=0': one step in so many is whole, from 1, like pab=2."),
        ("TaylorSeer=2.5", "--cache 'TaylorSeer=2.5': one step in so many is whole, from 1, like taylorseer=5."),
        ("mag=-1", "--cache 'mag=-1': the threshold is a number from 0, like mag=0.06."),
        ("first-block=1=2", "--cache 'first-block=1=2': the threshold is"),
    ],
)
def test_what_is_no_cache_is_refused_in_one_line(
    text: str, said: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("plan", "bench"):
        assert run([command, str(model), *ROOM, "--cache", text]) == 2
        out, err = capsys.readouterr()
        assert (out, err.splitlines()[-1][: len(said) + 7]) == ("", f"error: {said}")


def test_a_number_that_is_not_given_is_that_of_diffusers() -> None:
    taylorseer = TaylorSeerCacheConfig().cache_interval
    assert cache_of("first-block") == StepCache(name="first-block", threshold=FirstBlockCacheConfig().threshold)
    assert cache_of("mag") == StepCache(name="mag", threshold=MagCacheConfig(calibrate=True).threshold)
    assert cache_of("pab") == StepCache(name="pab", every=2)  # which diffusers takes with a warning
    assert cache_of("taylorseer") == StepCache(name="taylorseer", every=taylorseer)
    assert cache_of("taylorseer-lite") == StepCache(name="taylorseer-lite", every=taylorseer)
    assert cache_of(None) is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("FirstBlockCache=1", "first-block=1"),
        ("first_block=1", "first-block=1"),
        ("fbcache=1", "first-block=1"),
        ("MagCache=0.1", "mag=0.1"),
        ("pyramid-attention-broadcast=3", "pab=3"),
        ("TAYLORSEER_LITE=1234567", "taylorseer-lite=1234567"),
    ],
)
def test_names_are_read_as_people_write_them(typed: str, meant: str) -> None:
    found = cache_of(typed)
    assert found is not None
    assert found.text == meant
    assert cache_of(found.text) == found


def test_a_plan_with_another_cache_s_number_is_refused(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = planned.with_name("wrong.yaml")
    wrong.write_text(planned.read_text().replace("name: first-block", "name: pab"))
    assert run(["run", str(wrong), "--prompt", "a fox"]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "pab has every and nothing else" in line


def test_a_plan_file_has_decided_it(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(planned), "--prompt", "a fox", "--cache", "first-block=1"]) == 2
    assert "--cache: the plan has decided that" in capsys.readouterr().err


def test_a_pipeline_with_a_cache_of_its_own_is_refused_and_left_as_it_was() -> None:
    pipeline = own_pipeline("flux")
    pipeline.transformer.enable_cache(FirstBlockCacheConfig())
    before = state_of(pipeline)
    with pytest.raises(UsageError, match="this FluxTransformer2DModel has a cache already"):
        held_by(pipeline, revised(plan_for(pipeline), cache=CACHE))
    assert state_of(pipeline) == before
    assert pipeline.transformer.is_cache_enabled


def test_to_the_rules_it_is_what_cache_dit_is() -> None:
    plans = [
        roost.make_plan("wan2.2-t2v-a14b", gpu="rtx-4090", ram="64GiB", policy="rules", **more)
        for more in ({}, {"cache_dit": True}, {"cache": "first-block"})
    ]
    none, typed, cached = ([each.strategy for each in plan.components.values()] for plan in plans)
    assert none != typed
    assert cached == typed
    for plan, words in zip(plans[1:], ("--cache-dit", "--cache first-block"), strict=True):
        assert words in plan.policy.choices
        assert any(words in str(each) for each in plan.policy.blocked)


def test_plans_without_the_key_are_read_and_differences_and_exports_say_it(tmp_path: Path) -> None:
    plain = roost.make_plan("flux.1-dev", gpu="rtx-4090", ram="64GiB", policy="rules")
    old = "".join(line for line in plan_to_yaml(plain).splitlines(keepends=True) if not line.startswith("cache:"))
    (tmp_path / "old.yaml").write_text(old)
    assert read_plan(tmp_path / "old.yaml").cache is None
    cached = revised(plain, cache=CACHE)
    (difference,) = [each for each in diff_plans(plain, cached).decisions if each.what == "cache"]
    assert (difference.before, difference.after) == (None, "first-block=2")
    assert any("diffusers' cache first-block=2" in each for each in sglang_command(cached).notes)
