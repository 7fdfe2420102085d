"""What files hold is compared with what the library loads: bytes of plain 8-bit casts, names and shapes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dry_runs import tiny_directory, tiny_trace
from roost.api.models.inspect import inspect_model
from roost.api.models.tensors import check_tensors
from roost.errors import InvalidFile
from roost.pipelines.classes import component_class
from roost.profiles.published import model_names
from roost.trace import trace_from_json, trace_to_json

State = dict[str, torch.Tensor]
PROJECTION = "transformer_blocks.1.attn.to_q.weight"


def changed(family: str, folder: Path, component: str, change: Callable[[State], object]) -> Path:
    """A copy of the family's directory with one component's tensors changed."""
    model = folder / "model"
    shutil.copytree(tiny_directory(family), model)
    (file,) = (model / component).glob("*.safetensors")
    state = load_file(file)
    change(state)
    save_file(state, file, metadata={"format": "pt"})
    return model


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("component", ["transformer", "text_encoder", "vae"])
@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_cast_to_eight_bits_count_what_the_library_loads(
    stored: torch.dtype, component: str, dtype: str, tmp_path: Path
) -> None:
    def cast(state: State) -> None:
        state.update({name: each.to(stored) for name, each in state.items() if each.dim() > 1})

    model = changed("wan2.2", tmp_path, component, cast)
    counted = inspect_model(model, dtype=dtype).component(component)
    found: Any = component_class(counted.library, counted.class_name)
    loaded = found.from_pretrained(model / component, dtype=getattr(torch, dtype))
    assert counted.load_bytes == sum(each.nbytes for each in dict(loaded.named_parameters()).values())
    assert counted.quantization is None


@pytest.mark.parametrize("family", ["wan2.2", "flux", "qwen-image"])
def test_whole_models_hold_just_what_their_classes_take(family: str) -> None:
    inventory = inspect_model(tiny_directory(family))
    assert {each.component for each in tiny_trace(family).tensors} == {each.name for each in inventory.components}
    assert check_tensors(inventory, tiny_trace(family)) == ()
    assert inventory.warnings == ()


@pytest.mark.parametrize(
    ("component", "change", "words"),
    [
        ("transformer", lambda state: state.pop(PROJECTION), f"lack 1 tensor ({PROJECTION})"),
        ("text_encoder_2", lambda state: state.pop("encoder.final_layer_norm.weight"), "encoder.final_layer_norm"),
        ("vae", lambda state: state.update({"decoder.conv_in.bias": torch.zeros(3)}), "in another shape"),
    ],
)
def test_what_a_class_lacks_is_refused_as_it_is_planned(
    component: str, change: Callable[[State], object], words: str, tmp_path: Path
) -> None:
    inventory = inspect_model(changed("flux", tmp_path, component, change))
    with pytest.raises(InvalidFile) as refused:
        check_tensors(inventory, tiny_trace("flux"))
    assert words in str(refused.value)
    assert repr(component) in str(refused.value)


def test_what_no_class_takes_is_named(tmp_path: Path) -> None:
    more = {f"extra.{index}.weight": torch.zeros(2) for index in range(5)}
    inventory = inspect_model(changed("flux", tmp_path, "text_encoder", lambda state: state.update(more)))
    (warning,) = check_tensors(inventory, tiny_trace("flux"))
    assert (
        "text_encoder: its files hold 5 tensors (extra.0.weight, extra.1.weight, extra.2.weight and 2 more)" in warning
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop(PROJECTION), f"transformer lacks 1 tensor ({PROJECTION})"),
        (lambda state: state.update({"extra.weight": torch.zeros(2)}), "transformer holds 1 tensor (extra.weight)"),
    ],
)
def test_inspect_names_them_without_torch_where_models_of_the_class_are_known(
    change: Callable[[State], object], words: str, tmp_path: Path
) -> None:
    warnings = inspect_model(changed("flux", tmp_path, "transformer", change)).warnings
    assert [words in each for each in warnings] == [True]


@pytest.mark.parametrize("name", model_names())
def test_no_published_model_is_unusual(name: str) -> None:
    assert not any(" lacks " in each or " holds " in each for each in inspect_model(name).warnings)


def test_names_and_shapes_are_kept_with_the_trace() -> None:
    trace = tiny_trace("flux")
    assert trace_from_json(trace_to_json(trace)).tensors == trace.tensors
