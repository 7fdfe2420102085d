"""``roost.attach`` on pipelines with packed weights: planned by the bytes that they take, measured in the dry run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import roost
from attach_options import ROOMY, SMALL
from live_pipelines import STRATEGIES, digest_without_plan, held_by, own_pipeline, request_for, state_of
from packed_models import PACKED, WAYS, pack, packed_pipeline
from plans import plan_for
from roost.api.attach import plan_pipeline
from roost.pipelines.formats.packed_tensors import named_parts
from roost.probes.dry_run.entry_calls import TracedComponent
from roost.probes.dry_run.uses import UseLog
from roost.probes.dry_run.world import FakeWorld
from roost.profiles.models import recognise
from roost.residency.hold.live_inventory import host_bytes, read_live_inventory
from roost.residency.run.generate import generate


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


def packed_family(name: str, kind: str) -> Any:
    """A tiny pipeline of the family with a packed denoiser."""
    torch.manual_seed(0)
    pipeline = own_pipeline(name)
    denoiser = pipeline.unet if name == "sdxl" else pipeline.transformer
    # Wan casts its inputs to the dtype of a layer outside its blocks.
    assert pack(denoiser.blocks if name == "wan2.2" else denoiser, kind) > 3
    return pipeline


@pytest.mark.dealt(3)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("flux", "gguf Q4_0"), ("flux", "torchao int8"), ("flux", "bitsandbytes nf4, nested"), ("sd3", "gguf Q8_0"),
        ("wan2.2", "gguf Q4_1"), ("sdxl", "torchao float8"), ("wan2.2", "float8, scale a buffer"),
    ],
)  # fmt: skip
def test_families_with_packed_denoisers_keep_their_bits_under_a_plan(name: str, kind: str) -> None:
    pipeline = packed_family(name, kind)
    right, before = digest_without_plan(pipeline, name), [part.tolist() for part in _bytes_of(pipeline)]
    for strategy in ("layerwise-offload, half resident", "snapshot-offload"):
        with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
            assert generate(held, request_for(name)).digest == right
            assert generate(held, request_for(name)).digest == right
    assert [part.tolist() for part in _bytes_of(pipeline)] == before


def _bytes_of(pipeline: Any) -> list[torch.Tensor]:
    modules = [each for each in pipeline.components.values() if isinstance(each, torch.nn.Module)]
    return [part.flatten().view(torch.uint8) for each in modules for _, part in named_parts(each)]


@pytest.mark.parametrize("kind", ["gguf Q8_0", "torchao int8"])
def test_a_packed_pipeline_is_planned_by_a_dry_run_and_streamed_where_asked(kind: str) -> None:
    pipeline = packed_family("flux", kind)
    right = digest_without_plan(pipeline, "flux")
    with roost.attach(pipeline, vram=ROOMY, ram="8GiB", **SMALL) as held:
        assert held.plan.predicted is not None
        assert held.plan.predicted.source == "dry-run"
        assert generate(held, request_for("flux")).digest == right
    with roost.attach(pipeline, vram=ROOMY, ram="8GiB", set="transformer=layerwise-offload", **SMALL) as held:
        assert held.plan.components["transformer"].strategy == "layerwise-offload"
        assert generate(held, request_for("flux")).digest == right


def test_what_kernels_of_a_library_compute_is_planned_by_weights_and_says_why() -> None:
    plan = plan_pipeline(packed_family("flux", "bitsandbytes nf4"), vram=ROOMY, ram="8GiB", **SMALL)
    assert plan.predicted is None or plan.predicted.source != "dry-run"
    assert any("Params4bit" in each for each in plan.warnings)


@pytest.mark.parametrize("kind", PACKED)
def test_the_inventory_of_a_packed_component_counts_what_is_stored(kind: str) -> None:
    pipeline = packed_pipeline(kind)
    found = next(each for each in read_live_inventory(pipeline, recognise).components if each.name == "transformer")
    stored = [part.nbytes for _, part in named_parts(pipeline.transformer)]
    assert found.load_bytes == sum(stored) == sum(found.bytes_by_dtype.values())
    assert found.tensors == len(stored)
    (units,) = found.units
    assert units.count == 5
    assert units.bytes == sum(part.nbytes for _, part in named_parts(pipeline.transformer.blocks))
    assert (found.quantization is None) == (kind.startswith("float8") or kind == "nibbles")
    plain = sum(part.nbytes for _, part in named_parts(pipeline.vae))
    assert host_bytes(pipeline) == sum(stored) + plain


@pytest.mark.parametrize("kind", ["gguf Q4_0", "gguf Q6_K", "torchao int8", "torchao float8", "nibbles"])
def test_the_dequantised_weight_is_measured_as_activation(kind: str) -> None:
    width = 1024
    linear = torch.nn.Linear(width, width, bias=False).to(torch.bfloat16).requires_grad_(False)
    model = torch.nn.Sequential(PACKED[kind](linear)).eval()
    world = FakeWorld()
    log = UseLog(world)
    with world:
        world.adopt(model)
        component = TracedComponent(name="transformer", module=model, blocks=(), kin=None, loaded_bytes=0)
        with log.watch([component]):
            model(world.empty((1, width), (width, 1), torch.bfloat16))
    (use,) = log.uses
    found = use.activation_bytes
    assert max(found.before_blocks, found.in_blocks, found.after_blocks) >= width * width * 2
    assert use.totals["matmul"].flops >= 2 * width * width


@pytest.mark.dealt(2)
@pytest.mark.parametrize("kind", WAYS)
def test_a_dry_run_leaves_the_live_pipeline_as_it_was(kind: str) -> None:
    pipeline = packed_family("flux", kind)
    before = state_of(pipeline) if kind in ("gguf Q4_0", "nibbles") else None
    classes = [type(each) for each in pipeline.transformer.parameters()]
    plan_pipeline(pipeline, vram=ROOMY, ram="8GiB", **SMALL)
    assert [type(each) for each in pipeline.transformer.parameters()] == classes
    if before is not None:
        assert state_of(pipeline) == before
