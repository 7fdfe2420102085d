"""Every quantised format from a file to a layer's values, through conversions that cut and join."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")

import json

import torch
from diffusers import AutoencoderKL, BFLQuantizationConfig, QwenImageTransformer2DModel

import original_layouts
import stored_weights
from roost.facts.weight_files import Piece, StoredTensor, WeightFile
from roost.pipelines.formats.arithmetic import decode_mxfp8, decode_nvfp4, decode_scaled
from roost.pipelines.formats.conversions.recording import Made
from roost.pipelines.formats.modules import build_from_file
from roost.pipelines.formats.quantised import Quantised
from roost.pipelines.formats.targets import Assembly, Place
from single_file_worlds import World, matrices, of_module, recipe_of, stored, world

State = dict[str, torch.Tensor]
FP8 = torch.float8_e4m3fn
_SHARED = "joint_blocks.0.x_block.attn.qkv"


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world("qwen-image", tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world("sd3", tmp_path_factory.mktemp("sd3"))


def _marker(**marker: Any) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(marker).encode()), dtype=torch.uint8)


def _random(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    values = torch.randint(0, 256, shape, dtype=torch.uint8)
    return (values & 0x77).view(FP8) if dtype == FP8 else values.view(dtype)


def _blocks(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    shape = (-(-rows // 128) * 128, -(-columns // 4) * 4)
    exponents = torch.randint(120, 130, shape, dtype=torch.uint8)
    return exponents if dtype == torch.uint8 else (exponents & 0x37).view(FP8)


def _formats(rows: int, columns: int) -> dict[str, tuple[State, torch.Tensor]]:
    """Each format's tensors of one layer, and what they mean."""
    found: dict[str, tuple[State, torch.Tensor]] = {}
    for name, dtype in (("float8_e4m3fn", FP8), ("int8_tensorwise", torch.int8), ("int8_blockwise", torch.int8)):
        scale = torch.rand(2, 2) if "block" in name else torch.rand(rows, 1)
        packed = _random((rows, columns), dtype)
        tensors = {"weight": packed, "weight_scale": scale, "comfy_quant": _marker(format=name)}
        found[name] = tensors, decode_scaled(packed, scale)
    packed, scale = _random((rows, columns), torch.int8), torch.rand(())
    marker = _marker(format="int8_tensorwise", convrot=True, convrot_groupsize=16)
    found["convrot"] = (
        {"weight": packed, "weight_scale": scale, "comfy_quant": marker},
        decode_scaled(packed, scale, 16),
    )
    high, wide = -(-rows // 32) * 32, -(-columns // 32) * 32
    packed, scale = _random((high, wide), FP8), _blocks(high, wide // 32, torch.uint8)
    found["mxfp8"] = (
        {"weight": packed, "weight_scale": scale, "comfy_quant": _marker(format="mxfp8")},
        decode_mxfp8(packed, scale)[:rows, :columns],
    )
    high, wide = -(-rows // 16) * 16, -(-columns // 16) * 16
    packed, scale = _random((high, wide // 2), torch.uint8), _blocks(high, wide // 16, FP8)
    tensors = {"weight": packed, "weight_scale": scale, "comfy_quant": _marker(format="nvfp4")}
    second = torch.tensor(0.125)
    found["nvfp4"] = tensors | {"weight_scale_2": second}, decode_nvfp4(packed, scale, second)[:rows, :columns]
    return found


_KINDS = ("float8_e4m3fn", "int8_tensorwise", "int8_blockwise", "convrot", "mxfp8", "nvfp4")


@pytest.mark.parametrize("kind", _KINDS)
def test_a_layers_values_are_those_of_its_format(kind: str, qwen: World, tmp_path: Path) -> None:
    names = matrices(qwen.original)[:5]
    state, wanted = dict(qwen.original), {}
    for name in names:
        base = name.removesuffix("weight")
        tensors, wanted[name] = _formats(*state[name].shape)[kind]
        state |= {base + part: each for part, each in tensors.items()}
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", state)
    made = qwen.load(stored(path), "bfloat16")
    for name in names:
        layer = made.get_submodule(name.removesuffix(".weight"))
        assert torch.equal(layer.decoded(), wanted[name].to(torch.bfloat16)), name


def test_markers_may_stand_in_the_metadata(qwen: World, tmp_path: Path) -> None:
    name = matrices(qwen.original)[0]
    base = name.removesuffix(".weight")
    tensors, wanted = _formats(*qwen.original[name].shape)["int8_tensorwise"]
    state = qwen.original | {f"{base}.{part}": each for part, each in tensors.items() if part != "comfy_quant"}
    layers = json.dumps({"format_version": "1.0", "layers": {base: {"format": "int8_tensorwise"}}})
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", state, {"_quantization_metadata": layers})
    made = qwen.load(stored(path), "bfloat16")
    assert torch.equal(made.get_submodule(base).decoded(), wanted.to(torch.bfloat16))


@pytest.mark.parametrize("scale", [torch.tensor(0.5), torch.rand(96), torch.rand(96, 1), torch.rand(3, 2)])
def test_scales_follow_the_rows_of_what_is_cut(scale: torch.Tensor, sd3: World, tmp_path: Path) -> None:
    weight = sd3.original[f"{_SHARED}.weight"]
    assert weight.shape == (96, 32)
    packed = _random((96, 32), FP8)
    marker = _marker(format="float8_e4m3fn")
    tensors = {"weight": packed, "weight_scale": scale, "comfy_quant": marker}
    state = sd3.original | {f"{_SHARED}.{part}": each for part, each in tensors.items()}
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", state)
    made = sd3.load(stored(path), "bfloat16")
    whole = decode_scaled(packed, scale).to(torch.bfloat16)
    for each, wanted in zip("qkv", whole.chunk(3), strict=True):
        assert torch.equal(made.get_submodule(f"transformer_blocks.0.attn.to_{each}").decoded(), wanted)


@pytest.mark.parametrize("four_bits", [False, True])
def test_bfls_layers_are_those_of_diffusers(four_bits: bool, sd3: World, tmp_path: Path) -> None:
    from diffusers.quantizers.bfl.utils import quantize_fp8r, quantize_nvfp4

    state = dict(sd3.original)
    for name in [each for each in matrices(state) if ".attn." in each or ".mlp." in each]:
        base = name.removesuffix("weight")
        if four_bits:
            state[name], state[f"{base}weight_scale"], state[f"{base}weight_scale_2"] = quantize_nvfp4(state[name])
            state[f"{base}input_scale"] = torch.tensor(0.5)
        else:
            state[name], state[f"{base}weight_scale"] = quantize_fp8r(state[name])
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", state)
    config = BFLQuantizationConfig(compute_dtype=torch.bfloat16)
    theirs = sd3.by_diffusers(path, "bfloat16", quantization_config=config)
    made = sd3.load(stored(path), "bfloat16")
    kinds = {type(each).__name__ for each in made.modules()}
    assert ("BFLNVFP4Linear" if four_bits else "BFLFP8RLinear") in kinds
    ours = made.state_dict()
    assert ours.keys() == theirs.keys()
    for name, each in ours.items():
        assert each.dtype == theirs[name].dtype
        assert torch.equal(_bytes(each), _bytes(theirs[name])), name


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).contiguous().view(torch.uint8)


def test_a_join_of_two_scaled_tensors_has_a_scale_for_each_row() -> None:
    def tensor(name: str, shape: tuple[int, ...], kind: str) -> StoredTensor:
        return StoredTensor(name=name, shape=shape, format=kind, offset=0, bytes=1)

    tensors = {each.name: each for each in (tensor("a", (2, 4), "F8_E4M3"), tensor("b", (3, 4), "F8_E4M3"))}
    scales = {each.name: each for each in (tensor("a.s", (), "F32"), tensor("b.s", (3, 1), "F32"))}
    file = WeightFile(path="m", container="safetensors", tensors=tensors | scales, metadata={}, sha256="", file_bytes=1)
    quantised = {
        name: Quantised(
            weight=each, shape=each.shape, method="scaled", kind=kind, scales={"weight_scale": scales[f"{name}.s"]}
        )
        for (name, each), kind in zip(tensors.items(), ("tensor", "row"), strict=True)
    }
    pieces = (Piece(source="a", start=0, stop=2), Piece(source="b", start=1, stop=3))
    place = Place("x.weight", (4, 4), torch.bfloat16, linear=True)
    target = Assembly(file, quantised).target(place, Made((4, 4), pieces, None))
    (scale,) = target.scales
    assert scale.shape == (4, 1)
    assert scale.pieces == (Piece(source="a.s", start=0, stop=1, repeat=2), Piece(source="b.s", start=1, stop=3))


@pytest.mark.slow
def test_each_part_of_an_all_in_one_file_is_found(tmp_path: Path) -> None:
    sdxl = world("sdxl", tmp_path)
    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
    )
    vae.save_config(tmp_path / "vae")
    state = {f"first_stage_model.{name}": each for name, each in original_layouts.vae(vae.state_dict(), 2).items()}
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", sdxl.original | state)
    for name, module in (("unet", sdxl.module), ("vae", vae)):
        component = of_module(name, module, tmp_path)
        recipe = recipe_of(component, stored(path))
        assert recipe.unused == ()
        made = build_from_file(component, stored(path), recipe).state_dict()
        assert made.keys() == module.state_dict().keys()
        assert all(torch.equal(each, module.state_dict()[name]) for name, each in made.items())


def test_a_matrix_whose_rows_are_no_whole_blocks_is_decoded_as_it_loads(tmp_path: Path) -> None:
    """As converters reshape what is too narrow, and note its true shape."""
    module = QwenImageTransformer2DModel(
        num_layers=1, attention_head_dim=24, num_attention_heads=2, joint_attention_dim=16
    )
    module.save_config(tmp_path / "transformer")
    state = dict(module.state_dict())
    name = "transformer_blocks.0.attn.to_q.weight"
    assert state[name].shape == (48, 48)
    state[name] = state[name].reshape(-1, 64)
    file = stored(stored_weights.write_gguf(tmp_path / "m.gguf", "qwen_image", state, {name: "Q8_0"}))
    tensors = dict(file.tensors) | {name: replace(file.tensors[name], shape=(48, 48))}
    file = replace(file, tensors=tensors)
    component = of_module("transformer", module, tmp_path)
    recipe = recipe_of(component, file)
    assert not any(each.packed for each in recipe.targets)
    made = build_from_file(component, file, recipe)
    assert torch.allclose(made.state_dict()[name], module.state_dict()[name], atol=2e-3)
    bare = build_from_file(component, file, recipe, with_data=False)
    assert recipe.bytes == sum(each.nbytes for each in bare.state_dict().values())


def test_a_recipe_counts_what_the_module_holds(qwen: World, tmp_path: Path) -> None:
    kinds = dict.fromkeys(matrices(qwen.original), "Q4_0")
    file = stored(stored_weights.write_gguf(tmp_path / "m.gguf", "qwen_image", qwen.original, kinds))
    recipe = recipe_of(qwen.at("bfloat16"), file)
    for with_data in (True, False):
        made = build_from_file(qwen.at("bfloat16"), file, recipe, with_data=with_data)
        assert recipe.bytes == sum(each.nbytes for each in made.state_dict().values())
