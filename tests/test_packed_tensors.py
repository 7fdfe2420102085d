"""Which plain tensors a packed weight is, and its likeness over others: all moving and sizing rests on that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import roost
from attach_options import ROOMY, SMALL
from packed_models import PACKED, packed_pipeline, state
from roost.pipelines.formats.packed_tensors import follow_parts, likeness, parts_of, stored_sizes, why_whole


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


def layer_of(kind: str) -> Any:
    return packed_pipeline(kind, blocks=1).transformer.blocks[0].first


@pytest.mark.parametrize("kind", PACKED)
def test_a_likeness_over_copies_computes_the_same_and_apart_from_the_original(kind: str) -> None:
    layer = layer_of(kind)
    right = layer(state())
    for name, each in list(layer.named_parameters()):
        copies = [part.detach().clone() for _, part in parts_of(each)]
        made = likeness(each, copies)
        assert type(made) is type(each)
        assert isinstance(made, torch.nn.Parameter)
        assert [part.data_ptr() for _, part in parts_of(made)] == [copy.data_ptr() for copy in copies]
        assert why_whole(each) is None
        layer.register_parameter(name, made)
        for _, part in parts_of(each):
            part.data = torch.zeros_like(part.data)
    assert torch.equal(layer(state()), right)


def test_the_parts_of_four_bits_are_all_that_explains_them() -> None:
    weight = layer_of("bitsandbytes nf4, nested").weight
    assert [name for name, _ in parts_of(weight)] == [
        "", "quant_state.absmax", "quant_state.code", "quant_state.offset", "quant_state.state2.absmax",
        "quant_state.state2.code",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["torchao int8", "torchao float8", "comfy-kitchen float8"])
def test_a_wrapper_is_where_its_parts_are(kind: str) -> None:
    if kind not in PACKED:
        pytest.skip("comfy-kitchen is not installed")
    weight = layer_of(kind).weight
    mode, cuda = FakeTensorMode(), torch.device("cuda", 0)
    fakes = [FakeTensor(mode, part.to("meta"), cuda) for _, part in parts_of(weight)]  # where there is no CUDA
    moved = likeness(weight, fakes)
    assert moved.device.type == "cuda"
    weight.data = moved
    assert weight.device.type == "cuda"
    follow_parts(weight)  # its parts stayed on the host
    assert weight.device.type == "cpu"


def test_sizes_are_of_what_is_stored_and_names_those_of_the_state() -> None:
    model = packed_pipeline("torchao int8", blocks=1).transformer
    sizes = stored_sizes(model)
    assert sizes["blocks.0.first._weight_qdata"] == 256 * 256
    assert sizes["blocks.0.norm.weight"] == 2 * 256
    assert "blocks.0.first.weight" not in sizes
    plain = packed_pipeline("torchao int8").vae
    assert stored_sizes(plain) == {name: each.nbytes for name, each in plain.state_dict().items()}


def test_layers_that_keep_parts_of_their_weight_themselves_stay_whole_and_exact() -> None:
    Linear8bitLt = pytest.importorskip("bitsandbytes.nn").Linear8bitLt

    pipeline = packed_pipeline("gguf Q8_0")
    own = pipeline.transformer.blocks[0].second
    layer = Linear8bitLt(own.in_features, own.out_features, bias=False, has_fp16_weights=False)
    pipeline.transformer.blocks[0].second = layer.to("cpu").requires_grad_(False)
    right = pipeline.transformer(state())
    with roost.attach(pipeline, vram=ROOMY, **SMALL) as held:
        planned = held.plan.components["transformer"]
        assert planned.strategy == "resident"
        assert "Int8Params, whose layer keeps parts of it" in planned.why
        assert torch.equal(pipeline.transformer(state()), right)
    assert torch.equal(pipeline.transformer(state()), right)
