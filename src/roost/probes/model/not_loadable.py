"""Why a component's folder has nothing that its library loads: what it holds instead, and the remedy."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from roost.errors import InvalidFile
from roost.option_spelling import option
from roost.probes.files.safe_files import listed, shown
from roost.probes.model.directory import ModelDirectory
from roost.probes.model.hub import blobs_folders
from roost.probes.model.layout import Declared
from roost.probes.model.weight_files import WeightFiles, describe_folder, find_variants, find_weights, stems_of, within
from roost.probes.recognition.checkpoints import content_of

_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(.*)\.safetensors")
_UNFINISHED = (".incomplete", ".part", ".crdownload", ".aria2")
_DOWNLOADS = ".cache/huggingface/download"
_NEVER_OPENED = "Roost opens no pickles: convert them where you trust their origin, or fetch safetensors."


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """``what`` completes "transformer/ has no weights to load: …"; None when its folder isn't there.

    ``remedy`` is a sentence of its own. ``absent`` when the weights are simply not there.
    """

    what: str | None
    remedy: str
    absent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    directory: ModelDirectory
    declared: Declared
    variant: str | None
    names: tuple[str, ...]

    @property
    def wanted(self) -> str:
        """The plain name that the component's library looks for."""
        return f"{stems_of(self.declared.library, self.names)[0]}.safetensors"

    def ending(self, *suffixes: str) -> list[str]:
        return [name for name in self.names if name.lower().endswith(suffixes)]


def why_lacking(directory: ModelDirectory, declared: Declared, variant: str | None) -> Lack:
    """What the component's folder holds in place of weights to load."""
    if not declared.folder:
        return Lack(what=None, remedy=why_fetch(directory, declared.name), absent=True)
    folder = _Folder(
        directory=directory,
        declared=declared,
        variant=variant,
        names=tuple(sorted(directory.names(declared.folder))),
    )
    found = next((lack for find in _FINDERS if (lack := find(folder)) is not None), None)
    if found is not None:
        return found
    what = describe_folder(directory, declared.folder)
    return Lack(what=what, remedy=why_fetch(directory, declared.folder), absent=True)


def why_fetch(directory: ModelDirectory, folder: str) -> str:
    """The remedy for what is simply not there; a download that was left unfinished is named where there is one."""
    if any(True for _ in _unfinished(directory, folder)):
        return "Its download was not finished: run the same download command again."
    return "Was its download interrupted? Fetch what is missing, in safetensors."


def _unfinished(directory: ModelDirectory, folder: str) -> Iterator[str]:
    """What ``hf download`` and other programs leave behind when they are stopped."""
    root = os.path.realpath(directory.path)
    inside = (os.path.join(root, *place.split("/")) for place in (folder, f"{_DOWNLOADS}/{folder}"))
    for place in (*inside, *blobs_folders(root)):
        try:
            names = os.listdir(place)
        except OSError:
            continue
        yield from (name for name in names if name.endswith(_UNFINISHED))


def other_variants(directory: ModelDirectory, declared: Declared) -> tuple[str, ...]:
    """The variants under which the component's library would find weights, all files of them."""
    names = directory.names(declared.folder)
    return tuple(each for each in sorted(find_variants(names)) if _is_whole(_found_as(directory, declared, each), each))


def _found_as(directory: ModelDirectory, declared: Declared, variant: str) -> WeightFiles | None:
    try:
        return find_weights(directory, declared.folder, declared.library, variant=variant)
    except InvalidFile:
        return None


def _is_whole(weights: WeightFiles | None, variant: str) -> bool:
    return weights is not None and weights.variant == variant and not weights.missing


def _variants(folder: _Folder) -> Lack | None:
    found = other_variants(folder.directory, folder.declared)
    if not found:
        return None
    there = listed(list(found))
    asked = folder.variant
    return Lack(
        what=f"only files of the variant {there}"
        if asked is None
        else f"none of the variant {shown(asked)}, only {there}",
        remedy=f"Give {' or '.join(option('variant', shown(each)) for each in found)}.",
    )


def _links_to_nothing(folder: _Folder) -> Lack | None:
    path = os.path.join(folder.directory.path, folder.declared.folder)
    gone = [name for name in sorted(os.listdir(path)) if name not in folder.names and name.endswith(".safetensors")]
    if not gone:
        return None
    what = f"{listed(gone, 3)} {_is(gone)} a link to a file that is gone"
    return Lack(what=what, remedy=why_fetch(folder.directory, folder.declared.folder), absent=True)


