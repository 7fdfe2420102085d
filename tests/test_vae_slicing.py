"""VAE slicing and tiling from ``--set`` into the plan, into its prediction, onto the pipeline and off again."""

from dataclasses import replace

import pytest
import torch

from live_pipelines import digest_without_plan, held_by, live_pipeline, request_for
from plans import plan_for
from roost.cli.app import run
from roost.errors import PlanMismatch, UsageError
from roost.facts.request import Choices
from roost.plan import plan_to_yaml, read_plan
from roost.planner.by_rules import plan_by_rules
from roost.planner.by_search import plan_by_search
from roost.planner.rules.selectors import parse_set
from roost.residency.run.generate import generate
from roost.trace import VaeVariant
from roost.units import GiB
from test_search_plan import CALLS, PARTS, TERA, asked
from traces import use

SLICED = replace(CALLS, variants=(VaeVariant(use=2, setting="sliced", trace=use(PARTS[2], 60 * TERA, GiB, "decode")),))


def typed(*sets: str) -> Choices:
    return Choices(sets=tuple(map(parse_set, sets)))


@pytest.mark.dealt(2)
@pytest.mark.parametrize("strategy", ["resident", "snapshot-offload", "component-offload", "layerwise-offload"])
def test_a_typed_switch_is_in_the_plan_of_both_policies(strategy: str) -> None:
    question = asked(24, typed(f"vae={strategy},slicing=true"), trace=SLICED)
    for plan in (plan_by_rules(question.question), plan_by_search(question)):
        vae = plan.components["vae"]
        assert (vae.strategy, vae.slicing, vae.tiling) == (strategy, True, False)
        assert not any(each.slicing for name, each in plan.components.items() if name != "vae")


def test_a_typed_tiling_needs_no_allowance_and_a_typed_false_refuses_it() -> None:
    for word in ("true", "false"):
        plan = plan_by_search(asked(24, typed(f"vae=resident,tiling={word}")))
        assert plan.components["vae"].tiling is (word == "true")


def test_slicing_is_priced_as_the_dry_run_measured_it() -> None:
    whole = plan_by_search(asked(24, typed("vae=resident"), trace=SLICED)).predicted
    sliced = plan_by_search(asked(24, typed("vae=resident,slicing=true"), trace=SLICED)).predicted
    assert whole is not None
    assert sliced is not None
    peaks = [each.stages[-1].peak_bytes for each in (whole, sliced)]
    assert peaks[0] - peaks[1] == pytest.approx(5 * GiB, rel=0.3)


def test_only_a_vae_can_be_sliced() -> None:
    with pytest.raises(UsageError, match="slicing is for VAEs, and component 'transformer' is none"):
        plan_by_search(asked(24, typed("dit=resident,slicing=true")))
    with pytest.raises(UsageError, match="slicing must be one of true, false"):
        parse_set("vae=resident,slicing=2")


def test_a_plan_from_before_slicing_reads_as_without(tmp_path: object) -> None:
    plan = plan_for(live_pipeline("flux"))
    text = plan_to_yaml(plan)
    assert "slicing: false" in text
    path = tmp_path / "plan.yaml"  # type: ignore[operator]
    path.write_text("".join(line for line in text.splitlines(keepends=True) if "slicing:" not in line))
    assert read_plan(path) == plan


def test_slicing_is_on_while_the_plan_holds_and_off_after() -> None:
    pipeline = live_pipeline("flux")
    plan = plan_for(pipeline)
    sliced = plan.components["vae"].model_copy(update={"slicing": True})
    calls: list[int] = []
    with held_by(pipeline, plan.model_copy(update={"components": {**plan.components, "vae": sliced}})) as held:
        assert pipeline.vae.use_slicing
        handle = pipeline.vae.decoder.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
        made = generate(held, request_for("flux", num_images_per_prompt=2))
        handle.remove()
    assert calls == [1, 1]
    assert not pipeline.vae.use_slicing
    pipeline.vae.enable_slicing()
    try:
        assert made.digest == digest_without_plan(pipeline, "flux", num_images_per_prompt=2)
    finally:
        pipeline.vae.disable_slicing()


def test_a_class_without_slicing_is_refused() -> None:
    pipeline = live_pipeline("flux")
    plan = plan_for(pipeline)
    wrong = plan.components["text_encoder"].model_copy(update={"slicing": True})
    with (
        pytest.raises(PlanMismatch, match="CLIPTextModel has no slicing"),
        held_by(pipeline, plan.model_copy(update={"components": {**plan.components, "text_encoder": wrong}})),
    ):
        pass
    assert torch.is_tensor(next(pipeline.text_encoder.parameters()))


def test_the_command_line_takes_it(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.yaml"  # type: ignore[operator]
    options = ["--gpu", "rtx-4090", "--ram", "64GiB", "--policy", "rules"]
    assert run(["plan", "sdxl", *options, "--set", "vae=snapshot-offload,slicing=true", "-o", str(path)]) == 0
    assert read_plan(path).components["vae"].slicing
    capsys.readouterr()
    assert run(["plan", "sdxl", *options, "--set", "vae=fsdp,slicing=true"]) == 2
    assert "has no parameter 'slicing'" in capsys.readouterr().err
