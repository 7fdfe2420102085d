"""Model directories and JSON files that are wrong, as (damage, what the error must name) by name of the case."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from small_model import INDEX, SHARD_INDEX, SHARDS, VAE_WEIGHTS, edit_json

Damage = Callable[[Path], object]
Cases = dict[str, tuple[Damage, str]]

_INDEX_FILE = "model_index.json"
_DIT = "WanTransformer3DModel"


def content(name: str, raw: bytes) -> Damage:
    """Replaces a whole file."""
    return lambda model: (model / name).write_bytes(raw)


def keys(name: str, **changes: object) -> Damage:
    """Sets keys of a JSON file."""
    return lambda model: edit_json(model / name, changes)


def _entry(value: object, name: str = "transformer") -> Damage:
    return keys(_INDEX_FILE, **{name: value})


def _index_bytes(raw: bytes) -> Damage:
    return content(_INDEX_FILE, raw)


def _instead(name: str, make: Callable[[Path], object]) -> Damage:
    """Makes something else of a file or folder."""

    def damage(model: Path) -> None:
        path = model / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return damage


def folder(name: str) -> Damage:
    return _instead(name, Path.mkdir)


def fifo(name: str) -> Damage:
    return _instead(name, os.mkfifo)


def link(name: str, target: str) -> Damage:
    return _instead(name, lambda path: path.symlink_to(target))


def _move_outside(name: str) -> Damage:
    def damage(model: Path) -> None:
        (model / name).rename(model.parent / "elsewhere")
        (model / name).symlink_to("../" * len(Path(name).parts) + "elsewhere")

    return damage


def _unlink(*names: str) -> Damage:
    return lambda model: [(model / name).unlink() for name in names]


def _sparse(name: str, size: int) -> Damage:
    return lambda model: os.truncate(model / name, size)


def _without(name: str, key: str) -> Damage:
    return lambda model: edit_json(model / name, lambda found: found.pop(key))


def _clear(model: Path) -> None:
    shutil.rmtree(model)
    model.mkdir()


def _text(change: Callable[[str], str]) -> bytes:
    return change(json.dumps(INDEX)).encode()


DIRECTORIES: Cases = {
    "missing": (shutil.rmtree, "doesn't exist"),
    "empty": (_clear, "is empty"),
    "a file": (lambda model: (shutil.rmtree(model), model.write_text("{}")), "is a file"),
    "a dangling link": (lambda model: (shutil.rmtree(model), model.symlink_to("nowhere")), "doesn't exist"),
    "a link to itself": (lambda model: (shutil.rmtree(model), model.symlink_to(model.name)), "doesn't exist"),
    "a FIFO": (lambda model: (shutil.rmtree(model), os.mkfifo(model)), "is a file"),
    "no index": (_unlink(_INDEX_FILE), "fetch model_index.json from where they came"),
    "only a readme": (lambda model: (_clear(model), (model / "README.md").write_text("# Wan")), "README.md"),
    "only a pickle": (lambda model: (_clear(model), (model / "model.ckpt").write_bytes(b"\x80\x02")), "model.ckpt"),
    "index is a folder": (folder(_INDEX_FILE), "is a directory"),
    "index is a FIFO": (fifo(_INDEX_FILE), "is a FIFO"),
    "index is a device": (link(_INDEX_FILE, "/dev/zero"), "link that leads outside"),
    "index links outside": (_move_outside(_INDEX_FILE), "link that leads outside"),
    "folder links outside": (_move_outside("vae"), "link that leads outside"),
    "folder links to the root": (link("vae", "/"), "link that leads outside"),
    "folder links to its parent": (link("vae", ".."), "link that leads outside"),
    "a component is missing": (lambda model: shutil.rmtree(model / "vae"), "vae/ is missing"),
    "a component is empty": (lambda model: _clear(model / "vae"), "vae"),
    "a component is a file": (lambda model: (shutil.rmtree(model / "vae"), (model / "vae").touch()), "vae"),
    "a config but no weights": (_unlink(VAE_WEIGHTS), "vae/ has no weights"),
    "two shards are missing": (_unlink(*(f"transformer/{each}" for each in SHARDS)), SHARDS[0]),
    "the other shard is missing": (_unlink(f"transformer/{SHARDS[1]}"), SHARDS[1]),
    "shards without an index": (_unlink(SHARD_INDEX), "transformer/ has no weights"),
    "no component": (content(_INDEX_FILE, b'{"_class_name": "WanPipeline"}'), "no component with weights"),
    "only null components": (content(_INDEX_FILE, b'{"_class_name": "P", "vae": [null, null]}'), "no component with"),
}

INDEXES: Cases = {
    "empty": (_index_bytes(b""), "it is empty"),
    "blank": (_index_bytes(b" \n "), "character"),
    "null": (_index_bytes(b"null"), "must be an object"),
    "true": (_index_bytes(b"true"), "must be an object"),
    "a number": (_index_bytes(b"42"), "must be an object"),
    "a long number": (_index_bytes(b"9" * 5000), "too many digits"),
    "a string": (_index_bytes(b'"WanPipeline"'), "must be an object"),
    "a list": (_index_bytes(json.dumps([INDEX]).encode()), "must be an object"),
    "an empty object": (_index_bytes(b"{}"), "_class_name"),
    "cut off": (_index_bytes(_text(lambda text: text[:-9])), "character"),
    "a comma too many": (_index_bytes(_text(lambda text: text[:-1] + ",}")), "character"),
    "single quotes": (_index_bytes(_text(lambda text: text.replace('"', "'"))), "character 1"),
    "a comment": (_index_bytes(_text(lambda text: "// Wan\n" + text)), "character 0"),
    "two objects": (_index_bytes(_text(lambda text: text + text)), "extra data"),
    "nested lists": (_index_bytes(b"[" * 100_000), "nested too deeply"),
    "nested objects": (_index_bytes(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "nested too deeply"),
    "a nested entry": (_index_bytes(_text(lambda text: f'{text[:-1]},"x":{"[" * 99_000}{"]" * 99_000}}}')), "nested"),
    "30 MB of brackets": (_index_bytes(b"[" * 30_000_000), "more than 1000000 ["),
    "a duplicate key": (_index_bytes(_text(lambda text: text[:-1] + ',"vae":null}')), "duplicate key 'vae'"),
    "NaN": (_index_bytes(_text(lambda text: text[:-1] + ',"shift":NaN}')), "NaN is not JSON"),
    "infinity": (_index_bytes(_text(lambda text: text[:-1] + ',"shift":-Infinity}')), "-Infinity is not JSON"),
    "1e999": (_index_bytes(_text(lambda text: text[:-1] + ',"shift":1e999}')), "too large"),
    "half a surrogate pair": (_index_bytes(_text(lambda text: text[:-1] + ',"a":"\\ud800"}')), "surrogate pair"),
    "a raw control character": (_index_bytes(_text(lambda text: text[:-1] + ',"a":"\x01"}')), "control character"),
    "UTF-16": (_index_bytes(json.dumps(INDEX).encode("utf-16")), "is not UTF-8"),
    "a byte order mark": (_index_bytes(b"\xef\xbb\xbf" + json.dumps(INDEX).encode()), "byte order mark"),
    "Latin-1": (_index_bytes(_text(lambda text: text)[:-1] + b',"a":"\xe9"}'), "is not UTF-8"),
    "zeros": (_index_bytes(bytes(300)), "character 0"),
    "40 MB": (_sparse(_INDEX_FILE, 40_000_000), "larger than 32 MiB"),
    "a Git LFS pointer": (_index_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "Git LFS"),
    "a web page": (_index_bytes(b"<!DOCTYPE html><title>404</title>"), "web page"),
    "YAML": (_index_bytes(b"_class_name: WanPipeline\n"), "character 0"),
    "no class": (_without(_INDEX_FILE, "_class_name"), "_class_name"),
    "class is null": (_entry(None, "_class_name"), "_class_name"),
    "class is a number": (_entry(5, "_class_name"), "_class_name"),
    "class is empty": (_entry("", "_class_name"), "_class_name"),
    "class is an object": (_entry({"a": "b"}, "_class_name"), "_class_name"),
    "class is a terminal code": (_entry("\x1b]0;x\x07", "_class_name"), "\\x1b]0;x\\x07"),
    "class is three names": (_entry(["a", "b", "c"], "_class_name"), "_class_name"),
}

ENTRIES: Cases = {
    "an empty list": (_entry([]), "transformer"),
    "one name": (_entry(["diffusers"]), "transformer"),
    "three names": (_entry(["diffusers", _DIT, "x"]), "transformer"),
    "a string": (_entry(_DIT), "transformer"),
    "a number": (_entry(7), "transformer"),
    "an object": (_entry({"library": "diffusers", "class": _DIT}), "transformer"),
    "true": (_entry(True), "transformer"),
    "numbers": (_entry([1, 2]), "transformer"),
    "library is null": (_entry([None, _DIT]), "transformer"),
    "class is null": (_entry(["diffusers", None]), "transformer"),
    "class is empty": (_entry(["diffusers", ""]), "transformer"),
    "library is empty": (_entry(["", _DIT]), "transformer"),
    "lists": (_entry([["diffusers"], [_DIT]]), "transformer"),
    "an unknown object": (_entry({"a": 1}, "extra"), "extra"),
    "an unknown list of words": (_entry(["a", "b", "c"], "extra"), "extra"),
    "a name with a slash": (_entry(["diffusers", _DIT], "../transformer"), "'../transformer'"),
    "an absolute name": (_entry(["diffusers", _DIT], "/etc"), "'/etc'"),
    "a name with a NUL": (_entry(["diffusers", _DIT], "trans\0former"), "trans\\x00former"),
    "a name with a newline": (_entry(["diffusers", _DIT], "dit\nerror: x"), "dit\\nerror: x"),
    "an empty name": (_entry(["diffusers", _DIT], ""), "named plainly"),
    "a name of 5000 letters": (_entry(["diffusers", _DIT], "t" * 5000), "named plainly"),
    "a name in Cyrillic": (_entry(["diffusers", _DIT], "v\u0430e"), "named plainly"),
    "class with a slash": (_entry(["diffusers", "../" + _DIT]), "../WanTransformer3DModel"),
    "class with a control character": (_entry(["diffusers", "Wan\x1b[31m"]), "\\x1b[31m"),
    "class with a newline": (_entry(["diffusers", "Wan\nerror: x"]), "error: x"),
    "class of 5000 letters": (_entry(["diffusers", "W" * 5000]), "WWWW"),
    "class with a dot": (_entry(["diffusers", "models.Wan"]), "models.Wan"),
    "library with a slash": (_entry(["../os", _DIT]), "../os"),
    "library with a newline": (_entry(["diff\nusers", _DIT]), "[library, class]"),
}

MODULAR: Cases = {
    "source is a number": (_entry(["diffusers", _DIT, 5]), "transformer"),
    "source is null": (_entry(["diffusers", _DIT, None]), "transformer"),
    "subfolder outside": (_entry(["diffusers", _DIT, {"subfolder": "../vae"}]), "../vae"),
    "subfolder is absolute": (_entry(["diffusers", _DIT, {"subfolder": "/etc"}]), "/etc"),
    "subfolder is a number": (_entry(["diffusers", _DIT, {"subfolder": 5}]), "transformer"),
    "subfolder with a NUL": (_entry(["diffusers", _DIT, {"subfolder": "a\0b"}]), "a\\x00b"),
    "no class": (_entry([None, None, {}]), "transformer"),
    "type hint is a number": (_entry([None, None, {"type_hint": 5}]), "transformer"),
    "type hint is one name": (_entry([None, None, {"type_hint": [_DIT]}]), "transformer"),
}

_CONFIG = "vae/config.json"

CONFIGS: Cases = {
    "empty": (content(_CONFIG, b""), "vae/config.json isn't valid JSON: it is empty"),
    "not JSON": (content(_CONFIG, b"base_dim = 96"), "vae/config.json"),
    "a list": (content(_CONFIG, b"[]"), "must be an object"),
    "null": (content(_CONFIG, b"null"), "must be an object"),
    "nested": (content(_CONFIG, b'{"a":' * 100_000), "nested too deeply"),
    "duplicate keys": (content(_CONFIG, b'{"a":1,"a":2}'), "duplicate key 'a'"),
    "NaN": (content(_CONFIG, b'{"a":NaN}'), "NaN"),
    "UTF-16": (content(_CONFIG, '{"a":1}'.encode("utf-16-le")), "vae/config.json"),
    "40 MB": (_sparse(_CONFIG, 40_000_000), "larger than 32 MiB"),
    "a folder": (folder(_CONFIG), "is a directory"),
    "a FIFO": (fifo(_CONFIG), "is a FIFO"),
    "a link to a secret": (link(_CONFIG, "/etc/passwd"), "link that leads outside"),
    "a pointer": (content(_CONFIG, b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "encoder's config": (content("text_encoder/config.json", b"{"), "text_encoder/config.json"),
    "DiT's config": (content("transformer/config.json", b"[]"), "transformer/config.json"),
    "scheduler's config": (content("scheduler/scheduler_config.json", b"5"), "scheduler/scheduler_config.json"),
    "scheduler's config is a folder": (folder("scheduler/scheduler_config.json"), "is a directory"),
    "quantization is a number": (keys(_CONFIG, quantization_config=5), "quantization_config must be an object"),
    "quantization is a list": (keys(_CONFIG, quantization_config=[1]), "quantization_config must be an object"),
    "quantization is a word": (keys(_CONFIG, quantization_config="fp8"), "quantization_config must be an object"),
    "weights named by a number": (keys("text_encoder/config.json", transformers_weights=5), "transformers_weights"),
    "weights named elsewhere": (
        keys("text_encoder/config.json", transformers_weights="../vae/diffusion_pytorch_model.safetensors"),
        "as transformers_weights",
    ),
    "weights named as a pickle": (keys("text_encoder/config.json", transformers_weights="a.bin"), "no safetensors"),
}

# Wrong, but in nothing that a load reads from here: described as far as it goes, never run.
HARMLESS: dict[str, Damage] = {
    "layers is a word": keys("transformer/config.json", num_layers="x"),
    "layers is negative": keys("transformer/config.json", num_layers=-1),
    "dtype is a number": keys("text_encoder/config.json", torch_dtype=5, dtype=["x"]),
    "class is a number": keys("vae/config.json", _class_name=5),
    "architectures is a word": keys("text_encoder/config.json", architectures="UMT5"),
    "architectures holds numbers": keys("text_encoder/config.json", architectures=[5]),
    "auto_map is a word": keys("text_encoder/config.json", auto_map="x.Y"),
    "auto_map is a number": keys("text_encoder/config.json", auto_map=5),
    "auto_map of every class": keys("text_encoder/config.json", auto_map={"AutoModel": "evil.Model"}),
    "quantization without a method": keys("vae/config.json", quantization_config={}),
    "quantization by a number": keys("vae/config.json", quantization_config={"quant_method": 5}),
    "library os": _entry(["os", "system"]),
    "library subprocess": _entry(["subprocess", "Popen"]),
    "library builtins": _entry(["builtins", "eval"]),
    "library of its own": _entry(["pipeline_evil", "EvilModel"]),
    "pipeline of its own": _entry(["pipeline_evil", "EvilPipeline"], "_class_name"),
    "an unreadable tokenizer": content("tokenizer/tokenizer_config.json", b"{"),
}


def as_modular(model: Path) -> None:
    """The same directory, described by a modular index."""
    (model / _INDEX_FILE).rename(model / "modular_model_index.json")
