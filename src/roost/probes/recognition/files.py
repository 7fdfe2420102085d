"""What a single file is that someone gives as a model or as a plan, from its first bytes, and what to do with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from roost.errors import InvalidFile
from roost.probes.files.headers import read_header
from roost.probes.files.safe_files import open_regular
from roost.probes.recognition.checkpoints import Content, content_of
from roost.shell_quoting import command, shown_path

_FIRST_BYTES = 512
_PICKLE_PROTOCOLS = (2, 3, 4, 5)
_DIRECTORY = "Give a diffusers directory with safetensors weights."
_PICTURE = "Give the model's directory, and this with: --image FILE"
_NEVER_OPENED = (
    "Roost opens no pickles. Convert it to safetensors where you trust its origin, or fetch a diffusers directory."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """``what`` completes "it is …"; ``remedy`` is a sentence of its own. ``is_plan`` when it seems to be a plan."""

    what: str
    remedy: str
    is_plan: bool = False


def _another(what: str, remedy: str = _DIRECTORY) -> Recognised:
    return Recognised(what=what, remedy=remedy)


def _goes_into(given: str) -> str:
    return f"Name the model that it goes into: roost plan BASE --file {given}"


# Where a signature begins, its bytes, and what the file then is.
_SIGNATURES: tuple[tuple[int, bytes, Recognised], ...] = (
    (0, b"GGUF", _another("a GGUF file of one component", _goes_into("COMPONENT=PATH"))),
    (0, b"\x89HDF", _another("an HDF5 file, as Keras writes weights")),
    (0, b"version https://git-lfs", _another("a Git LFS pointer, not the file itself", "Run: git lfs pull")),
    (0, b"version https://hawser", _another("a Git LFS pointer, not the file itself", "Run: git lfs pull")),
    (0, b"\x89PNG", _another("a picture", _PICTURE)),
    (0, b"\xff\xd8\xff", _another("a picture", _PICTURE)),
    (0, b"GIF8", _another("a picture", _PICTURE)),
    (0, b"BM", _another("a picture", _PICTURE)),
    (8, b"WEBP", _another("a picture", _PICTURE)),
    (4, b"ftyp", _another("a video", _PICTURE)),
    (0, b"\x1aE\xdf\xa3", _another("a video", _PICTURE)),
    (0, b"\x1f\x8b", _another("a compressed archive", "Unpack it, and give the model directory in it.")),
    (0, b"7z\xbc\xaf", _another("a compressed archive", "Unpack it, and give the model directory in it.")),
    (257, b"ustar", _another("a tar archive", "Unpack it, and give the model directory in it.")),
)
_SUFFIXES: dict[str, Recognised] = {
    ".onnx": _another("an ONNX model"),
    ".pb": _another("a TensorFlow or ONNX model"),
    ".engine": _another("a TensorRT engine"),
    ".tflite": _another("a TensorFlow Lite model"),
    ".msgpack": _another("Flax weights"),
    ".incomplete": _another("an unfinished download", "Run the same download command again."),
    ".part": _another("an unfinished download", "Run the same download command again."),
}


def why_no_directory(path: Path) -> str:
    """A message for a path that is given as a model and is no directory."""
    where = shown_path(path)
    if not path.exists():
        return f"{where} doesn't exist. Give the path of a model directory."
    found = recognise_file(path)
    if found is None:
        return f"{where} is a file. Give the path of a model directory."
    return f"{where} is a file, not a model directory: it is {found.what}. {found.remedy}"


def recognise_file(path: str | Path) -> Recognised | None:
    """What the regular file at ``path`` is; None when nothing tells, or when it can't be read."""
    try:
        with open_regular(str(path), str(path)) as file:
            first = file.read_at(0, min(file.bytes, _FIRST_BYTES))
    except InvalidFile:
        return None
    if not first:
        return _another("an empty file", "Fetch it again, and give the model's directory.")
    for start, signature, found in _SIGNATURES:
        if first[start:].startswith(signature):
            return found
    return (
        _pickle(first)
        or _zip(first)
        or _safetensors(Path(path), first)
        or _text(Path(path), first)
        or _SUFFIXES.get(Path(path).suffix.lower())
    )


def _pickle(first: bytes) -> Recognised | None:
    if first[:1] == b"\x80" and len(first) > 2 and first[1] in _PICKLE_PROTOCOLS and first[2:8] != bytes(6):
        return _another("a pickle of weights", _NEVER_OPENED)
    return None


def _zip(first: bytes) -> Recognised | None:
    """A zip archive, by the name of its first member."""
    if not first.startswith(b"PK\x03\x04"):
        return None
    name = first[30 : 30 + int.from_bytes(first[26:28], "little")].decode("utf-8", "replace")
    if name.endswith((".json", ".safetensors")):
        return _another("a packed model directory (DDUF or zip)", "Unpack it, and give the directory.")
    if name.endswith(".npy"):
        return _another("an archive of NumPy arrays")
    return _another("a zip archive, as torch.save writes pickled weights", _NEVER_OPENED)


def _safetensors(path: Path, first: bytes) -> Recognised | None:
    length = int.from_bytes(first[:8], "little")
    if first[8:9] != b"{" or length > 100_000_000:
        return None
    try:
        header = read_header(str(path))
    except InvalidFile as error:
        return _another("a safetensors file that is damaged", str(error)) if path.suffix == ".safetensors" else None
    content = content_of({name for sizes in header.sizes.values() for name in sizes})
    if content is None:
        return _another("a safetensors file, one file of weights", _DIRECTORY)
    return _another(content.title, _remedy(content, path))


def _remedy(content: Content, path: Path) -> str:
    if content.kind == "lora":
        return f"Give the model that it is for, and it as an option: {command('roost', 'run', 'MODEL', '--lora', path)}"
    if content.kind == "embedding":
        return "Load it into a pipeline of yours in Python, and hold that with roost.attach."
    if content.kind == "checkpoint" and content.class_name is not None:
        if content.class_name.startswith("StableDiffusion"):
            return f"It is a model by itself: {command('roost', 'plan', path)}"
        return f"{_converted(content.class_name, 'DIR')}, then give DIR."
    name = {"denoiser": "transformer", "text-encoder": "text_encoder", "vae": "vae"}.get(content.kind)
    if name is None:
        return _DIRECTORY
    name = "unet" if (content.class_name or "").startswith("UNet") else name
    return _goes_into(f"{name}={shown_path(path)}")


def _converted(class_name: str, folder: str) -> str:
    return f'Convert it once in Python: {class_name}.from_single_file(FILE).save_pretrained("{folder}")'


def _text(path: Path, first: bytes) -> Recognised | None:
    """Documents that lie beside models, and plans."""
    start = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return _another("a web page, not the file it is named after", "Fetch the real file.")
    if start.startswith(b"schema:"):
        return Recognised(what="a plan", remedy=f"Run it with: {command('roost', 'run', path)}", is_plan=True)
    if path.suffix.lower() in (".yaml", ".yml"):
        return _another("a YAML file, and no plan of Roost's")
    return _json(path.name) if start.startswith((b"{", b"[")) else None


def _json(name: str) -> Recognised:
    if name in ("model_index.json", "modular_model_index.json"):
        return _another("the index of a model directory", "Give the directory that it lies in.")
    if name.endswith(".index.json") or name == "config.json":
        return _another("a file of a model directory", "Give the whole pipeline's directory.")
    return _another("a JSON file")
