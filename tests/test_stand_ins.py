"""A model whose tokenizers or scheduler are not there is planned with stand-ins, and that is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from roost import inspect_model, make_plan
from roost.api.models.published import write_model_directory
from roost.probes.model.components import lacking_file

GPU = {"gpu": "rtx-4090", "ram": "64GiB"}
NAME = "wan2.1-t2v-1.3b"  # of the published ones the quickest to dry-run


def lost(tmp_path: Path, name: str, *folders: str) -> Path:
    """The directory of a published model without these folders."""
    directory = tmp_path / name
    write_model_directory(name, directory, sparse=True)
    for folder in folders:
        shutil.rmtree(directory / folder)
    return directory


@pytest.mark.slow
def test_without_a_tokenizer_and_scheduler_the_prediction_is_the_published_models(tmp_path: Path) -> None:
    plan = make_plan(lost(tmp_path, NAME, "tokenizer", "scheduler"), **GPU)
    by_name = make_plan(NAME, **GPU)
    assert plan.trace.source == by_name.trace.source == "dry-run"
    assert plan.predicted == by_name.predicted
    for folder in ("tokenizer", "scheduler"):
        assert any(each.startswith(f"{folder} has no ") for each in plan.warnings)


@pytest.mark.slow
def test_a_scheduler_of_a_family_that_has_no_name_gets_its_classs_defaults(tmp_path: Path) -> None:
    directory = lost(tmp_path, NAME, "scheduler")
    index = json.loads((directory / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    (directory / "model_index.json").write_text(json.dumps(index))
    assert make_plan(directory, **GPU).trace.source == "dry-run"


def test_a_whole_directory_lacks_nothing(tmp_path: Path) -> None:
    inventory = inspect_model(lost(tmp_path, "sdxl"))
    assert inventory.bare == {}
    assert not any("stand-in" in each for each in inventory.warnings)


@pytest.mark.parametrize(
    ("class_name", "names", "lacks"),
    [
        ("T5TokenizerFast", {"tokenizer_config.json"}, "vocabulary"),
        ("T5TokenizerFast", {"spiece.model"}, None),
        ("CLIPTokenizer", {"vocab.json", "merges.txt"}, None),
        ("ByT5Tokenizer", set(), None),
        ("EulerDiscreteScheduler", set(), "scheduler_config.json"),
        ("CLIPImageProcessor", {"preprocessor_config.json"}, None),
        ("CLIPFeatureExtractor", set(), "preprocessor_config.json"),
        ("Qwen2VLProcessor", set(), None),
    ],
)
def test_what_a_folder_lacks(class_name: str, names: set[str], lacks: str | None) -> None:
    assert lacking_file(class_name, names) == lacks