def _shards_alone(folder: _Folder) -> Lack | None:
    """Shards under names that the library takes, without the index that it begins with."""
    matches = [match for name in folder.names if (match := _SHARD.fullmatch(name))]
    stem = folder.wanted.removesuffix(".safetensors")
    mine = [match for match in matches if match[1].split(".")[0] == stem]
    if not mine:
        return None
    variant = mine[0][1].partition(".")[2] or mine[0][2].removeprefix(".")
    index = f"{stem}.safetensors.index.{variant}.json" if variant else f"{stem}.safetensors.index.json"
    return Lack(
        what=f"it holds {len(mine)} shards without {index}, their index",
        remedy="Fetch that file.",
        absent=True,
    )


def _quantised_pair(folder: _Folder) -> Lack | None:
    if {"transformer_blocks.safetensors", "unquantized_layers.safetensors"} <= set(folder.names):
        what = "it holds weights quantised by nunchaku (SVDQuant), under names that no other library looks for"
        return Lack(what=what, remedy="Run them with nunchaku, or fetch the plain weights.")
    return None


def _other_name(folder: _Folder) -> Lack | None:
    """Safetensors under a name that the library doesn't look for."""
    found = folder.ending(".safetensors")
    if not found:
        return None
    looks_for = f"and {folder.declared.class_name}'s library looks for {folder.wanted}"
    if len(found) == 1:
        title, remedy = _one_file(folder, found[0])
        return Lack(what=f"it holds {shown(found[0])}{title}, {looks_for}", remedy=remedy)
    remedy = "Fetch the component's own files, or rename those that are: shards need their index."
    return Lack(what=f"it holds {listed(found, 4)}, {looks_for}", remedy=remedy)


def _one_file(folder: _Folder, name: str) -> tuple[str, str]:
    """What a single file under another name is, and what to do with it."""
    rename = f"Rename it to {folder.wanted}."
    try:
        sizes = folder.directory.read_header(within(folder.declared.folder, name)).sizes
    except InvalidFile:
        return "", rename
    content = content_of({each for by_name in sizes.values() for each in by_name})
    if content is None or content.kind in ("component", "text-encoder"):
        return "", rename
    if content.class_name is None:
        return f" ({content.title})", "Fetch the component's own weights."
    convert = f"Convert it with {content.class_name}.from_single_file and save_pretrained"
    return f" ({content.title})", f"{convert}, or fetch the component's own weights."


def _pickles(folder: _Folder) -> Lack | None:
    found = [name for name in folder.ending(".bin", ".pt", ".pth", ".ckpt", ".pkl") if not name.startswith("openvino")]
    if not found:
        return None
    return Lack(what=f"it holds only pickles ({listed(found, 4)})", remedy=_NEVER_OPENED)


# By the end of a name: whose weights these are.
_FOREIGN = (
    ((".gguf",), "a GGUF file, quantised weights that no library loads from a model directory"),
    ((".onnx", ".onnx_data", ".pb"), "an ONNX or TensorFlow model"),
    (("openvino_model.xml", "openvino_model.bin"), "an OpenVINO model"),
    ((".msgpack",), "Flax weights"),
    ((".h5",), "TensorFlow weights"),
    ((".flashpack",), "FlashPack weights"),
    ((".engine", ".plan"), "a TensorRT engine"),
    ((".mlmodelc", ".mlpackage"), "a Core ML model"),
    ((".npz",), "MLX or NumPy weights"),
    ((".tflite",), "a TensorFlow Lite model"),
    ((".dduf",), "a packed model (DDUF)"),
)


def _foreign(folder: _Folder) -> Lack | None:
    for suffixes, title in _FOREIGN:
        found = folder.ending(*suffixes)
        if found:
            return Lack(
                what=f"it holds {title} ({listed(found, 3)})", remedy="Fetch the component's safetensors files."
            )
    return None


def _unfinished_here(folder: _Folder) -> Lack | None:
    found = folder.ending(*_UNFINISHED)
    if not found:
        return None
    what = f"{listed(found, 3)} {_is(found)} an unfinished download"
    return Lack(what=what, remedy="Run the same download command again.")


def _nested(folder: _Folder) -> Lack | None:
    """Weights a folder deeper, as an archive unpacked into its own name leaves them."""
    for name in folder.names:
        path = os.path.join(folder.directory.path, folder.declared.folder, name)
        if not os.path.islink(path) and any(
            each.endswith((".safetensors", ".bin", ".gguf")) for each in _listing(path)
        ):
            place = f"{folder.declared.folder}/{name}"
            what = f"there are some in {shown(place)}/"
            return Lack(what=what, remedy=f"Move those of the component into {shown(folder.declared.folder)}/.")
    return None


def _listing(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are each"


# What says most about how to go on comes first.
_FINDERS: tuple[Callable[[_Folder], Lack | None], ...] = (
    _variants,
    _unfinished_here,
    _links_to_nothing,
    _shards_alone,
    _quantised_pair,
    _other_name,
    _foreign,
    _pickles,
    _nested,
)
