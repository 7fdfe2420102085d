"""Weight files that can't be what they are given as: one line that names the file and the tensor, and nothing else."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")

import torch

import stored_weights
from roost.errors import InvalidFile
from roost.facts.weight_files import WeightFile
from roost.pipelines.formats.modules import build_from_file
from single_file_worlds import World, matrices, recipe_of, scaled_fp8, stored, world

State = dict[str, torch.Tensor]
LAYER = "transformer_blocks.0.attn.to_q"
WEIGHT = f"{LAYER}.weight"
FP8 = torch.float8_e4m3fn


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world("qwen-image", tmp_path_factory.mktemp("qwen"))


def _fp8(state: State, scale: str = "weight_scale") -> State:
    """One layer scaled, and others plain."""
    values, factor = scaled_fp8(state[WEIGHT])
    return state | {WEIGHT: values, f"{LAYER}.{scale}": factor}


def _marked(state: State, marker: Any, packed: torch.Tensor | None = None, **scales: torch.Tensor) -> State:
    text = marker if isinstance(marker, bytes) else json.dumps(marker).encode()
    content = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    made = _fp8(state) | {f"{LAYER}.comfy_quant": content} | {f"{LAYER}.{name}": each for name, each in scales.items()}
    return made if packed is None else made | {WEIGHT: packed}


def _without(state: State, *names: str) -> State:
    return {name: each for name, each in state.items() if name not in names}


def _like(state: State, dtype: torch.dtype, columns: int = 0) -> torch.Tensor:
    rows, width = state[WEIGHT].shape
    return torch.zeros(rows, columns or width, dtype=dtype)


def _scale(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.ones(shape).to(dtype)


_E4 = {"format": "float8_e4m3fn"}
_INT8 = {"format": "int8_tensorwise"}
_CASES: dict[str, tuple[Callable[[State], State], str]] = {
    # Scales
    "a scale of whole numbers": (
        lambda s: _fp8(s) | {f"{LAYER}.weight_scale": _scale((), torch.int32)},
        "scales of no known method",
    ),
    "a scale of another number of rows": (lambda s: _fp8(s) | {f"{LAYER}.weight_scale": _scale((3,))}, "shape [3]"),
    "a scale of more rows": (lambda s: _fp8(s) | {f"{LAYER}.weight_scale": _scale((999, 1))}, "[999, 1]"),
    "a scale of blocks that don't divide": (lambda s: _fp8(s) | {f"{LAYER}.weight_scale": _scale((7, 3))}, "7x3"),
    "a scale of three dimensions": (lambda s: _fp8(s) | {f"{LAYER}.weight_scale": _scale((2, 2, 2))}, "[2, 2, 2]"),
    "an empty scale": (lambda s: _fp8(s) | {f"{LAYER}.weight_scale": _scale((0,))}, "shape [0]"),
    "no scale beside a marker": (lambda s: _without(_marked(s, _E4), f"{LAYER}.weight_scale"), "weight_scale"),
    "no scale where others have one": (lambda s: _fp8(s) | _other_fp8(s), "has no scale, and others"),
    "no scale in a file that says it is scaled": (
        lambda s: _other_fp8(s) | {"scaled_fp8": _scale((0,), FP8)},
        "has no scale",
    ),
    "a scale of no weight": (lambda s: s | {"gone.weight_scale": _scale(())}, "no gone.weight"),
    "an old scale of no weight": (lambda s: s | {"gone.scale_weight": _scale(())}, "no gone.weight"),
    "a scale beside a plain weight's bytes": (
        lambda s: s | {WEIGHT: _like(s, torch.int8), f"{LAYER}.weight_scale": _scale(())},
        "without a marker",
    ),
    # Packed dtypes that nothing explains
    "whole numbers alone": (lambda s: s | {WEIGHT: _like(s, torch.int8)}, "without the scales"),
    "bytes alone": (lambda s: s | {WEIGHT: _like(s, torch.uint8)}, "without the scales"),
    "half the bytes alone": (lambda s: s | {WEIGHT: _like(s, torch.uint8, 8)}, "without the scales"),
    "complex numbers": (lambda s: s | {WEIGHT: _like(s, torch.complex64)}, "C64"),
    # Markers
    "a marker of an unknown format": (lambda s: _marked(s, {"format": "int3_magic"}), "int3_magic"),
    "a marker of a format that isn't run": (lambda s: _marked(s, {"format": "convrot_w4a4"}), "convrot_w4a4"),
    "a marker without a format": (lambda s: _marked(s, {}), "names no format"),
    "a marker whose format is a number": (lambda s: _marked(s, {"format": 8}), "names no format"),
    "a marker whose format is a list": (lambda s: _marked(s, {"format": ["nvfp4"]}), "names no format"),
    "a marker that is a list": (lambda s: _marked(s, [1]), "must be an object"),
    "a marker that is no JSON": (lambda s: _marked(s, b"{format"), "isn't valid JSON"),
    "a marker of no UTF-8": (lambda s: _marked(s, b"\xff\xfe\x00"), "byte 0"),
    "a marker too deep": (lambda s: _marked(s, b"[" * 4000), "nested"),
    "a marker too long": (lambda s: _marked(s, b" " * 5000), "must be a short list of bytes"),
    "a marker of no weight": (lambda s: s | {"gone.comfy_quant": _scale((2,), torch.uint8)}, "gone"),
    "a marker of another dtype": (lambda s: _marked(s, _INT8), "F8_E4M3"),
    "a marker of a plain weight": (lambda s: _marked(s, _E4, s[WEIGHT]), "F32"),
    "a rotation that doesn't fit": (
        lambda s: _marked(s, _INT8 | {"convrot": True, "convrot_groupsize": 48}, _like(s, torch.int8)),
        "in groups of '48'",
    ),
    "a rotation wider than the weight": (
        lambda s: _marked(s, _INT8 | {"convrot": True}, _like(s, torch.int8)),
        "rotation by 256",
    ),
    "a rotation that is a word": (
        lambda s: _marked(s, _INT8 | {"convrot": True, "convrot_groupsize": "x"}, _like(s, torch.int8)),
        "in groups of 'x'",
    ),
    "mxfp8 with scales of floats": (lambda s: _marked(s, {"format": "mxfp8"}), "F32"),
    "mxfp8 with too few scales": (
        lambda s: _marked(s, {"format": "mxfp8"}, weight_scale=_scale((4, 4), torch.uint8)),
        "which mxfp8 hasn't",
    ),
    "nvfp4 without its second scale": (
        lambda s: _marked(s, {"format": "nvfp4"}, _like(s, torch.uint8, 16), weight_scale=_scale((128, 4), FP8)),
        "weight_scale_2",
    ),
    "nvfp4 with a second scale for each row": (
        lambda s: _marked(
            s,
            {"format": "nvfp4"},
            _like(s, torch.uint8, 16),
            weight_scale=_scale((128, 4), FP8),
            weight_scale_2=_scale((4,)),
        ),
        "a single number",
    ),
    "nvfp4 of fp8 weights": (lambda s: _marked(s, {"format": "nvfp4"}), "F8_E4M3"),
    "nvfp4 without a marker": (
        lambda s: (
            s
            | {
                WEIGHT: _like(s, torch.uint8, 16),
                f"{LAYER}.weight_scale": _scale((32, 2), FP8),
                f"{LAYER}.weight_scale_2": _scale(()),
            }
        ),
        "which doesn't say in which order",
    ),
    # Other loaders' files
    "bitsandbytes 4 bit": (lambda s: s | {f"{WEIGHT}.absmax": _scale((4,))}, "bitsandbytes"),
    "bitsandbytes 8 bit": (lambda s: s | {f"{LAYER}.SCB": _scale((4,))}, "bitsandbytes"),
    "torchao": (lambda s: s | {f"{LAYER}._weight_qdata": _scale((4,))}, "torchao"),
    "quanto": (lambda s: s | {f"{WEIGHT}._data": _scale((4,))}, "quanto"),
    "nunchaku": (lambda s: s | {f"{LAYER}.qweight": _scale((4,))}, "nunchaku"),
    "awq": (lambda s: _fp8(s) | {f"{LAYER}.pre_quant_scale": _scale((4,))}, "AWQ"),
    # Models
    "a missing tensor": (lambda s: _without(s, WEIGHT), WEIGHT),
    "no tensor at all": (lambda s: {"x": _scale((2,))}, "nothing for"),
    "another width": (lambda s: s | {WEIGHT: torch.zeros(16, 16)}, "16x16"),
    "another rank": (lambda s: s | {WEIGHT: torch.zeros(4)}, "shape 4"),
    "blocks beyond the config": (
        lambda s: s | {name.replace("blocks.0", "blocks.9"): each for name, each in s.items() if "blocks.0" in name},
        "blocks.9",
    ),
    "another family": (lambda s: {"double_blocks.0.img_attn.qkv.weight": _scale((6, 2))}, "nothing for"),
    "a text encoder": (lambda s: {"encoder.block.0.layer.0.SelfAttention.q.weight": _scale((6, 2))}, "nothing for"),
    "an all-in-one file without it": (
        lambda s: (
            {f"first_stage_model.{name}": each for name, each in s.items()}
            | {"conditioner.embedders.0.transformer.x": _scale((1,))}
        ),
        "none of its components",
    ),
    "half of the names with a prefix": (
        lambda s: {
            (f"model.diffusion_model.{name}" if index % 2 else name): each
            for index, (name, each) in enumerate(s.items())
        },
        "nothing for",
    ),
}


def _other_fp8(state: State) -> State:
    other = next(name for name in matrices(state) if name != WEIGHT)
    return {other: state[other].to(FP8)}


@pytest.mark.parametrize(("change", "words"), _CASES.values(), ids=_CASES)
def test_a_bad_file_is_refused_before_any_weight_is_read(
    change: Callable[[State], State], words: str, qwen: World, tmp_path: Path
) -> None:
    path = stored_weights.write_safetensors(tmp_path / "bad.safetensors", change(dict(qwen.original)))
    _assert_refused(lambda: recipe_of(qwen.at("bfloat16"), stored(path)), words)


_BAD_NUMBERS = {"no number": torch.nan, "infinite": torch.inf, "negative infinity": -torch.inf}


@pytest.mark.parametrize("value", _BAD_NUMBERS.values(), ids=_BAD_NUMBERS)
@pytest.mark.parametrize("shape", [(), (1,), "rows"])
def test_a_scale_that_is_no_number_is_refused_as_it_loads(
    value: float, shape: Any, qwen: World, tmp_path: Path
) -> None:
    state = _fp8(dict(qwen.original))
    rows = (state[WEIGHT].shape[0], 1)
    state[f"{LAYER}.weight_scale"] = torch.full(rows if shape == "rows" else shape, value)
    path = stored_weights.write_safetensors(tmp_path / "bad.safetensors", state)
    recipe = recipe_of(qwen.at("bfloat16"), stored(path))
    _assert_refused(lambda: build_from_file(qwen.at("bfloat16"), stored(path), recipe), f"{LAYER}.weight_scale")


_METADATA = ["{", "[]", '{"layers": 1}', '{"layers": {"x": 1}}', "[" * 5000]


@pytest.mark.parametrize("text", _METADATA)
def test_metadata_that_comfy_does_not_write_is_refused(text: str, qwen: World, tmp_path: Path) -> None:
    path = stored_weights.write_safetensors(
        tmp_path / "bad.safetensors", qwen.original, {"_quantization_metadata": text}
    )
    _assert_refused(lambda: recipe_of(qwen.at("bfloat16"), stored(path)), "_quantization_metadata")


@pytest.mark.parametrize("left", [0.1, 0.5, 0.99])
def test_a_file_cut_short_is_refused(left: float, qwen: World, tmp_path: Path) -> None:
    path = stored_weights.write_safetensors(tmp_path / "bad.safetensors", qwen.original)
    file = stored(path)
    cut = replace(file, file_bytes=int(file.file_bytes * left))
    _assert_refused(lambda: recipe_of(qwen.at("bfloat16"), cut), "interrupted download")


def test_a_file_that_changed_since_is_refused(qwen: World, tmp_path: Path) -> None:
    path = stored_weights.write_safetensors(tmp_path / "bad.safetensors", qwen.original)
    file = stored(path)
    recipe = recipe_of(qwen.at("bfloat16"), file)
    path.write_bytes(path.read_bytes()[:-8])
    _assert_refused(lambda: build_from_file(qwen.at("bfloat16"), file, recipe), "has changed")
    path.unlink()
    _assert_refused(lambda: build_from_file(qwen.at("bfloat16"), file, recipe), "can't be read")


@pytest.mark.parametrize("kind", ["IQ3_S", "TQ1_0", "MXFP4", "NVFP4", "IQ1_M", "Q8_1"])
def test_blocks_that_diffusers_cannot_decode_are_refused(kind: str, qwen: World, tmp_path: Path) -> None:
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", qwen.original)
    file = stored(path)
    tensors = dict(file.tensors) | {WEIGHT: replace(file.tensors[WEIGHT], format=kind)}
    _assert_refused(lambda: recipe_of(qwen.component, _gguf(file, tensors)), kind)


def test_blocks_are_not_cut_inside(tmp_path: Path) -> None:
    sd3 = world("sd3", tmp_path)
    path = stored_weights.write_safetensors(tmp_path / "m.safetensors", sd3.original)
    file, name = stored(path), "joint_blocks.0.x_block.attn.qkv.weight"
    tensors = dict(file.tensors) | {name: replace(file.tensors[name], format="Q4_K")}
    _assert_refused(lambda: recipe_of(sd3.component, _gguf(file, tensors)), "no whole blocks")


def test_scales_of_blocks_are_only_cut_between_them(tmp_path: Path) -> None:
    sd3 = world("sd3", tmp_path)
    name = "joint_blocks.0.x_block.attn.qkv"
    weight = sd3.original[f"{name}.weight"]
    for rows, fits in ((3, True), (2, False)):
        scale = torch.ones(rows, 1)
        state = sd3.original | {f"{name}.weight": weight.to(FP8), f"{name}.weight_scale": scale}
        path = stored_weights.write_safetensors(tmp_path / "m.safetensors", state)
        if fits:
            assert recipe_of(sd3.component, stored(path)).method == "scaled"
        else:
            _assert_refused(lambda path=path: recipe_of(sd3.component, stored(path)), "inside a block")


def _gguf(file: WeightFile, tensors: Any) -> WeightFile:
    return replace(file, container="gguf", tensors=tensors)


def _assert_refused(act: Callable[[], object], words: str) -> None:
    with pytest.raises(InvalidFile) as refused:
        act()
    message = str(refused.value)
    assert words in message, message
    assert "\n" not in message
    assert len(message) < 500
    assert ".safetensors" in message
