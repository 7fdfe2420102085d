"""Stand-in tokenizers of encoders that look at pictures: their marks have the ids that the encoder's config has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from roost.profiles.published import load_published_model


def stand_in(name: str, folder: str, place: Path) -> PreTrainedTokenizerBase:
    for path, content in load_published_model(name).tokenizers.items():
        if path.startswith(f"{folder}/"):
            (place / Path(path).name).write_bytes(content)
    return AutoTokenizer.from_pretrained(place)


@pytest.mark.parametrize(
    ("name", "folder", "mark", "key"),
    [
        ("qwen-image-edit", "processor", "<|image_pad|>", "image_token_id"),
        ("qwen-image-edit-plus", "processor", "<|vision_start|>", "vision_start_token_id"),
        ("flux.2-dev", "tokenizer", "[IMG]", "image_token_index"),
    ],
)
def test_a_mark_has_the_id_that_stands_for_features(
    name: str, folder: str, mark: str, key: str, tmp_path: Path
) -> None:
    config = json.loads(load_published_model(name).documents["text_encoder/config.json"])
    tokens = stand_in(name, folder, tmp_path)
    assert tokens(f"fox{mark}fox").input_ids.count(config[key]) == 1


def test_a_chat_of_parts_becomes_as_many_tokens_as_asked(tmp_path: Path) -> None:
    """As FLUX.2's pipeline asks for it."""
    tokens = stand_in("flux.2-dev", "tokenizer", tmp_path)
    said = {"system": "You paint.", "user": "a red fox"}
    chat = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said.items()]
    made = tokens.apply_chat_template([chat], return_dict=True, padding="max_length", max_length=64, truncation=True)
    (ids,), (mask,) = made["input_ids"], made["attention_mask"]
    assert (len(ids), ids[0], mask[0], mask[-1]) == (64, tokens.pad_token_id, 0, 1)
    assert tokens.unk_token_id not in ids
    assert tokens.convert_ids_to_tokens(ids)[-4:] == ["f", "o", "x", "[/INST]"]


def test_gemma_pads_at_the_left(tmp_path: Path) -> None:
    tokens = stand_in("ltx-2", "tokenizer", tmp_path)
    ids = tokens("a fox", padding="max_length", max_length=16).input_ids
    assert (len(ids), ids[0]) == (16, tokens.pad_token_id)
    assert tokens.unk_token_id not in ids
