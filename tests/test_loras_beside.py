"""LoRAs beside weights: the bits of diffusers' own unfused LoRA, their blocks' bytes, switched without a new load."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter

from live_pipelines import STRATEGIES, held_by, live_pipeline, own_pipeline, request_for
from plans import LAYERWISE, plan_for
from roost.errors import InvalidFile, PlanMismatch, UsageError
from roost.facts.loras import LoraFile
from roost.pipelines.adapters import adapter_names, add_adapter
from roost.pipelines.quiet import quiet_libraries
from roost.plan import PlanDocument
from roost.plan.revision import revised
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import Held
from roost.residency.hold.live_modules import check_component
from roost.residency.run.generate import generate
from roost.residency.run.loader import Source, load_held
from roost.residency.run.loras import LoraLoader, fuses_exactly
from tiny_loras import lora_file
from tiny_models import build

pytest.importorskip("peft", reason="LoRAs need peft: pip install 'roost[lora]'")

ATTENTION = ("to_q", "to_v")
TARGETS = {
    "wan2.2": {"transformer": ATTENTION},
    "flux": {"transformer": ATTENTION, "text_encoder": ("q_proj",)},
    "sdxl": {"unet": ATTENTION, "text_encoder": ("q_proj",)},
}
Saved = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Directories of tiny pipelines by family, each with the LoRAs ``one`` and ``two`` beside its model."""

    @functools.cache
    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp("lora")
        lora_file(folder / "one.safetensors", live_pipeline(name), TARGETS[name])
        lora_file(folder / "two.safetensors", live_pipeline(name), TARGETS[name], seed=2)
        build(name, folder / "model")
        return folder

    return make


def lora(folder: Path, name: str = "one", scale: float = 1.0, *, fuse: bool | None = False) -> LoraFile:
    return LoraFile(path=folder / f"{name}.safetensors", scale=scale, component=None, sha256="", fuse=fuse)


def loaded(plan: PlanDocument, folder: Path, *loras: LoraFile, device_bytes: int = 1024**3) -> tuple[Held, LoraLoader]:
    loader = LoraLoader(plan, loras)
    return load_held(plan, folder / "model", EmulatedDevice(device_bytes), source=Source(load=loader)), loader


def by_diffusers(folder: Path) -> Any:
    """A pipeline that nobody holds, with both LoRAs as diffusers has them."""
    with quiet_libraries():
        pipeline = DiffusionPipeline.from_pretrained(folder / "model")
        for name in ("one", "two"):
            pipeline.load_lora_weights(folder, weight_name=f"{name}.safetensors", adapter_name=name)
    return pipeline


def resident_digest(pipeline: Any, name: str) -> str:
    with held_by(pipeline, plan_for(pipeline)) as held:  # on weights that lie aligned
        return generate(held, request_for(name)).digest


@functools.cache
def wanted(folder: Path, name: str, names: tuple[str, ...], scales: tuple[float, ...]) -> str:
    pipeline = by_diffusers(folder)
    if names:
        pipeline.set_adapters(list(names), list(scales))
    else:
        pipeline.disable_lora()
    return resident_digest(pipeline, name)


@pytest.mark.dealt(3)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_lora_beside_weights_has_the_bits_of_diffusers_own_under_every_strategy(strategy: str, saved: Saved) -> None:
    folder = saved("wan2.2")
    held, loader = loaded(plan_for(live_pipeline("wan2.2"), STRATEGIES[strategy]), folder, lora(folder, scale=0.7))
    with held:
        assert generate(held, request_for("wan2.2")).digest == wanted(folder, "wan2.2", ("one",), (0.7,))
    assert [(each.adapter, each.components, each.beside) for each in loader.applied] == [
        ("one", ("transformer",), ("transformer",))
    ]


@pytest.mark.dealt(2)
@pytest.mark.parametrize("name", ["flux", "sdxl"])
def test_it_is_beside_every_component_that_the_file_is_for(name: str, saved: Saved) -> None:
    folder = saved(name)
    held, loader = loaded(plan_for(live_pipeline(name), LAYERWISE), folder, lora(folder, scale=0.7))
    with held:
        assert generate(held, request_for(name)).digest == wanted(folder, name, ("one",), (0.7,))
    assert [each.beside for each in loader.applied] == [tuple(TARGETS[name])]


