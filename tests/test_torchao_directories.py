"""Directories with torchao's weights: sized and planned by their headers, run as stored with diffusers' bits."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torchao")

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import roost
from live_pipelines import live_pipeline
from roost.api.models.inspect import inspect_model, inspection_document
from roost.blocks import stacks_and_units
from roost.errors import InvalidFile, UsageError
from roost.pipelines.calls import GenerationRequest
from roost.pipelines.formats.packed_tensors import named_parts, stored_sizes
from roost.plan import PlanDocument
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.run.generate import generate
from roost.residency.run.loader import load_held
from tiny_loras import lora_file
from tiny_models import build, default_call
from torchao_directories import DYNAMIC, WEIGHT_ONLY, latents, loaded_by_diffusers, torchao_model

STRATEGIES = ("resident", "component-offload", "snapshot-offload", "layerwise-offload,resident_blocks=1")
Made = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Directories by family and config; not to be changed."""
    return functools.cache(lambda family, config: torchao_model(family, config, tmp_path_factory.mktemp("m") / family))


def planned(folder: Path, family: str, choice: str, **more: Any) -> PlanDocument:
    call = default_call(family)
    frames = {"frames": call["num_frames"]} if "num_frames" in call else {}
    size = (call["width"], call["height"])
    memory: dict[str, Any] = {"gpu": "emulated", "vram": "1GiB", "headroom": 0, "ram": "8GiB"}
    return roost.make_plan(folder, set=choice, size=size, steps=2, measured=False, **memory, **frames, **more)


CELLS = [
    pytest.param("flux", "Int8WeightOnlyConfig"),
    pytest.param("wan2.2", "Float8WeightOnlyConfig"),
    pytest.param("sd3", "IntxWeightOnlyConfig"),
    *(pytest.param("flux", each, marks=pytest.mark.slow) for each in WEIGHT_ONLY[1:]),
    *(pytest.param(each, WEIGHT_ONLY[0], marks=pytest.mark.slow) for each in ("qwen-image", "sdxl", "ltx", "wan2.2")),
]


@pytest.mark.parametrize(("family", "config"), CELLS)
def test_every_strategy_has_the_bits_of_diffusers_alone(family: str, config: str, made: Made) -> None:
    folder = made(family, config)
    right = latents(loaded_by_diffusers(folder), family)
    name = "unet" if family == "sdxl" else "transformer"
    for strategy in STRATEGIES:
        pipeline = roost.load_pipeline(planned(folder, family, f"{name}={strategy}"))
        assert torch.equal(latents(pipeline, family), right), strategy
        pipeline.roost.close()


@pytest.mark.parametrize("config", WEIGHT_ONLY)
def test_headers_say_the_bytes_and_the_blocks_that_the_loaded_model_has(config: str, made: Made) -> None:
    folder = made("flux", config)
    found = inspect_model(folder).component("transformer")
    module = loaded_by_diffusers(folder).transformer
    assert found.load_bytes == sum(part.nbytes for _, part in named_parts(module))
    assert (found.stacks, found.units) == stacks_and_units(stored_sizes(module))
    assert (found.quantization, found.load_dtype, found.stopped) == ("torchao", "bfloat16", None)
    document = json.loads(json.dumps(inspection_document(inspect_model(folder))))
    (component,) = (each for each in document["components"] if each["name"] == "transformer")
    form = "torchao-float8" if config.startswith("Float8") else "torchao-int8"
    assert component["runs"]
    assert component["quantization_detail"]["formats"][form]["tensors"] > 30
    assert document["warnings"] == []


def _surplus_bytes(folder: Path, strategy: str) -> tuple[int, int]:
    """By how much the denoiser's predicted peak exceeds what was counted, and what was."""
    plan = planned(folder, "flux", f"transformer={strategy}")
    assert plan.predicted is not None
    assert plan.predicted.source == "dry-run"
    foreseen = {each.component: each.peak_bytes for each in plan.predicted.stages}
    device = EmulatedDevice(plan.predicted.peak_bytes.high, count_activations=True)
    said = ("width", "height", "num_inference_steps")
    more = {key: value for key, value in default_call("flux").items() if key in said}
    with torch.no_grad(), device, load_held(plan, folder, device) as held:
        request = GenerationRequest(prompt="a fox", more=more)
        peaks = {each.component: each.peak_bytes for each in generate(held, request).stages}
        assert held.changes == []
        for stage in plan.budget.stages:
            assert {each: held.runtime.components[each].stage_bytes for each in stage.components} == stage.components
    return foreseen["transformer"] - peaks["transformer"], peaks["transformer"]


@pytest.mark.parametrize("config", WEIGHT_ONLY)
@pytest.mark.parametrize("strategy", ["resident", "layerwise-offload,resident_blocks=1"])
def test_the_peak_with_dequantised_weights_is_foreseen_as_exactly_as_that_of_plain_ones(
    config: str, strategy: str, made: Made, tmp_path: Path
) -> None:
    plain = _surplus_bytes(
        build("flux", tmp_path, torch.bfloat16), strategy
    )  # latents, which the pipeline itself keeps
    packed = _surplus_bytes(made("flux", config), strategy)
    assert packed[0] == pytest.approx(plain[0], abs=1024)
    assert packed[1] < plain[1]


