"""Models whose linear layers are packed, by the library that owns each format, or as files have them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import gguf
import numpy
import pytest
import torch
from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter

WIDTH = 256

_Q = gguf.GGMLQuantizationType
_HALF = 2  # bytes of a scale in float16
# Where the float16 scales are in a block that no Python package makes
_SCALES_AT = {_Q.Q4_K: (0, 2), _Q.Q6_K: (208,), _Q.Q2_K: (80, 82), _Q.IQ4_XS: (0,)}


class ScaledLinear(torch.nn.Linear):
    """A weight in 8 bits with its scales beside it, as parameters or as buffers."""

    weight_scale: torch.Tensor

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        weight = self.weight.to(torch.float32) * self.weight_scale
        return torch.nn.functional.linear(input, weight.to(input.dtype), self.bias)


class NibbleLinear(torch.nn.Module):
    """Two weights a byte, with a scale and an offset a row, all of them buffers."""

    packed: torch.Tensor
    scales: torch.Tensor
    offsets: torch.Tensor

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        rows, columns = linear.weight.shape
        self.register_buffer("packed", torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8))
        self.register_buffer("scales", torch.rand(rows, 1) / columns)
        self.register_buffer("offsets", torch.full((rows, 1), -8, dtype=torch.int8))
        self.bias = linear.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        both = torch.stack((self.packed & 15, self.packed >> 4), -1).flatten(1)
        weight = (both.to(torch.float32) + self.offsets) * self.scales
        return torch.nn.functional.linear(input, weight.to(input.dtype), self.bias)


def gguf_linear(linear: torch.nn.Linear, kind: gguf.GGMLQuantizationType) -> torch.nn.Module:
    """The layer as diffusers has it from a GGUF file."""
    made = GGUFLinear(linear.in_features, linear.out_features, linear.bias is not None, linear.weight.dtype)
    made.weight = GGUFParameter(torch.from_numpy(_quantised(linear.weight, kind)), quant_type=kind)
    made.bias = linear.bias
    return made


def _quantised(weight: torch.Tensor, kind: gguf.GGMLQuantizationType) -> Any:
    if kind not in _SCALES_AT:
        return gguf.quantize(weight.detach().float().numpy(), kind).copy()
    size, bytes_each = gguf.GGML_QUANT_SIZES[kind]
    blocks = torch.randint(0, 256, (weight.numel() // size, bytes_each), dtype=torch.uint8).numpy()
    for start in _SCALES_AT[kind]:
        blocks[:, start : start + _HALF] = numpy.frombuffer(numpy.float16(1e-3).tobytes(), numpy.uint8)
    return blocks.reshape(weight.shape[0], -1)


def _scaled(linear: torch.nn.Linear, *, buffers: bool) -> torch.nn.Module:
    made = ScaledLinear(linear.in_features, linear.out_features, device="meta")
    scale = linear.weight.detach().float().abs().amax(1, keepdim=True) / 448
    made.weight = torch.nn.Parameter((linear.weight / scale).to(torch.float8_e4m3fn), requires_grad=False)
    if buffers:
        made.register_buffer("weight_scale", scale)
    else:
        made.weight_scale = torch.nn.Parameter(scale, requires_grad=False)
    made.bias = linear.bias
    return made


def _by_torchao(name: str) -> Callable[[torch.nn.Linear], torch.nn.Module]:
    def make(linear: torch.nn.Linear) -> torch.nn.Module:
        quantization = pytest.importorskip("torchao.quantization", reason=_WITH_EXTRA)
        quantization.quantize_(linear, getattr(quantization, name)())
        return linear

    return make


def _by_comfy(layout: str) -> Callable[[torch.nn.Linear], torch.nn.Module]:
    def make(linear: torch.nn.Linear) -> torch.nn.Module:
        from comfy_kitchen.tensor import QuantizedTensor  # not installed everywhere

        weight = QuantizedTensor.from_float(linear.weight.detach(), layout)
        linear.weight = torch.nn.Parameter(weight, requires_grad=False)
        return linear

    return make


def _by_bitsandbytes(*, nested: bool) -> Callable[[torch.nn.Linear], torch.nn.Module]:
    def make(linear: torch.nn.Linear) -> torch.nn.Module:
        made = pytest.importorskip("bitsandbytes.nn", reason=_WITH_EXTRA).Linear4bit(
            linear.in_features, linear.out_features, linear.bias is not None, compute_dtype=linear.weight.dtype,
            compress_statistics=nested, quant_type="nf4",
        )  # fmt: skip
        made.load_state_dict(linear.state_dict())
        made.bias = linear.bias  # in the dtype that it had
        return made.to("cpu")  # which quantises

    return make


_WITH_EXTRA = "needs the extra quantised: make test-quantised"

PACKED: dict[str, Callable[[torch.nn.Linear], torch.nn.Module]] = {
    **{f"gguf {each.name}": partial(gguf_linear, kind=each) for each in (
        _Q.Q4_0, _Q.Q4_1, _Q.Q8_0, _Q.BF16, *_SCALES_AT,
    )},
    "float8, scale a parameter": lambda linear: _scaled(linear, buffers=False),
    "float8, scale a buffer": lambda linear: _scaled(linear, buffers=True),
    "nibbles": NibbleLinear,
    "torchao int8": _by_torchao("Int8WeightOnlyConfig"),
    "torchao float8": _by_torchao("Float8WeightOnlyConfig"),
    "torchao intx": _by_torchao("IntxWeightOnlyConfig"),
    "bitsandbytes nf4": _by_bitsandbytes(nested=False),
    "bitsandbytes nf4, nested": _by_bitsandbytes(nested=True),
}  # fmt: skip
if importlib.util.find_spec("comfy_kitchen") is not None:
    PACKED["comfy-kitchen float8"] = _by_comfy("TensorCoreFP8Layout")
    PACKED["comfy-kitchen mxfp8"] = _by_comfy("TensorCoreMXFP8Layout")

# One of each way in which a weight is made of tensors
WAYS = ("gguf Q4_0", "nibbles", "torchao int8", "bitsandbytes nf4, nested")


def pack(module: torch.nn.Module, kind: str, multiple: int = 32) -> int:
    """Packs all linear layers in ``module`` whose inputs come in such a multiple; says how many."""
    count = 0
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if type(child) is torch.nn.Linear and child.in_features % multiple == 0:
                setattr(part, name, PACKED[kind](child))
                count += 1
    return count


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.first, self.second = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return state + self.second(torch.tanh(self.first(self.norm(state))))


class Model(torch.nn.Module):
    """Fails in block ``fails_at``."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(WIDTH, WIDTH)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(blocks))
        self.fails_at: int | None = None

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        state = self.embed(state)
        for index, block in enumerate(self.blocks):
            state = block(state)
            if index == self.fails_at:
                raise RuntimeError("planted")
        return state


def packed_pipeline(kind: str, blocks: int = 5) -> Any:
    """A transformer of packed blocks, and a plain VAE."""
    torch.manual_seed(0)
    models = {"transformer": Model(blocks), "vae": Model(2)}
    for model in models.values():
        model.to(torch.bfloat16).eval().requires_grad_(False)
    pack(models["transformer"], kind)
    return SimpleNamespace(components=models, **models)


def state(seed: int = 1) -> torch.Tensor:
    return torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)
