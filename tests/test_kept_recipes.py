"""A recipe survives as JSON, and planning with a kept one imports no library."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roost.api.models.files.kept_recipes import (
    read_recipe,
    recipe_from_document,
    recipe_key,
    recipe_to_document,
    write_recipe,
)
from roost.errors import InvalidFile
from roost.facts.model import ClassFacts
from roost.facts.weight_files import Piece, Recipe, Scale, StoredTensor, Strided, Target, WeightFile

_PIECES = (Piece(source="a", start=0, stop=2), Piece(source="a", start=3, stop=4, repeat=2))
_SCALE = Scale(
    name="weight_scale", shape=(4, 1), dtype="float32", pieces=(Piece(source="s", start=0, stop=1, repeat=4),)
)
RECIPE = Recipe(
    targets=(
        Target(name="x.weight", shape=(4, 4), dtype="float8_e4m3fn", bytes=32, format="F8_E4M3", pieces=_PIECES,
               method="scaled", packed=True, scales=(_SCALE,)),
        Target(name="y", shape=(4, 4), dtype="bfloat16", bytes=32, format="F32", pieces=_PIECES[:1],
               strided=Strided(size=(4, 4), stride=(1, 4), offset=0), add=-1.0),
    ),
    unused=("z",),
    method="scaled",
)  # fmt: skip
FILE = WeightFile(
    path="m",
    container="safetensors",
    tensors={
        name: StoredTensor(name=name, shape=shape, format="F8_E4M3", offset=0, bytes=16)
        for name, shape in (("a", (4, 4)), ("s", ()))
    },
    metadata={},
    sha256="0",
    file_bytes=100,
)


def test_a_recipe_comes_back_equal() -> None:
    assert recipe_from_document(json.loads(json.dumps(recipe_to_document(RECIPE)))) == RECIPE


def test_a_kept_recipe_is_found_by_its_key_alone(tmp_path: Path) -> None:
    write_recipe(tmp_path, "k", RECIPE)
    assert read_recipe(tmp_path, "k", FILE) == RECIPE
    assert read_recipe(tmp_path, "other", FILE) is None


def test_a_kept_recipe_that_does_not_fit_the_file_is_none(tmp_path: Path) -> None:
    write_recipe(tmp_path, "k", RECIPE)
    smaller = {"a": replace(FILE.tensors["a"], shape=(3, 4)), "s": FILE.tensors["s"]}
    assert read_recipe(tmp_path, "k", replace(FILE, tensors=smaller)) is None
    assert read_recipe(tmp_path, "k", replace(FILE, tensors={"a": FILE.tensors["a"]})) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"targets": 3}', "\0", '{"targets": [{}], "unused": [], "method": null}']
)
def test_a_kept_recipe_that_cannot_be_read_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "k.json").write_text(text)
    assert read_recipe(tmp_path, "k", FILE) is None


@pytest.mark.parametrize("change", [{"unused": [1]}, {"targets": None}, {"method": 3}, {"targets": [{"name": "x"}]}])
def test_another_document_is_refused_in_one_line(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidFile, match="not a recipe"):
        recipe_from_document(json.loads(json.dumps(recipe_to_document(RECIPE))) | change)


def test_whatever_decides_a_recipe_changes_its_key() -> None:
    given: dict[str, Any] = {"config": b"c", "facts": ClassFacts(), "asked": {"class": "A"}, "versions": {"torch": "1"}}
    changes: list[dict[str, Any]] = [
        {"config": b"d"},
        {"facts": ClassFacts(ignored=("x",))},
        {"asked": {"class": "B"}},
        {"versions": {"torch": "2"}},
    ]
    keys = {recipe_key(FILE, **given | change) for change in [{}, *changes]}
    keys.add(recipe_key(replace(FILE, sha256="1"), **given))
    assert len(keys) == 6
    assert recipe_key(FILE, **given) in keys


def test_no_library_is_imported_for_a_kept_recipe() -> None:
    code = (
        "import sys; import roost.api.models.files.kept_recipes, roost.pipelines.formats.parts,"
        " roost.pipelines.formats.quantised;"
        " print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
