"""What is there in place of a model is named, with the remedy, instead of a guess at an interrupted download."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from directories import DIT, ENCODER, SINGLE, VAE, inspect, safetensors, weights, write, write_pipeline
from roost.cli.app import run
from roost.errors import InvalidFile

STEM = "diffusion_pytorch_model"
BODY = safetensors(weights())
GUESS = "nterrupted"
PICKLE = b"\x80\x02}q\x00."
ZIP = b"PK\x03\x04" + bytes(22) + (16).to_bytes(2, "little") + b"\0\0archive/data.pkl"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def named(*names: str) -> bytes:
    return safetensors(dict.fromkeys(names, ("BF16", (2, 2))))


LORA = named("transformer.blocks.0.attn.lora_A.weight", "transformer.blocks.0.attn.lora_B.weight")
FLUX = named("model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale")
XL_SIGN = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"
XL = named("model.diffusion_model.input_blocks.0.0.weight", XL_SIGN, "first_stage_model.decoder.conv_in.weight")

# What the transformer's folder holds, and what the message must say.
FOLDERS: dict[str, tuple[dict[str, bytes], list[str]]] = {
    "one variant": ({f"{STEM}.fp16.safetensors": BODY}, ["only files of the variant fp16", "Give variant='fp16'"]),
    "two variants": (
        {f"{STEM}.bf16.safetensors": BODY, f"{STEM}.fp16.safetensors": BODY},
        ["Give variant='bf16' or variant='fp16'"],
    ),
    "a pickled variant": ({f"{STEM}.fp16.bin": PICKLE}, ["Give variant='fp16'"]),
    "a GGUF": ({"flux1-dev-Q4_K_S.gguf": b"GGUF\3\0\0\0"}, ["a GGUF file", "flux1-dev-Q4_K_S.gguf"]),
    "a .pt": ({f"{STEM}.pt": ZIP}, ["only pickles", "convert them"]),
    "a .ckpt": ({"model.ckpt": PICKLE}, ["only pickles", "model.ckpt"]),
    "the other library's name": ({"model.safetensors": BODY}, [f"Rename it to {SINGLE}"]),
    "the other library's pickle": ({"pytorch_model.bin": PICKLE}, ["only pickles"]),
    "its own name": ({"flux1-dev.safetensors": BODY}, ["flux1-dev.safetensors", f"looks for {SINGLE}"]),
    "the authors' file": ({"flux1-dev.safetensors": FLUX}, ["denoiser of FLUX.1", "from_single_file"]),
    "a LoRA": ({"style.safetensors": LORA}, ["a LoRA"]),
    "a quantised pair": (
        {"transformer_blocks.safetensors": BODY, "unquantized_layers.safetensors": BODY},
        ["nunchaku", "plain weights"],
    ),
    "ONNX": ({"model.onnx": b"\x08\x07", "model.onnx_data": b"0"}, ["an ONNX", "safetensors"]),
    "OpenVINO": ({"openvino_model.xml": b"<?xml", "openvino_model.bin": b"0"}, ["an OpenVINO model"]),
    "Flax": ({f"{STEM}.msgpack": b"\x81"}, ["Flax weights"]),
    "TensorFlow": ({"tf_model.h5": b"\x89HDF"}, ["TensorFlow weights"]),
    "an unfinished file": ({f"{STEM}.safetensors.incomplete": b"0"}, ["an unfinished download", "again"]),
    "shards alone": (
        {f"{STEM}-00001-of-00002.safetensors": BODY, f"{STEM}-00002-of-00002.safetensors": BODY},
        ["2 shards without", f"{STEM}.safetensors.index.json"],
    ),
}


def _pipeline(root: Path, files: dict[str, bytes]) -> Path:
    write_pipeline(root, {"transformer": DIT})
    for name, content in files.items():
        write(root / "transformer" / name, content)
    return root


@pytest.mark.parametrize("case", FOLDERS)
def test_a_component_without_weights_says_what_it_has_and_what_to_do(case: str, tmp_path: Path) -> None:
    files, said = FOLDERS[case]
    with pytest.raises(InvalidFile) as caught:
        inspect(_pipeline(tmp_path, files))
    message = str(caught.value)
    assert message.count("transformer/ has no weights to load: ") == 1
    assert all(each in message for each in said), message
    assert GUESS not in message or case == "shards alone"
    assert "\n" not in message


def test_components_that_lack_the_same_are_named_together(tmp_path: Path) -> None:
    write_pipeline(tmp_path, {"transformer": DIT, "text_encoder": ENCODER, "vae": VAE})
    for name in (f"transformer/{STEM}", f"vae/{STEM}", "text_encoder/model"):
        write(tmp_path / f"{name}.fp16.safetensors", BODY)
    with pytest.raises(InvalidFile, match=r"^transformer/, text_encoder/ and vae/ have no weights .*variant='fp16'\.$"):
        inspect(tmp_path)
    with pytest.raises(InvalidFile, match=r"none of the variant bf16, only fp16\. Give variant='fp16'\.$"):
        inspect(tmp_path, variant="bf16")
    assert len(inspect(tmp_path, variant="fp16").components) == 3


def test_shards_that_are_gone_name_a_variant_that_is_whole(tmp_path: Path) -> None:
    index = {"metadata": {}, "weight_map": {"a": f"{STEM}-00001-of-00001.safetensors"}}
    files = {f"{STEM}.safetensors.index.json": json.dumps(index).encode(), f"{STEM}.fp16.safetensors": BODY}
    with pytest.raises(InvalidFile, match=r"missing: transformer/.*00001-of-00001.*variant='fp16'"):
        inspect(_pipeline(tmp_path, files))


def test_a_stopped_download_of_the_hubs_client_is_named(tmp_path: Path) -> None:
    _pipeline(tmp_path, {})
    write(tmp_path / ".cache/huggingface/download/transformer/x.incomplete", b"0")
    with pytest.raises(InvalidFile, match="was not finished: run the same download command again"):
        inspect(tmp_path)


@pytest.mark.parametrize("content", [b"", POINTER])
def test_a_pickle_that_was_never_fetched_is_not_sized(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=r"transformer/.*\.bin is empty or a Git LFS pointer"):
        inspect(_pipeline(tmp_path, {f"{STEM}.bin": content}))


def test_an_unfinished_download_into_the_cache_is_named(tmp_path: Path) -> None:
    snapshot = _cached(tmp_path) / "snapshots" / ("0" * 40)
    _pipeline(snapshot, {})
    write(snapshot.parent.parent / "blobs" / "x.incomplete", b"0")
    with pytest.raises(InvalidFile, match="was not finished"):
        inspect(snapshot)


def test_pickled_shards_are_sized_like_a_pickle_and_not_planned(tmp_path: Path, capsys) -> None:
    shards = [f"{STEM}-0000{number}-of-00002.bin" for number in (1, 2)]
    index = {"metadata": {}, "weight_map": {"a": shards[0], "b": shards[1]}}
    files = {f"{STEM}.bin.index.json": json.dumps(index).encode(), **dict.fromkeys(shards, PICKLE)}
    (component,) = inspect(_pipeline(tmp_path, files)).components
    assert (component.bytes, component.tensors, component.unsought) == (2 * len(PICKLE), None, True)
    assert run(["plan", str(tmp_path), "--gpu", "h200", "--policy", "rules"]) == 2
    line = capsys.readouterr().err
    assert "transformer/ has its weights in pickled shards only" in line
    assert "use_safetensors=False).save_pretrained" in line


# A file that is given as a model, and what the message must say.
FILES: dict[str, tuple[str, bytes, list[str]]] = {
    "a whole checkpoint": (
        "sdxl.safetensors",
        XL,
        ["holds transformer, text_encoder_2, vae", "--file vae="],
    ),
    "a denoiser": ("flux.safetensors", FLUX, ["one component alone (transformer of flux.1-dev", "--file transformer="]),
    "a LoRA": ("my lora.safetensors", LORA, ["a LoRA", "--lora 'my lora.safetensors'"]),
    "a component": (
        SINGLE,
        named("transformer_blocks.0.attn.to_q.weight"),
        ["one component alone", "--file COMPONENT="],
    ),
    "a text encoder": (
        "t5.safetensors",
        named("encoder.block.0.layer.0.weight"),
        ["one component alone (text_encoder", "--file text_encoder="],
    ),
    "a VAE": ("ae.safetensors", named("decoder.mid.block_1.conv1.weight"), ["one component alone (vae", "--file vae="]),
    "other weights": ("x.safetensors", named("w"), ["one component alone", "--file COMPONENT="]),
    "half a file": ("x.safetensors", BODY[:-9], ["interrupted download?", "short of"]),
    "a GGUF": ("m.gguf", b"GGUF\3\0\0\0", ["short of"]),
    "a pickle": ("m.ckpt", PICKLE, ["a pickle", "Convert it to safetensors"]),
    "a zip of pickles": ("m.pt", ZIP, ["torch.save", "Convert it to safetensors"]),
    "a Git LFS pointer": ("m.safetensors", POINTER, ["Git LFS pointer", "git lfs pull"]),
    "a picture": ("fox.png", b"\x89PNG\r\n\x1a\n", ["a picture", "--image FILE"]),
    "a web page": ("m.safetensors", b"<!DOCTYPE html><title>404</title>", ["a web page"]),
    "nothing": ("m.safetensors", b"", ["is empty"]),
    "an index": ("model_index.json", b"{}", ["index of a model directory", "directory that it lies in"]),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_given_as_a_model_or_plan_is_recognised(case: str, tmp_path: Path, capsys, monkeypatch) -> None:
    name, content, said = FILES[case]
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name, content)
    commands = (["plan", "--gpu", "h200"], ["run", "--prompt", "x"], ["explain"], ["bench"])
    inspected = () if name.endswith((".safetensors", ".gguf")) else (["inspect"],)
    for words in (*commands, *inspected):
        assert run([words[0], name, *words[1:]]) == 2
        line = capsys.readouterr().err
        assert all(each in line for each in said), line
        assert line.count("\n") == 1


def test_a_plan_given_as_a_model_names_the_command_that_runs_it(tmp_path: Path, capsys) -> None:
    write(tmp_path / "my plan.yaml", b"schema: 1\n")
    assert run(["plan", str(tmp_path / "my plan.yaml"), "--gpu", "h200"]) == 2
    assert f"it is a plan. Run it with: roost run '{tmp_path}/my plan.yaml'" in capsys.readouterr().err


def _cached(root: Path) -> Path:
    for name in ("blobs", "snapshots"):
        (root / "models--org--name" / name).mkdir(parents=True)
    return root / "models--org--name"


def _written(root: Path, **files: bytes) -> Path:
    for name, content in files.items():
        write(root / name.replace("__", "/").replace("_dot_", "."), content)
    return root


# A directory that is given as a model, and what the message must say.
DIRECTORIES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a cached repository": (_cached, "Give its id, org/name"),
    "a cache": (lambda root: _cached(root).parent, "such as its id, org/name"),
    "one above": (lambda root: _written(root, sub__model_index_dot_json=b"{}"), "There is one in sub: give '"),
    "a GGUF alone": (lambda root: _written(root, m_dot_gguf=b"GGUF"), "m.gguf is a GGUF file"),
    "an authors' layout": (lambda root: _written(root, high__w_dot_safetensors=BODY), "authors' own layout"),
}


@pytest.mark.parametrize("case", DIRECTORIES)
def test_a_directory_that_is_no_model_says_what_to_give(case: str, tmp_path: Path) -> None:
    make, said = DIRECTORIES[case]
    with pytest.raises(InvalidFile, match=said):
        inspect(make(tmp_path))


def test_a_directory_of_single_files_is_refused_with_what_each_is(tmp_path: Path, capsys) -> None:
    write(tmp_path / "lora.safetensors", LORA)
    assert run(["plan", str(tmp_path), "--gpu", "h200"]) == 2
    assert "'lora.safetensors' is a LoRA" in capsys.readouterr().err
