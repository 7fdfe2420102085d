"""Files of weights in place of a component's own: planned, and run by every strategy with the same bits."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")

import stored_weights
from given_files_matrix import FAMILIES, FORMATS, KEYS, is_wide, made_world
from given_files_runs import lora_of, others
from roost.api.models.inspect import inspect_model
from roost.facts.weight_formats import PLAIN_FORMATS, WEIGHT_FORMATS
from single_file_worlds import World

# The cells that are run each time; the others show nothing that one of these doesn't.
_SEEN = {
    ("wan2.1", "GGUF Q4_0"),
    ("qwen-image", "Comfy fp8 scaled, new"),
    ("sd3", "GGUF Q8_0"),
    ("sdxl", "Comfy fp8 scaled, old"),
    ("ltx", "fp8 cast"),
    ("sd3", "plain"),
    ("ltx", "Comfy int8"),
    ("qwen-image", "GGUF Q4_K"),
    ("ltx", "Comfy mxfp8"),
    ("sd3", "Comfy nvfp4"),
}
_SEEN_WITH_LORA = {("qwen-image", "GGUF Q4_0"), ("sdxl", "Comfy fp8 scaled, new")}
_WORLDS: dict[tuple[str, bool], World] = {}


def cells(seen: set[tuple[str, str]]) -> list[Any]:
    return [
        pytest.param(family, form, marks=() if (family, form) in seen else pytest.mark.slow)
        for family in FAMILIES
        for form in FORMATS
    ]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Any:
    def get(family: str, form: str) -> World:
        key = family, is_wide(form)
        if key not in _WORLDS:
            folder = tmp_path_factory.mktemp(family.replace(".", "-"))
            _WORLDS[key] = made_world(family, folder / "model", wide=key[1])
        return _WORLDS[key]

    yield get
    _WORLDS.clear()


def test_every_format_that_runs_is_in_the_table() -> None:
    run = {key for key, each in WEIGHT_FORMATS.items() if each.runs and key not in PLAIN_FORMATS}
    assert set(KEYS.values()) - PLAIN_FORMATS == run


@pytest.mark.dealt(5)
@pytest.mark.parametrize(("family", "form"), cells(_SEEN))
def test_every_strategy_has_the_bits_of_the_same_layers_without_roost(
    family: str, form: str, worlds: Any, tmp_path: Path
) -> None:
    made = worlds(family, form)
    assert others(family, made, FORMATS[form](made, family, tmp_path)) == []


@pytest.mark.dealt(2)
@pytest.mark.parametrize(("family", "form"), cells(_SEEN_WITH_LORA))
def test_a_lora_beside_such_layers_has_the_bits_of_diffusers_own(
    family: str, form: str, worlds: Any, tmp_path: Path
) -> None:
    pytest.importorskip("peft", reason="LoRAs need peft: pip install 'roost[lora]'")
    made = worlds(family, form)
    assert others(family, made, FORMATS[form](made, family, tmp_path), lora_of(family, made)) == []


def test_weights_do_not_load_at_the_dtype_of_the_only_component_that_is_the_directorys_own(
    worlds: Any, tmp_path: Path
) -> None:
    made = worlds("wan2.1", "plain")  # whose VAE is kept in float32, as its family's are
    halves = {name: each.bfloat16() for name, each in made.original.items()}
    file = stored_weights.write_safetensors(tmp_path / "t.safetensors", halves)
    encoder = made.folder / "text_encoder" / "model.safetensors"
    found = inspect_model(made.folder, files={"transformer": file, "text_encoder": encoder})
    assert {each.name: each.load_dtype for each in found.components} == {
        "transformer": "bfloat16",
        "text_encoder": "bfloat16",
        "vae": "float32",
    }