def test_a_lora_goes_beside_the_weights_with_the_bits_of_diffusers(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRAs need peft: pip install 'roost[lora]'")
    folder, file = made("flux", WEIGHT_ONLY[0]), tmp_path / "one.safetensors"
    lora_file(file, live_pipeline("flux"), {"transformer": ("to_q", "to_v")})
    by_diffusers = loaded_by_diffusers(folder)
    without = latents(by_diffusers, "flux")
    by_diffusers.load_lora_weights(tmp_path, weight_name=file.name)
    right = latents(by_diffusers, "flux")
    assert not torch.equal(right, without)
    for strategy in ("resident", "layerwise-offload,resident_blocks=1"):
        plan = planned(folder, "flux", f"transformer={strategy}", lora=str(file))
        assert [(each.component, each.fused) for each in plan.loras] == [("transformer", False)]
        pipeline = roost.load_pipeline(plan)
        assert torch.equal(latents(pipeline, "flux"), right), strategy
        pipeline.roost.close()


def test_a_layer_of_a_list_is_no_block_of_parts() -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    layers = torch.nn.ModuleDict({"maps": torch.nn.ModuleList(torch.nn.Linear(32, 32) for _ in range(3))})
    quantize_(layers.to(torch.bfloat16), Int8WeightOnlyConfig())
    assert stacks_and_units(stored_sizes(layers)) == ((), ())


def test_quantised_activations_are_refused_in_a_line_that_says_what_would_work(made: Made) -> None:
    folder = made("flux", DYNAMIC)
    found = inspect_model(folder)
    assert "weight-only" in str(found.component("transformer").stopped)
    assert [each for each in found.warnings if "weight-only" in each]
    plan = planned(folder, "flux", "transformer=resident")
    with pytest.raises(UsageError, match=r"torchao.*weight-only"):
        roost.load_pipeline(plan)


def test_another_dtype_than_that_of_the_weights_is_refused(made: Made) -> None:
    with pytest.raises(UsageError, match="torchao for bfloat16"):
        inspect_model(made("flux", WEIGHT_ONLY[0]), dtype="float32")


def _with_metadata(folder: Path, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    (file,) = (folder / "transformer").glob("*.safetensors")
    with safe_open(file, "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # no mapping
        metadata = change(dict(stored.metadata()))
    save_file(tensors, file, metadata=metadata)


WEIGHT = "transformer_blocks.0.attn.to_q.weight"
CHANGED: dict[str, Callable[[dict[str, str]], dict[str, str]]] = {
    "none": lambda said: {"format": "pt"},
    "one weight unsaid": lambda said: {key: value for key, value in said.items() if key != WEIGHT},
    "no JSON": lambda said: said | {WEIGHT: "{"},
    "a list": lambda said: said | {WEIGHT: "[]"},
    "two dtypes": lambda said: said | {WEIGHT: said[WEIGHT].replace("bfloat16", "float16")},
}


@pytest.mark.parametrize("change", CHANGED)
def test_metadata_that_torchao_could_not_read_are_refused(change: str, made: Made, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made("flux", WEIGHT_ONLY[0]), tmp_path / "m"))
    _with_metadata(folder, CHANGED[change])
    with pytest.raises(InvalidFile, match="transformer"):
        inspect_model(folder)


STOPPED: dict[str, Callable[[dict[str, str]], dict[str, str]]] = {
    "a class that nobody knows": lambda said: said | {WEIGHT: said[WEIGHT].replace("Int8Tensor", "EvilTensor")},
    "no dtype": lambda said: said | {WEIGHT: said[WEIGHT].replace("bfloat16", "load")},
    "other settings": lambda said: (
        said | {WEIGHT: said[WEIGHT].replace('"reduce_range": false', '"x": {"_type": "a"}')}
    ),
}


@pytest.mark.parametrize("change", STOPPED)
def test_weights_of_other_classes_are_planned_and_never_loaded(change: str, made: Made, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made("flux", WEIGHT_ONLY[0]), tmp_path / "m"))
    _with_metadata(folder, STOPPED[change])
    assert "weight-only" in str(inspect_model(folder).component("transformer").stopped)


@pytest.mark.parametrize("word", ["quantize_", "Int4WeightOnlyConfig", "PerRow"])
def test_a_config_that_names_other_things_of_torchao_is_never_loaded(word: str, made: Made, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made("flux", WEIGHT_ONLY[0]), tmp_path / "m"))
    config = folder / "transformer" / "config.json"
    config.write_text(config.read_text().replace("Int8WeightOnlyConfig", word))
    assert "weight-only" in str(inspect_model(folder).component("transformer").stopped)
