"""Quantised weights are named from their headers, counted as stored, never run; plain casts count as loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from directories import dit_of, inspect, safetensors, weights, with_dit, write, write_pipeline
from roost.api.models.inspect import inspect_model
from roost.cli.app import app
from roost.errors import InvalidFile

N, K = 32, 32
FP8, CODES = ("F8_E4M3", (N, K)), ("U8", (N, K // 2))
SCALAR, ROWS = ("F32", ()), ("F32", (N,))
FORMATS = {
    "comfy-fp8-scaled": {"weight": FP8, "scale_weight": SCALAR, "scale_input": SCALAR},
    "comfy-quant fp8-scaled": {"weight": FP8, "weight_scale": SCALAR, "comfy_quant": ("U8", (30,))},
    "comfy-quant mxfp8": {"weight": FP8, "weight_scale": ("U8", (N, 1)), "comfy_quant": ("U8", (20,))},
    "comfy-quant nvfp4": {
        "weight": CODES, "weight_scale": ("F8_E4M3", (N, 2)), "weight_scale_2": SCALAR, "comfy_quant": ("U8", (20,)),
    },
    "comfy-quant int8": {"weight": ("I8", (N, K)), "weight_scale": SCALAR, "comfy_quant": ("U8", (20,))},
    "asym-w4a8-int8": {"weight": ("I8", (N, K // 2)), "weight_s_rel": FP8, "weight_s_channel": ROWS},
    "fp8-scaled": {"weight": FP8, "weight_scale": ROWS},
    "nvfp4": {"weight": CODES, "weight_scale": ("F8_E4M3", (N, 2)), "weight_scale_2": SCALAR, "input_scale": SCALAR},
    "bitsandbytes-nf4": {
        "weight": ("U8", (N * K // 2, 1)), "weight.absmax": ROWS, "weight.quant_map": ("F32", (16,)),
        "weight.quant_state.bitsandbytes__nf4": ("U8", (80,)),
    },
    "bitsandbytes-int8": {"weight": ("I8", (N, K)), "SCB": ROWS},
    "torchao": {"_weight_qdata": ("I8", (N, K)), "_weight_scale": ROWS},
    "quanto": {"weight._data": ("I8", (N, K)), "weight._scale": ROWS},
    "nunchaku-svdquant": {"qweight": ("I8", (N, K // 2)), "wscales": ROWS, "proj_down": ("BF16", (K, 8))},
    "gptq-or-awq": {"qweight": ("I32", (N, 4)), "qzeros": ("I32", (1, 4)), "scales": ("F16", (1, N))},
    "U8 codes": {"weight": CODES, "scale": ROWS, "zero_point": ROWS},
    "I8 codes": {"weight": ("I8", (N, K))},
}  # fmt: skip


def quantised(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, tuple[str, tuple[int, ...]]]:
    linears = {f"blocks.{index}.ff.{name}": each for index in range(2) for name, each in tensors.items()}
    return linears | {"norm.weight": ("BF16", (8,))}


@pytest.mark.parametrize("method", FORMATS)
def test_a_quantised_file_is_named_by_its_header_and_counted_as_stored(method: str, tmp_path: Path) -> None:
    component = dit_of(inspect(with_dit(tmp_path, quantised(FORMATS[method]))))
    assert (component.quantization, component.load_bytes) == (method, component.bytes)


@pytest.mark.parametrize(
    ("metadata", "method"),
    [
        ({"_quantization_metadata": json.dumps({"layers": {"a": {"format": "nvfp4"}}})}, "comfy-quant nvfp4"),
        ({"quant_format": "mxfp8"}, "comfy-quant mxfp8"),
        ({"_quantization_metadata": "{"}, "comfy-quant fp8-scaled"),
        ({"_quantization_metadata": json.dumps({"layers": [1]})}, "comfy-quant fp8-scaled"),
    ],
)
def test_a_files_metadata_names_the_format(metadata: dict[str, str], method: str, tmp_path: Path) -> None:
    with_dit(tmp_path, {})
    content = safetensors(quantised({"weight": FP8}), metadata)
    write(tmp_path / "transformer" / "diffusion_pytorch_model.safetensors", content)
    assert dit_of(inspect(tmp_path)).quantization == method


def test_the_marker_of_a_whole_file_is_enough(tmp_path: Path) -> None:
    marked = weights() | {"scaled_fp8": ("F8_E4M3", (0,))}
    assert dit_of(inspect(with_dit(tmp_path, marked))).quantization == "comfy-fp8-scaled"


def test_a_method_that_the_config_names_stands_over_what_the_header_shows(tmp_path: Path) -> None:
    with_dit(tmp_path, quantised(FORMATS["U8 codes"]))
    write(tmp_path / "transformer" / "config.json", {"quantization_config": {"quant_method": "sdnq"}})
    assert dit_of(inspect(tmp_path)).quantization == "sdnq"


def test_a_plain_cast_to_eight_bits_is_not_quantised(tmp_path: Path) -> None:
    tensors = weights(2, "F8_E4M3") | weights(2, "F8_E5M2", first=2) | {"norm.scale": ("F32", (8,))}
    component = dit_of(inspect(with_dit(tmp_path, tensors)))
    assert (component.quantization, component.load_bytes) == (None, 2 * (4 * 36 + 8))


def test_a_checkpoint_file_without_components_names_its_method_too(tmp_path: Path) -> None:
    tensors = {f"model.diffusion_model.{name}": each for name, each in quantised(FORMATS["comfy-fp8-scaled"]).items()}
    write(tmp_path / "all.safetensors", safetensors(tensors))
    assert [each.quantization for each in inspect_model(tmp_path).components] == ["comfy-fp8-scaled"]


def test_inspect_and_plan_say_the_method_of_each_component(tmp_path: Path) -> None:
    with_dit(tmp_path, quantised(FORMATS["nvfp4"]))
    plan = ["plan", str(tmp_path), "--gpu", "rtx-4090", "--ram", "32GiB", "--policy", "rules"]
    for command in (["inspect", str(tmp_path)], plan):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0
        said = " ".join(result.stdout.split())
        assert (
            "transformer is quantised (nvfp4): it is counted and planned as stored, and this version can't run" in said
        )
    document = json.loads(CliRunner().invoke(app, ["inspect", str(tmp_path), "--json"]).stdout)
    assert [(each["name"], each["runs"]) for each in document["components"]] == [("transformer", False)]


@pytest.mark.parametrize("entry", [["cosmos_guardrail", "CosmosSafetyChecker"], ["stable_diffusion", "OwnChecker"]])
@pytest.mark.parametrize("files", [("config.json",), ("config.json", "README.md"), ()])
def test_a_checker_that_holds_only_a_config_is_complete(
    entry: list[str], files: tuple[str, ...], tmp_path: Path
) -> None:
    with_dit(tmp_path, weights(), safety_checker=entry)
    for name in files:
        write(tmp_path / "safety_checker" / name, "{}")
    assert "safety_checker" in inspect_model(tmp_path).weightless


def test_a_checker_whose_class_has_weights_is_not_complete_without_them(tmp_path: Path) -> None:
    checker = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    write_pipeline(with_dit(tmp_path, weights()), {"transformer": ["diffusers", "X"], "safety_checker": checker})
    with pytest.raises(InvalidFile, match="safety_checker"):
        inspect_model(tmp_path)
