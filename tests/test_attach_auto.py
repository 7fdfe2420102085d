"""``roost.attach(plan="auto")``: the pipeline in memory is dry-run and planned as ``roost plan`` does it from files."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

import roost
from attach_options import ROOMY, SMALL
from live_pipelines import bare_digest, live_pipeline, own_pipeline, request_for, state_of
from plans import plan_for
from roost.api.attach import plan_pipeline
from roost.errors import UsageError
from roost.plan import PlanDocument
from roost.residency.run.generate import generate


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


def small_call(name: str) -> dict[str, Any]:
    """The options that plan for what the tests generate."""
    return {**SMALL, "frames": 9} if name == "wan2.2" else dict(SMALL)


@pytest.mark.dealt(3)
@pytest.mark.parametrize("name", ["flux", "wan2.2", "sdxl"])
def test_auto_plans_the_live_pipeline_and_detach_leaves_the_baseline(name: str) -> None:
    pipeline = live_pipeline(name)
    assert bare_digest(name)
    before = state_of(pipeline)
    held = roost.attach(pipeline, vram=ROOMY, ram="8GiB", **small_call(name))
    assert held.plan.fits
    assert held.plan.predicted is not None
    assert held.plan.predicted.source == "dry-run"
    assert set(held.plan.components) == {
        key for key, each in pipeline.components.items() if hasattr(each, "parameters")
    }
    assert generate(held, request_for(name)).digest == bare_digest(name)
    roost.detach(pipeline)
    assert state_of(pipeline) == before
    assert not hasattr(pipeline, "roost")


# With the second budget, the activations leave less than the weights need.
@pytest.mark.dealt(2)
@pytest.mark.parametrize(
    ("name", "vram"), [("flux", "1GiB"), ("flux", "13.5MiB"), ("wan2.2", "1GiB"), ("wan2.2", "14.5MiB")]
)
def test_auto_decides_as_roost_plan_does_from_the_files(name: str, vram: str, tmp_path: Path) -> None:
    pipeline = own_pipeline(name)
    pipeline.save_pretrained(tmp_path)
    options = {**small_call(name), "vram": vram, "ram": "8GiB", "headroom": "0GiB"}
    from_files = roost.make_plan(tmp_path, gpu="emulated", dtype="float32", **options)
    live = plan_pipeline(pipeline, **options)
    assert decisions(live) == decisions(from_files)
    assert live.compared is not None
    assert live.compared.all_resident is not None
    assert (live.compared.all_resident.short_bytes > 0) == (vram != "1GiB")
    assert (live.model.family, live.workload) == (from_files.model.family, from_files.workload)
    assert live.predicted is not None
    assert from_files.predicted is not None
    # In memory there are buffers too that no file holds, such as rotary positions.
    assert live.predicted.next_s.mid == pytest.approx(from_files.predicted.next_s.mid, rel=0.02)
    assert live.predicted.source == from_files.predicted.source == "dry-run"


def decisions(plan: PlanDocument) -> dict[str, Any]:
    fields = {"kind", "strategy", "resident_blocks", "slots", "prefetch", "master", "decided_by", "stacks"}
    return {name: each.model_dump(include=fields) for name, each in plan.components.items()}


def test_auto_takes_the_rules_when_asked() -> None:
    plan = plan_pipeline(live_pipeline("flux"), ROOMY, policy="rules", set="vae=snapshot-offload")
    assert plan.policy.name == "rules"
    assert plan.predicted is None
    assert plan.components["vae"].strategy == "snapshot-offload"


def test_without_a_size_auto_plans_the_familys_usual_workload() -> None:
    plan = plan_pipeline(live_pipeline("flux"), "8GiB")
    assert (plan.workload.width, plan.workload.height, plan.workload.steps) == (1024, 1024, 28)


def test_planning_leaves_the_pipeline_and_the_random_numbers_alone() -> None:
    pipeline = own_pipeline("flux")
    calls: list[object] = []
    hook = pipeline.transformer.register_forward_hook(lambda *_: calls.append("called"))
    before, drawn = state_of(pipeline), torch.random.get_rng_state()
    assert "dry-run" in str(plan_pipeline(pipeline, ROOMY, **SMALL).predicted)
    assert state_of(pipeline) == before
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert calls == []
    hook.remove()


class OwnVae(torch.nn.Module):
    """A VAE of the user's own class around a known one; with ``peeks``, it looks where no dry run can."""

    def __init__(self, vae: torch.nn.Module, *, peeks: bool) -> None:
        super().__init__()
        self.vae, self.config, self.dtype, self.peeks = vae, vae.config, vae.dtype, peeks

    @property
    def device(self) -> torch.device:
        return self.vae.device

    def decode(self, latents: torch.Tensor, return_dict: bool = True) -> Any:
        if self.peeks:
            assert latents.data_ptr() != 0
        return self.vae.decode(latents, return_dict=return_dict)


