"""Linear weights in 8 bits: half the bytes, the same rounded picture under every strategy, and only when allowed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import roost
from live_pipelines import live_pipeline
from plans import plan_for
from roost.api.models.inspect import inspect_model
from roost.errors import UsageError
from roost.facts.loras import LoraFile
from roost.facts.machine import PROCESS_BYTES, ram_leaving
from roost.pipelines.calls import GenerationRequest
from roost.pipelines.linears import castable_linears
from roost.plan import PlanDocument, plan_to_yaml, read_plan
from roost.plan.budget import HostTurn
from roost.plan.revision import revised
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.run.components import finish_component, load_component
from roost.residency.run.generate import generate, tensor_digest
from roost.residency.run.loader import load_held
from roost.residency.run.loras import LoraLoader
from roost.residency.weights.fp8 import Fp8Linear, store_as_planned
from roost.tune.trials.child import reading_random
from tiny_loras import lora_file
from tiny_models import build, default_call

FP8 = "float8_e4m3fn"
LAYERWISE = {
    "strategy": "layerwise-offload",
    "resident_blocks": 0,
    "resident_policy": "strided",
    "prefetch": 1,
    "slots": 2,
    "hold": False,
}
WHOLE: dict[str, Any] = dict.fromkeys(LAYERWISE)


@pytest.fixture(scope="module", params=["flux", "wan2.1"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(request.param, tmp_path_factory.mktemp("fp8") / request.param)


def family_of(model: Path) -> str:
    return model.name


def denoiser_of(model: Path) -> Any:
    return inspect_model(model).component("transformer")


def planned(model: Path, **options: Any) -> PlanDocument:
    """The denoiser streams, and host memory has room for less than a plain copy of it."""
    given = {
        "gpu": "emulated",
        "headroom": 0,
        "vram": "64MiB",
        "size": (64, 64),
        "set": ["text_encoder=resident", "vae=resident", "transformer=layerwise-offload,resident_blocks=0"],
    }
    plain_bytes = roost.make_plan(model, **given, ram="8GiB").budget.host_bytes
    ram = ram_leaving(plain_bytes - denoiser_of(model).load_bytes // 4, PROCESS_BYTES["emulated"])
    return roost.make_plan(model, **{**given, "ram": ram, **options})


def picture(plan: PlanDocument, model: Path) -> tuple[str, torch.Tensor]:
    call = default_call(family_of(model))
    with EmulatedDevice(2**30) as device:
        held = load_held(plan, model, device)
        try:
            made = generate(held, GenerationRequest(prompt=call.pop("prompt"), more=call))
        finally:
            held.close()
    return made.digest, made.output


def with_denoiser(plan: PlanDocument, **changes: Any) -> PlanDocument:
    document = plan.model_dump(by_alias=True, mode="json")
    document["components"]["transformer"].update(changes)
    return PlanDocument.model_validate(document)


@pytest.mark.dealt(2)
def test_what_does_not_fit_plainly_fits_in_8_bits_when_that_is_allowed(model: Path) -> None:
    plain, rounded = planned(model), planned(model, allow="fp8")
    assert not plain.fits
    assert any("--allow fp8" in each for each in plain.budget.would_fit)
    assert rounded.fits
    placed = rounded.components["transformer"]
    assert placed.storage == FP8
    assert placed.load_bytes < 0.75 * denoiser_of(model).load_bytes
    assert any("transformer are rounded to 8 bits" in each for each in rounded.warnings)


def test_nothing_is_rounded_where_everything_fits(model: Path) -> None:
    plan = roost.make_plan(model, gpu="emulated", vram="1GiB", headroom=0, size=(64, 64), allow="fp8,tiling")
    assert {each.storage for each in plan.components.values()} == {None}


def test_a_denoiser_that_is_rounded_in_its_turn_gives_the_same_picture(model: Path) -> None:
    plan = planned(model, allow="fp8")
    size = plan.components["transformer"].load_bytes
    turns = [
        HostTurn(component="text_encoder", masters={}, host_bytes=0),
        HostTurn(component="transformer", masters={"transformer": size}, host_bytes=size),
    ]
    in_turn = revised(plan, budget=revised(plan.budget, host_turns=turns))
    assert picture(in_turn, model)[0] == picture(plan, model)[0]


@pytest.mark.dealt(2)
def test_every_strategy_gives_the_same_rounded_picture_which_is_near_the_plain_one(model: Path) -> None:
    plan = planned(model, allow="fp8")
    blocks = sum(stack.count for stack in plan.components["transformer"].stacks)
    masters = {"master": {"pinned": blocks, "pageable": 0, "mapped": 0}}
    made = [
        picture(with_denoiser(plan, **changes), model)
        for changes in (
            {**WHOLE, "strategy": "resident", "master": None},
            {**WHOLE, "strategy": "snapshot-offload", **masters},
            {**WHOLE, "strategy": "component-offload", **masters},
            {**LAYERWISE, **masters},
        )
    ]
    assert len({digest for digest, _ in made}) == 1
    exact = roost.make_plan(model, gpu="emulated", vram="1GiB", headroom=0, size=(64, 64))
    digest, plain = picture(exact, model)
    assert digest != made[0][0]
    assert (plain.float() - made[0][1].float()).abs().mean() < 0.1


def test_a_plan_in_8_bits_survives_its_file_and_is_refused_for_a_pipeline_in_memory(
    model: Path, tmp_path: Path
) -> None:
    plan = planned(model, allow="fp8")
    file = tmp_path / "plan.yaml"
    file.write_text(plan_to_yaml(plan))
    assert read_plan(file) == plan
    pipeline = roost.load_pipeline(roost.make_plan(model, gpu="emulated", vram="1GiB", headroom=0, size=(64, 64)))
    pipeline.roost.close()
    with pytest.raises(UsageError, match="stores transformer in 8 bits"):
        roost.attach(pipeline, plan=plan)
    with pytest.raises(UsageError, match="attach can't store weights in 8 bits"):
        roost.attach(pipeline, allow="fp8")


def test_a_lora_is_fused_before_weights_are_rounded(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRAs need peft: pip install 'roost[lora]'")
    path = tmp_path / "lora.safetensors"
    lora_file(path, live_pipeline(family_of(model)), {"transformer": ("to_q", "to_v")})
    exact = roost.make_plan(model, gpu="emulated", vram="1GiB", headroom=0, size=(64, 64))
    rounded = planned(model, allow="fp8")
    lora = LoraFile(path=path, scale=0.7, component=None, sha256="")
    in_8_bits = rounded.components["transformer"]
    with torch.no_grad():
        wanted = LoraLoader(exact, [lora])("transformer", exact.components["transformer"], model)
        store_as_planned("transformer", wanted, in_8_bits)
        found = LoraLoader(rounded, [lora])("transformer", in_8_bits, model)
    assert any(isinstance(each, Fp8Linear) for each in found.modules())
    assert digests_of(found) == digests_of(wanted)
    assert digests_of(found) != digests_of(load_component("transformer", in_8_bits, model))


def digests_of(module: torch.nn.Module) -> dict[str, str]:
    return {name: tensor_digest(weight) for name, weight in module.state_dict().items()}


def test_random_weights_are_rounded_too(model: Path) -> None:
    plan = planned(model, allow="fp8").components["transformer"]
    made = finish_component("transformer", reading_random("emulated")("transformer", plan, model), plan)
    assert {layer.weight.dtype for layer in made.modules() if isinstance(layer, Fp8Linear)} == {torch.float8_e4m3fn}


def test_a_weight_is_stored_to_8_bits_and_a_power_of_two() -> None:
    block = torch.nn.Module()
    block.up, block.down = torch.nn.Linear(64, 32, dtype=torch.bfloat16), torch.nn.Linear(32, 8, dtype=torch.bfloat16)
    with torch.no_grad():
        block.up.weight.mul_(1e-3)
        block.down.weight.zero_()
    layers = list(castable_linears(block))
    before = [layer.weight.detach().clone() for layer in layers]
    module = torch.nn.Module()
    module.blocks = torch.nn.ModuleList([block])
    store_as_planned("transformer", module, plan_for_blocks(module))
    assert [type(layer) for layer in layers] == [Fp8Linear, Fp8Linear]
    assert {layer.weight.dtype for layer in layers} == {torch.float8_e4m3fn}
    for layer, weight in zip(layers, before, strict=True):
        restored = layer.weight.to(torch.bfloat16) * layer.scale
        # Three bits of mantissa, and a little more for what is far smaller than the largest weight.
        assert (restored - weight).abs().max() <= weight.abs().max() / 16
        assert torch.frexp(torch.tensor(layer.scale))[0] == 0.5


def test_a_module_that_tells_its_dtype_by_a_block_is_refused() -> None:
    class FirstBlockTells(torch.nn.Module):
        dtype = property(lambda self: self.blocks[0].up.weight.dtype)

    module, block = FirstBlockTells(), torch.nn.Module()
    block.up = torch.nn.Linear(64, 32, dtype=torch.bfloat16)
    module.blocks = torch.nn.ModuleList([block])
    with pytest.raises(UsageError, match="component 'transformer' tells its dtype by the weights of its blocks"):
        store_as_planned("transformer", module, plan_for_blocks(module))


def plan_for_blocks(module: torch.nn.Module) -> Any:
    pipeline = SimpleNamespace(components={"transformer": module})
    return plan_for(pipeline).components["transformer"].model_copy(update={"storage": FP8})


def test_a_plan_that_lacks_host_memory_alone_can_be_read_again(model: Path, tmp_path: Path) -> None:
    plan, file = planned(model), tmp_path / "plan.yaml"
    assert (plan.fits, plan.budget.deficit_bytes) == (False, 0)
    assert plan.budget.host_deficit_bytes > 0
    file.write_text(plan_to_yaml(plan))
    assert read_plan(file) == plan
