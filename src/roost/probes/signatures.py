"""What a file that should be something else really is, from its first bytes, and what to do about it."""

from __future__ import annotations

_DOWNLOAD = "Fetch the real file, for example with: hf download ORG/NAME"
_CONVERT = "Convert it to safetensors; Roost never opens pickled files."

# First bytes -> what such a file is and the remedy.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself", "Run: git lfs pull"),
    (b"version https://hawser", "is a Git LFS pointer, not the file itself", "Run: git lfs pull"),
    (b"PK\x03\x04", "is a zip archive, as torch.save writes, not safetensors", _CONVERT),
    (b"GGUF", "is a GGUF file, not safetensors", "Use a model directory with safetensors weights."),
    (b"\x89HDF", "is an HDF5 file, not safetensors", "Use a model directory with safetensors weights."),
)
_PICKLE_PROTOCOLS = (2, 3, 4, 5)


def is_stand_in(content: bytes) -> bool:
    """Whether a small file only stands for a large one that was not fetched."""
    return not content or content.startswith((b"version https://git-lfs", b"version https://hawser"))


def recognise_content(first: bytes) -> tuple[str, str] | None:
    """What a file that begins with ``first`` (at least 64 bytes where there are) is, and the remedy; else None."""
    for signature, what, remedy in _SIGNATURES:
        if first.startswith(signature):
            return what, remedy
    text = first.lstrip()[:15].lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return "is a web page, not the file it is named after", _DOWNLOAD
    if first[:1] == b"\x80" and len(first) > 2 and first[1] in _PICKLE_PROTOCOLS and first[2:8] != bytes(6):
        return "is a pickle, not safetensors", _CONVERT
    return None
