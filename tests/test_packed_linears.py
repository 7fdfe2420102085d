"""Packed layers mean what their formats define, and measure in a dry run what they compute with."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("diffusers")

import torch
from diffusers.models.modeling_utils import get_parameter_dtype

import stored_weights
from roost.pipelines.formats.arithmetic import (
    decode_mxfp8,
    decode_nvfp4,
    decode_scaled,
    rotation_matrix,
    unswizzled,
)
from roost.pipelines.formats.linears import CastLinear, MxFp8Linear, NvFp4Linear, ScaledLinear
from roost.pipelines.internals import of_diffusers
from roost.probes.dry_run.world import FakeWorld

kitchen = pytest.mark.skipif(
    importlib.util.find_spec("comfy_kitchen") is None, reason="comfy-kitchen, an optional oracle, isn't installed"
)


def _bytes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def _fp8(*shape: int) -> torch.Tensor:
    return (_bytes(*shape) & 0x77).view(torch.float8_e4m3fn)


def _layer(kind: type, packed: torch.Tensor, rows: int, columns: int, **scales: torch.Tensor) -> torch.nn.Module:
    made = kind(torch.nn.Linear(columns, rows), torch.bfloat16, packed)
    for name, each in scales.items():
        made.register_buffer(name, each)
    made.bias = torch.nn.Parameter(torch.zeros(rows, dtype=torch.bfloat16), requires_grad=False)
    return made


def _layers() -> dict[str, torch.nn.Module]:
    exponents, eighths = _bytes(128, 4) & 0x0F | 0x78, (_bytes(128, 4) & 0x37).view(torch.float8_e4m3fn)
    return {
        "cast": _layer(CastLinear, _fp8(64, 128), 64, 128),
        "tensor": _layer(ScaledLinear, _fp8(64, 128), 64, 128, weight_scale=torch.tensor(0.5)),
        "row": _layer(ScaledLinear, _fp8(64, 128), 64, 128, weight_scale=torch.rand(64, 1)),
        "block": _layer(ScaledLinear, _fp8(64, 128), 64, 128, weight_scale=torch.rand(2, 4)),
        "mxfp8": _layer(MxFp8Linear, _fp8(64, 128), 64, 128, weight_scale=exponents),
        "nvfp4": _layer(NvFp4Linear, _bytes(64, 32), 64, 64, weight_scale=eighths, weight_scale_2=torch.tensor(0.25)),
    }


@pytest.mark.parametrize("name", _layers())
def test_a_dry_run_sees_the_whole_decoded_weight(name: str) -> None:
    layer = _layers()[name]
    made = layer(torch.randn(3, layer.in_features, dtype=torch.bfloat16))
    assert _largest(layer) >= layer.out_features * layer.in_features * 2
    assert made.shape == (3, layer.out_features)
    assert made.isfinite().all()


@pytest.mark.parametrize("name", _layers())
def test_a_model_tells_the_dtype_that_it_computes_in(name: str) -> None:
    # FLUX.2's pipelines cast latents to it
    assert get_parameter_dtype(torch.nn.Sequential(_layers()[name])) == torch.bfloat16


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "Q4_K", "Q6_K", "IQ4_XS"])
def test_a_dry_run_sees_what_diffusers_decodes_of_blocks(kind: str) -> None:
    import gguf

    packed = torch.from_numpy(stored_weights.random_blocks(gguf.GGMLQuantizationType[kind], (32, 512)).copy())
    layer = of_diffusers.gguf_linear(torch.nn.Linear(512, 32).bfloat16(), torch.bfloat16, packed, kind)
    assert _largest(layer) >= 32 * 512 * 2


def _largest(layer: torch.nn.Module) -> int:
    """Bytes of the largest tensor that an operation of a forward without data makes."""
    sizes = [0]

    class Sizes:
        def record(self, func: object, args: object, kwargs: object, out: object) -> None:
            if isinstance(out, torch.Tensor):
                sizes.append(out.nbytes)

    world = FakeWorld(real_elements=16)
    with world:
        world.adopt(layer)
        world.observer = Sizes()
        out = layer(world.empty((3, layer.in_features), (layer.in_features, 1), torch.bfloat16))
    assert tuple(out.shape) == (3, layer.out_features)
    return max(sizes)


def test_scales_of_rows_and_blocks_are_those_of_their_values() -> None:
    values, rows, blocks = _fp8(6, 8), torch.rand(6, 1), torch.rand(3, 2)
    assert torch.equal(decode_scaled(values, rows), values.float() * rows)
    wanted = torch.stack(
        [torch.stack([values[r, c].float() * blocks[r // 2, c // 4] for c in range(8)]) for r in range(6)]
    )
    assert torch.equal(decode_scaled(values, blocks), wanted)
    whole_rows = torch.rand(3, 1)
    assert torch.equal(decode_scaled(values, whole_rows), values.float() * whole_rows.repeat_interleave(2, 0))


def test_blocks_of_128_may_end_early() -> None:
    values, scale = torch.ones(200, 130).to(torch.float8_e4m3fn), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    made = decode_scaled(values, scale)
    assert made[127, 127] == 1
    assert made[127, 129] == 2
    assert made[199, 0] == 3
    assert made[128, 128] == 4


@pytest.mark.parametrize("size", [4, 16, 64, 256])
def test_a_rotation_is_its_own_inverse(size: int) -> None:
    matrix = rotation_matrix(size, torch.device("cpu"))
    assert torch.equal(matrix, matrix.T)
    assert torch.allclose(matrix @ matrix, torch.eye(size), atol=1e-6)


def test_swizzled_scales_are_found_where_tiles_have_them() -> None:
    rows, columns = 300, 9
    plain = torch.arange(384 * 12).reshape(384, 12)
    tiles = plain.reshape(3, 4, 32, 3, 4).permute(0, 3, 2, 1, 4).reshape(384, 12)
    assert torch.equal(unswizzled(tiles, rows, columns), plain[:rows, :columns])


@kitchen
@pytest.mark.parametrize("shape", [(64, 128), (200, 160), (33, 65)])
def test_nvfp4_is_what_comfys_own_library_decodes(shape: tuple[int, int]) -> None:
    from comfy_kitchen.tensor import QuantizedTensor

    made = QuantizedTensor.from_float(torch.randn(shape), "TensorCoreNVFP4Layout")
    state = made.state_dict("w")
    values = decode_nvfp4(state["w"], state["w_scale"], state["w_scale_2"])
    assert torch.equal(values[: shape[0], : shape[1]], made.dequantize()[: shape[0], : shape[1]])


@kitchen
@pytest.mark.parametrize("shape", [(64, 128), (200, 160), (33, 65)])
def test_mxfp8_is_what_comfys_own_library_decodes(shape: tuple[int, int]) -> None:
    from comfy_kitchen.tensor import QuantizedTensor

    made = QuantizedTensor.from_float(torch.randn(shape), "TensorCoreMXFP8Layout")
    state = made.state_dict("w")
    values = decode_mxfp8(state["w"], state["w_scale"].view(torch.uint8))
    assert torch.equal(values[: shape[0], : shape[1]], made.dequantize()[: shape[0], : shape[1]])


@kitchen
@pytest.mark.parametrize("options", [{}, {"per_channel": True}, {"per_channel": True, "convrot": True}])
def test_int8_is_what_comfys_own_library_decodes(options: dict[str, bool]) -> None:
    from comfy_kitchen.tensor import QuantizedTensor

    made = QuantizedTensor.from_float(torch.randn(32, 512), "TensorWiseINT8Layout", **options)
    state = made.state_dict("w")
    values = decode_scaled(state["w"], state["w_scale"], 256 if options.get("convrot") else 0)
    assert torch.allclose(values, made.dequantize(), atol=1e-6)
    if not options.get("convrot"):
        assert torch.equal(values, made.dequantize())


@kitchen
def test_scaled_fp8_is_what_comfys_own_library_decodes_in_float32() -> None:
    from comfy_kitchen.tensor import QuantizedTensor

    made = QuantizedTensor.from_float(torch.randn(32, 512), "TensorCoreFP8Layout")
    state = made.state_dict("w")
    assert torch.equal(decode_scaled(state["w"], state["w_scale"]), made.dequantize())


def test_a_packed_layer_is_no_stranger_to_files(tmp_path: Path) -> None:
    layer = _layers()["row"]
    torch.save(layer.state_dict(), tmp_path / "layer")
    twin = _layers()["row"]
    twin.load_state_dict(torch.load(tmp_path / "layer"))
    assert torch.equal(twin.decoded(), layer.decoded())