def test_it_rounds_otherwise_than_a_fused_one(saved: Saved) -> None:
    folder, digests = saved("flux"), set()
    for fuse in (False, True, None):
        held, _ = loaded(plan_for(live_pipeline("flux")), folder, lora(folder, fuse=fuse))
        with held:
            digests.add(generate(held, request_for("flux")).digest)
    assert len(digests) == 2  # plain weights have it fused in where nothing is said


@pytest.mark.dealt(2)
@pytest.mark.parametrize("strategy", ["resident", "snapshot-offload", "layerwise-offload"])
def test_scales_and_adapters_change_between_generations_without_a_new_load(strategy: str, saved: Saved) -> None:
    folder = saved("flux")
    plan = plan_for(live_pipeline("flux"), STRATEGIES[strategy])
    held, _ = loaded(plan, folder, lora(folder, scale=0.7), lora(folder, "two", scale=0.4))
    pipeline = held.pipeline
    with held:

        def digest() -> str:
            return generate(held, request_for("flux")).digest

        both = wanted(folder, "flux", ("one", "two"), (0.7, 0.4))
        assert digest() == both
        pipeline.set_adapters(["two"], [1.5])
        assert digest() == wanted(folder, "flux", ("two",), (1.5,))
        pipeline.disable_lora()
        assert digest() == wanted(folder, "flux", (), ()) != both
        pipeline.enable_lora()
        pipeline.set_adapters(["one", "two"], [0.7, 0.4])
        assert digest() == both
        pipeline.delete_adapters("two")
        pipeline.set_adapters(["one"], [0.7])
        assert digest() == wanted(folder, "flux", ("one",), (0.7,))


def test_weights_of_an_adapter_are_in_the_units_of_their_blocks(saved: Saved) -> None:
    folder, plan = saved("wan2.2"), plan_for(live_pipeline("wan2.2"), LAYERWISE)
    plain, _ = loaded(plan, folder)
    adapted, _ = loaded(plan, folder, lora(folder))
    with plain, adapted:
        for name in ("transformer", "transformer_2"):
            before, now = plain.runtime.components[name], adapted.runtime.components[name]
            more = [larger - smaller for smaller, larger in zip(before.block_bytes, now.block_bytes, strict=True)]
            # Of each of four layers (two attentions) a pair of matrices of 4 × 48 floats.
            assert more == ([4 * 2 * 768] * len(more) if name == "transformer" else [0] * len(more))
            assert now.trunk_bytes == before.trunk_bytes


def test_resident_blocks_give_way_to_a_lora_that_the_plan_knows_nothing_of(saved: Saved) -> None:
    folder, name = saved("wan2.2"), "wan2.2"
    plan = plan_for(live_pipeline(name), {**LAYERWISE, "resident_blocks": 3})
    held, _ = loaded(plan, folder)
    with held:
        generate(held, request_for(name))
        tight = max(each.peak_bytes for each in held.stages if each.component == "transformer")
    budget = revised(plan.budget, budget_bytes=tight)
    loras = [lora(folder, scale=0.7), lora(folder, "two", scale=0.4)]
    held, _ = loaded(revised(plan, budget=budget), folder, *loras, device_bytes=2**30)
    with held:
        component = held.runtime.components["transformer"]
        component.fit(component.trunk_bytes + component.rungs.most_bytes(component.block_bytes) - 1)
        assert component.rungs.resident_blocks < 3
        assert generate(held, request_for(name)).digest == wanted(folder, name, ("one", "two"), (0.7, 0.4))


def test_a_budget_without_room_for_the_lora_costs_resident_blocks_and_says_so(saved: Saved) -> None:
    folder, name = saved("flux"), "flux"
    plan = plan_for(live_pipeline(name), {**LAYERWISE, "resident_blocks": 0.9})
    held, _ = loaded(plan, folder)
    with held:
        generate(held, request_for(name))
        peak = max(each.peak_bytes for each in held.stages)
    held, _ = loaded(plan, folder, lora(folder, scale=0.7), lora(folder, "two", scale=0.4), device_bytes=peak)
    with held:
        digest = generate(held, request_for(name)).digest
        assert any("resident blocks instead of" in each for each in held.changes), held.changes
    assert digest == wanted(folder, name, ("one", "two"), (0.7, 0.4))


def test_a_module_with_adapters_is_still_told_from_another_model(saved: Saved) -> None:
    pipeline = own_pipeline("flux")
    plan = plan_for(pipeline, LAYERWISE)
    modules = {name: getattr(pipeline, name) for name in TARGETS["flux"]}
    add_adapter(type(pipeline), modules, lora(saved("flux")), "one")
    check_component("transformer", pipeline.transformer, plan.components["transformer"])
    del pipeline.transformer.single_transformer_blocks[-1]
    with pytest.raises(PlanMismatch, match="single_transformer_blocks"):
        check_component("transformer", pipeline.transformer, plan.components["transformer"])