@pytest.mark.parametrize("peeks", [False, True])
def test_a_component_of_the_users_own_class_is_dry_run_or_planned_by_its_weights(peeks: bool) -> None:
    assert bare_digest("flux")
    pipeline = own_pipeline("flux")
    pipeline.vae = OwnVae(pipeline.vae, peeks=peeks)
    with roost.attach(pipeline, vram="8GiB", ram="8GiB", **SMALL) as held:
        predicted = held.plan.predicted
        assert predicted is not None
        assert predicted.source.startswith("weights only: 'FluxPipeline' can't be dry-run" if peeks else "dry-run")
        assert generate(held, request_for("flux")).digest == bare_digest("flux")


@pytest.mark.parametrize("cached", [False, True])
def test_a_wrapped_forward_is_not_run_for_planning_until_it_is_taken_off(cached: bool) -> None:
    """Also beneath a cache of diffusers, which by itself is no obstacle (``test_step_caches``)."""
    from diffusers.hooks import FirstBlockCacheConfig

    pipeline = own_pipeline("flux")
    block = pipeline.transformer.transformer_blocks[0]
    forward = block.forward
    block.forward = functools.partial(forward)
    if cached:
        pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.2))
    assert "something wraps the forward of transformer.transformer_blocks.0" in source_of(pipeline)
    if cached:
        pipeline.transformer.disable_cache()
    del block.forward
    assert source_of(pipeline) == "dry-run"


def test_no_default_refuses_a_pipeline_that_starts_from_a_picture() -> None:
    """Its class's strength of 0.6 leaves no step of one, nor do 28 steps of a strength of 0.01: callers give both."""
    from diffusers import FluxImg2ImgPipeline

    pipeline = FluxImg2ImgPipeline(**live_pipeline("flux").components)
    by_default = plan_pipeline(pipeline, "8GiB", size="64x64", steps=1)
    assert (by_default.workload.steps, by_default.workload.strength) == (1, 1.0)
    assert "dry-run" in str(by_default.predicted)
    weak = plan_pipeline(pipeline, "8GiB", size="64x64", strength=0.01)
    assert (weak.workload.steps, weak.workload.strength) == (101, 0.01)
    with pytest.raises(UsageError, match=r"strength=0.3 of 2 steps leaves none to run"):  # both were given
        plan_pipeline(pipeline, "8GiB", size="64x64", steps=2, strength=0.3)


def source_of(pipeline: Any) -> str:
    plan = plan_pipeline(pipeline, "8GiB", **SMALL)
    assert plan.predicted is not None
    return plan.predicted.source


@pytest.mark.parametrize("given", [{"files": {"transformer": "x.gguf"}}, {"vae": "x.safetensors"}])
def test_a_pipeline_in_memory_takes_no_files(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"^attach has no option '(files|vae)'"):
        roost.attach(live_pipeline("flux"), vram=ROOMY, **given)


def test_an_option_that_attach_does_not_take_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^attach has no option 'gpu'; choose from .*size"):
        roost.attach(live_pipeline("flux"), vram=ROOMY, gpu="rtx-4090")
    with pytest.raises(UsageError, match="a plan that is made already"):
        roost.attach(live_pipeline("flux"), plan_for(live_pipeline("flux")), vram=ROOMY, size="64x64")
