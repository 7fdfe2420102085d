"""Command lines that give components files which can't be theirs, and what the one line about each has to say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

import stored_weights
from given_files_matrix import FORMATS, made_world
from given_files_runs import lora_of
from quantised_files import LINEARS, of_linears
from single_file_worlds import State, World, scaled_fp8

FAMILY, OTHER = "qwen-image", "sdxl"
_LAYER = "transformer_blocks.0.attn.to_q"
_STOPPING = (
    *("convrot_w4a4", "asym_w4a8_int8", "nvfp4-unmarked", "mxfp8-unmarked", "int8-unmarked", "fp8-scale-inv"),
    *("bitsandbytes-nf4", "bitsandbytes-fp4", "bitsandbytes-int8", "quanto", "nunchaku-svdquant", "gptq-or-awq"),
    *("modelopt", "sdnq"),
)


def write_disk(folder: Path) -> None:
    """Two tiny models ``base`` and ``other``, bases that lack something, and files of every wrong kind."""
    made, other = made_world(FAMILY, folder / "base"), made_world(OTHER, folder / "other")
    for form, name in {"plain": "plain", "GGUF Q8_0": "good"}.items():
        written = FORMATS[form](made, FAMILY, folder)
        written.rename(folder / f"{name}{written.suffix}")
    FORMATS["GGUF Q4_0"](other, OTHER, folder).rename(folder / "other.gguf")
    lora_of(FAMILY, made).rename(folder / "lora.safetensors")
    _write_broken(folder, made)
    for key in _STOPPING:
        assert key in LINEARS
        (folder / f"{key}.safetensors").write_bytes(of_linears(key))
    for name, gone in {"no-config": "transformer/config.json", "no-index": "model_index.json"}.items():
        shutil.copytree(folder / "base", folder / name)
        (folder / name / gone).unlink()
    (folder / "folder.gguf").mkdir()
    (folder / "to-nowhere.gguf").symlink_to(folder / "nowhere")
    (folder / "pickled.ckpt").write_bytes(b"\x80\x02}q\x00.")
    (folder / "text.gguf").write_text("not found")
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "spaces in its name.txt").write_bytes((folder / "good.gguf").read_bytes()[:40])


def _write_broken(folder: Path, made: World) -> None:
    plain, gguf = (folder / "plain.safetensors").read_bytes(), (folder / "good.gguf").read_bytes()
    for cut, name in {0.1: "tenth", 0.5: "half", 0.999: "nearly"}.items():
        (folder / f"{name}.safetensors").write_bytes(plain[: int(len(plain) * cut)])
        (folder / f"{name}.gguf").write_bytes(gguf[: int(len(gguf) * cut)])
    (folder / "version.gguf").write_bytes(gguf[:4] + (9).to_bytes(4, "little") + gguf[8:])
    (folder / "longer.safetensors").write_bytes(plain + b"more")
    states: dict[str, State] = {
        "lacks": {name: each for name, each in made.original.items() if name != f"{_LAYER}.weight"},
        "narrow": {**made.original, f"{_LAYER}.weight": torch.zeros(3, 3)},
        "integers": {**made.original, f"{_LAYER}.weight": torch.zeros(3, 3, dtype=torch.int32)},
        "mixed": {f"model.diffusion_model.{name}" if "block" in name else name: e for name, e in made.original.items()},
        "codes": {**made.original, f"{_LAYER}.weight": made.original[f"{_LAYER}.weight"].to(torch.int8)},
        "scale-shape": _scaled(made, torch.ones(7)),
        "scale-dtype": _scaled(made, torch.ones((), dtype=torch.int32)),
        "marker-text": {**_scaled(made, torch.ones(())), f"{_LAYER}.comfy_quant": _bytes(b"{")},
        "marker-word": {**_scaled(made, torch.ones(())), f"{_LAYER}.comfy_quant": _bytes(b'{"format": "new8"}')},
        "marker-other": {**_scaled(made, torch.ones(())), f"{_LAYER}.comfy_quant": _bytes(b'{"format": "nvfp4"}')},
    }
    for name, state in states.items():
        stored_weights.write_safetensors(folder / f"{name}.safetensors", state)
    notes = {"_quantization_metadata": json.dumps({"layers": []})}
    stored_weights.write_safetensors(folder / "metadata.safetensors", dict(made.original), notes)


def _scaled(made: World, scale: torch.Tensor) -> State:
    values, _ = scaled_fp8(made.original[f"{_LAYER}.weight"])
    return {**made.original, f"{_LAYER}.weight": values, f"{_LAYER}.weight_scale": scale}


def _bytes(text: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def _given(path: str) -> str:
    return f"base --file transformer={path}"


# What is typed after the command -> (what the line has to say).
GIVEN: dict[str, str] = {
    # Files that are no files of weights.
    _given("nowhere.gguf"): "can't be opened",
    _given("nowhere/else.gguf"): "can't be opened",
    _given("good.gguf/inside"): "can't be opened",
    _given("folder.gguf"): "is a directory",
    _given("."): "is a directory",
    _given("base"): "is a directory",
    _given("to-nowhere.gguf"): "can't be opened",
    _given("/dev/null"): "not a regular file",
    _given("pickled.ckpt"): "pickled.ckpt",
    _given("text.gguf"): "text.gguf",
    _given("empty.safetensors"): "empty.safetensors",
    _given("base/model_index.json"): "model_index.json",
    _given("'spaces in its name.txt'"): "spaces in its name.txt",
    # Broken ones.
    _given("tenth.safetensors"): "tenth.safetensors",
    _given("half.safetensors"): "interrupted download",
    _given("nearly.safetensors"): "interrupted download",
    _given("tenth.gguf"): "tenth.gguf",
    _given("half.gguf"): "interrupted download",
    _given("nearly.gguf"): "interrupted download",
    _given("version.gguf"): "version.gguf",
    _given("longer.safetensors"): "longer.safetensors",
    _given("lacks.safetensors"): "transformer_blocks.0.attn.to_q.weight",
    _given("narrow.safetensors"): "transformer_blocks.0.attn.to_q.weight",
    _given("integers.safetensors"): "transformer_blocks.0.attn.to_q.weight",
    _given("mixed.safetensors"): "mixed.safetensors",
    _given("codes.safetensors"): "transformer_blocks.0.attn.to_q.weight",
    _given("scale-shape.safetensors"): "transformer_blocks.0.attn.to_q.weight_scale",
    _given("scale-dtype.safetensors"): "transformer_blocks.0.attn.to_q",
    _given("marker-text.safetensors"): "isn't valid JSON",
    _given("marker-word.safetensors"): "new8",
    _given("marker-other.safetensors"): "nvfp4",
    _given("metadata.safetensors"): "_quantization_metadata",
    # Others'.
    _given("other.gguf"): "it is a unet of",
    _given("lora.safetensors"): "it is a LoRA; give it with --lora",
    _given("base/vae/diffusion_pytorch_model.safetensors"): "is no transformer of this model",
    _given("base/text_encoder/model.safetensors"): "is no transformer of this model",
    "base --file vae=good.gguf": "give it with --file transformer=good.gguf",
    "base --vae good.gguf": "give it with --file transformer=good.gguf",
    "base --file text_encoder=good.gguf": "give it with --file transformer=good.gguf",
    "base --file text_encoder=other.gguf": "it is a unet of",
    "base --file text_encoder=lora.safetensors": "it is a LoRA",
    "base --file vae=lora.safetensors": "it is a LoRA",
    "other --file unet=good.gguf": "it is a transformer of qwen-image",
    "other --file unet=lora.safetensors": "it is a LoRA",
    "other --file text_encoder_2=other.gguf": "give it with --file unet=other.gguf",
    # What is typed.
    "base --file good.gguf": "names no component",
    "base --file =good.gguf": "names no component",
    "base --file transformer=": "names no file",
    "base --file ''": "names no component",
    "base --file 1transformer=good.gguf": "names no component",
    "base --file unet=good.gguf": "the model has no component",
    "base --unet good.gguf": "the model has no component",
    "base --transformer-2 good.gguf": "the model has no component",
    "base --file TRANSFORMER=good.gguf": "the model has no component",
    "base --file tokenizer=good.gguf": "which has no weights",
    "base --file scheduler=good.gguf": "which has no weights",
    "base --file transformer=good.gguf --file transformer=plain.safetensors": "two files are given",
    "base --file transformer=good.gguf --transformer plain.safetensors": "two files are given",
    # What they are put into.
    "no-config --file transformer=good.gguf": "config.json is missing",
    "no-index --file transformer=good.gguf": "no-index",
    "nowhere --file transformer=good.gguf": "nowhere",
    "good.gguf": "holds one component alone",
    "good.gguf --transformer good.gguf": "holds one component alone",
    "lora.safetensors": "lora.safetensors",
    "half.gguf": "interrupted download",
    "text.gguf": "text.gguf",
    "qwen-image --file transformer=good.gguf": "good.gguf",
    "flux.1-dev --file transformer=good.gguf": "it is a transformer of qwen-image",
    "flux.1-dev --file text_encoder_3=good.gguf": "the model has no component",
    "sdxl --file unet=other.gguf": "other.gguf",
    **{_given(f"{key}.safetensors"): "what would work" for key in _STOPPING},
}
