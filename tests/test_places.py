"""A model by name, all of whose weights are files: run from its packaged configs and someone's tokenizers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")

import gguf
import torch
from safetensors.torch import load_file
from transformers import T5TokenizerFast

import roost
import stored_weights
import tiny_models
from checkpoints import published_of
from roost.api.models.files import bases
from roost.api.requests.run_option_sets import BaseOptions
from roost.api.runs.places import place_of
from roost.errors import UsageError
from roost.facts.model import PublishedModel
from roost.plan import PlanDocument

FAMILY = "wan2.2-t2v-a14b"
PARTS = ("transformer", "transformer_2", "text_encoder", "vae")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build("wan2.2", tmp_path_factory.mktemp("wan"))


@pytest.fixture
def published(model: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedModel:
    """The tiny model in the place of the one of that name."""
    made = published_of(model, FAMILY)
    monkeypatch.setattr(bases, "load_published_model", lambda name: made)
    return made


def _files(model: Path) -> dict[str, str]:
    return {name: str(next((model / name).glob("*.safetensors"))) for name in PARTS}


def _plan(target: str | Path, files: dict[str, str]) -> PlanDocument:
    return roost.make_plan(
        target, gpu="emulated", vram="1GiB", headroom=0, size=(64, 64), frames=9, steps=2, dtype="float32",
        policy="rules", measured=False, files=files,
    )  # fmt: skip


def _video(plan: PlanDocument, **place: str) -> torch.Tensor:
    pipeline = roost.load_pipeline(plan, **place)
    try:
        call: dict[str, Any] = tiny_models.default_call("wan2.2") | {"output_type": "latent"}
        found: torch.Tensor = pipeline(**call, generator=torch.Generator("cpu").manual_seed(0))[0]
        return found
    finally:
        pipeline.roost.close()


def test_files_and_tokenizers_make_what_the_whole_directory_makes(
    model: Path, published: PublishedModel, tmp_path: Path
) -> None:
    plan = _plan(FAMILY, _files(model))
    assert plan.model.source == "name"
    shutil.copytree(model / "tokenizer", tmp_path / "mine" / "tokenizer")
    made = _video(plan, tokenizers=str(tmp_path / "mine"))
    whole = _plan(model, {})
    assert torch.equal(made, _video(whole, model=str(model)))
    with pytest.raises(UsageError, match="is for a model known by its name"):
        roost.load_pipeline(whole, tokenizers=str(tmp_path / "mine"))


def test_the_only_tokenizer_may_lie_in_the_folder_itself(model: Path, published: PublishedModel) -> None:
    place = place_of(_plan(FAMILY, _files(model)), BaseOptions(tokenizers=str(model / "tokenizer")))
    assert place is not None
    assert json.loads((Path(place) / "model_index.json").read_text())["_class_name"] == "WanPipeline"
    assert {each.name for each in (Path(place) / "tokenizer").iterdir()} == {
        each.name for each in (model / "tokenizer").iterdir()
    }


def test_what_no_file_gives_is_named_with_its_public_source(model: Path, published: PublishedModel) -> None:
    files = _files(model)
    vae = files.pop("vae")
    with pytest.raises(UsageError, match=r"no weights for vae \(.*someone/tiny.*files={'vae': 'PATH'}"):
        place_of(_plan(FAMILY, files), BaseOptions())
    with pytest.raises(UsageError, match=r"tokenizer files of tokenizer/ .*as someone/tiny has, with tokenizers='DIR'"):
        place_of(_plan(FAMILY, {**files, "vae": vae}), BaseOptions())
    with pytest.raises(UsageError, match="there are none in"):
        place_of(_plan(FAMILY, {**files, "vae": vae}), BaseOptions(tokenizers=str(model / "vae")))


def test_a_text_encoders_file_may_carry_its_vocabulary(model: Path, published: PublishedModel, tmp_path: Path) -> None:
    files = _files(model)
    words = torch.arange(200, dtype=torch.uint8)
    carried = stored_weights.write_safetensors(
        tmp_path / "encoder.safetensors", {**load_file(files["text_encoder"]), "spiece_model": words}
    )
    place = place_of(_plan(FAMILY, {**files, "text_encoder": str(carried)}), BaseOptions())
    assert place is not None
    assert (Path(place) / "tokenizer" / "spiece.model").read_bytes() == bytes(range(200))


def test_a_ggufs_own_vocabulary_is_the_models_tokenizer(model: Path, published: PublishedModel, tmp_path: Path) -> None:
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5, 8)
    state = {
        table.get_name(name, try_suffixes=(".weight",)): each
        for name, each in load_file(_files(model)["text_encoder"]).items()
        if name != "encoder.embed_tokens.weight"
    }
    words = ["<pad>", "</s>", "<unk>", "\u2581fox"]
    keys = {"model": "t5", "tokens": words, "scores": [0.0] * 4, "token_type": [3, 3, 2, 1]}

    def place(keys: stored_weights.Keys) -> str | None:
        carried = stored_weights.write_gguf(tmp_path / "encoder.gguf", "t5encoder", state, {}, keys)
        return place_of(_plan(FAMILY, {**_files(model), "text_encoder": str(carried)}), BaseOptions())

    tokenizer = T5TokenizerFast.from_pretrained(Path(place(keys) or "") / "tokenizer")
    assert tokenizer("fox <unk>").input_ids == [3, 2, 1]
    with pytest.raises(UsageError, match=r"there are none \(the vocabulary in \S+encoder.gguf'? isn't whole\): give"):
        place({**keys, "scores": [0.0]})