def test_names_of_adapters_are_those_of_their_files_each_once(tmp_path: Path) -> None:
    files = [tmp_path / each for each in ("a style.safetensors", "lora.safetensors", "x/lora.safetensors")]
    loras = [LoraFile(path=each, scale=1.0, component=None, sha256="") for each in files]
    assert adapter_names(loras) == ["a_style", "lora_2", "lora_3"]  # peft can't tell "lora" from its own prefix


def quantised(pipeline: Any) -> Any:
    """The pipeline with the matrices of its denoiser's blocks as GGUF has them, in memory."""
    for owner in list(pipeline.transformer.modules()):
        for name, layer in list(owner.named_children()):
            if isinstance(layer, torch.nn.Linear) and layer.in_features % 32 == 0:
                made = GGUFLinear(layer.in_features, layer.out_features, layer.bias is not None, torch.float32)
                packed = gguf.quants.quantize(layer.weight.numpy(), gguf.GGMLQuantizationType.Q8_0)
                made.weight = GGUFParameter(torch.from_numpy(packed), quant_type=gguf.GGMLQuantizationType.Q8_0)
                made.bias = layer.bias
                setattr(owner, name, made)
    return pipeline


def loading(modules: dict[str, Any], plan: PlanDocument, loras: Sequence[LoraFile]) -> LoraLoader:
    return LoraLoader(plan, loras, lambda name, component, folder: modules[name])


def test_quantised_weights_keep_their_bits_and_have_the_lora_beside_them(saved: Saved) -> None:
    folder, pipeline = saved("flux"), quantised(own_pipeline("flux"))
    plain = bare(pipeline)
    plan = plan_for(pipeline)
    modules = {"transformer": pipeline.transformer, "text_encoder": pipeline.text_encoder}
    assert not fuses_exactly(modules["transformer"])
    loader = loading(modules, plan, [lora(folder, scale=0.7, fuse=None)])
    for name in modules:
        loader(name, plan.components[name], folder)
    assert [(each.components, each.beside) for each in loader.applied] == [
        (("transformer", "text_encoder"), ("transformer",))
    ]
    layer = pipeline.transformer.transformer_blocks[0].attn.to_q
    assert isinstance(layer.base_layer, GGUFLinear)
    other = quantised(own_pipeline("flux"))
    with quiet_libraries():
        other.load_lora_weights(folder, weight_name="one.safetensors", adapter_name="one")
        other.fuse_lora(components=["text_encoder"], lora_scale=0.7)
        other.set_adapters(["one"], [{"transformer": 0.7}])
    assert bare(pipeline) == bare(other) != plain


def bare(pipeline: Any) -> str:
    from live_pipelines import digest_without_plan

    return digest_without_plan(pipeline, "flux")


def test_fusing_into_quantised_weights_is_refused(saved: Saved) -> None:
    folder, pipeline = saved("flux"), quantised(own_pipeline("flux"))
    plan = plan_for(pipeline)
    modules = {"transformer": pipeline.transformer, "text_encoder": pipeline.text_encoder}
    loader = loading(modules, plan, [lora(folder, fuse=True)])
    with pytest.raises(UsageError, match="the weights of transformer are quantised, and fusing would round them again"):
        loader("transformer", plan.components["transformer"], folder)


def test_weights_that_the_plan_rounds_take_no_lora_beside_them(saved: Saved) -> None:
    folder = saved("flux")
    plan = plan_for(live_pipeline("flux"), LAYERWISE)
    rounded = revised(plan.components["transformer"], storage="float8_e4m3fn")
    plan = revised(plan, components={**plan.components, "transformer": rounded})
    with pytest.raises(UsageError, match="the plan rounds transformer to 8 bits"):
        loaded(plan, folder, lora(folder))


def test_a_lora_of_another_family_is_refused_in_one_line(saved: Saved) -> None:
    plan = plan_for(live_pipeline("wan2.2"))
    other = lora(saved("flux"))
    with pytest.raises(InvalidFile, match="does not fit WanPipeline") as caught:
        loaded(plan, saved("wan2.2"), replace(other, component="transformer"))
    assert "\n" not in str(caught.value)
