"""Reading of regular files only, what a file really is, and text from files made safe for a message."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from roost.errors import InvalidFile

# Each flag exists on some systems only. O_NONBLOCK is what keeps the opening of a FIFO from waiting for a writer.
_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOINHERIT", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)

_ARIA2 = ".aria2"  # aria2 makes the whole file at once and fills it in any order, so that its header proves nothing
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class RegularFile:
    """An open regular file; ``where`` is how messages name it."""

    __slots__ = ("_descriptor", "bytes", "where")

    def __init__(self, descriptor: int, file_bytes: int, where: str) -> None:
        self._descriptor = descriptor
        self.bytes = file_bytes
        self.where = where

    def read_at(self, offset: int, count: int) -> bytes:
        """Exactly ``count`` bytes from ``offset``, or InvalidFile."""
        try:
            chunk = _pread(self._descriptor, count, offset)
            if len(chunk) == count:
                return chunk
            chunks = [chunk]
            while chunk and (count := count - len(chunk)) > 0:
                offset += len(chunk)
                chunk = _pread(self._descriptor, count, offset)
                chunks.append(chunk)
        except OSError as error:
            raise InvalidFile(f"{shown(self.where)} can't be read: {error.strerror}.") from error
        if count:
            raise InvalidFile(f"{shown(self.where)} was shortened while it was read. Run this again.")
        return b"".join(chunks)


@contextlib.contextmanager
def open_regular(path: str, where: str) -> Iterator[RegularFile]:
    """The regular file at ``path``, open for reading; anything else is InvalidFile."""
    try:
        descriptor = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidFile(f"{shown(where)} can't be opened: {reason}. Check its name and permissions.") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
            raise InvalidFile(f"{shown(where)} is {kind}, not a regular file. Put the real file there.")
        if os.path.lexists(f"{path}{_ARIA2}"):
            remedy = f"Run the same aria2c command again; if the file is whole, delete its {_ARIA2} file."
            raise InvalidFile(
                f"{shown(where)} is an unfinished download, of which aria2 keeps account beside it. {remedy}"
            )
        yield RegularFile(descriptor, status.st_size, where)
    finally:
        os.close(descriptor)


def starts_with(path: str, first: bytes) -> bool:
    """Whether the regular file at ``path`` begins so; False for what can't be read."""
    try:
        with open_regular(path, path) as file:
            return file.bytes >= len(first) and file.read_at(0, len(first)) == first
    except InvalidFile:
        return False


def _seek_and_read(descriptor: int, count: int, offset: int) -> bytes:
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, count)


_pread = getattr(os, "pread", _seek_and_read)  # Windows has no pread


# Text from a model directory, made safe for a one-line message.


_MAX_SHOWN = 100


def quoted(value: object) -> str:
    r"""A value in quotes, ASCII only and cut to a readable length; a backslash stays one backslash."""
    text = "null" if value is None else str(value)
    escaped = "".join(_visible(char) for char in text)
    return _cut(f'"{escaped}"' if "'" in text and '"' not in text else f"'{escaped}'")


def _visible(char: str) -> str:
    plain = char.isascii() and char.isprintable()
    return char if plain else char.encode("unicode_escape").decode("ascii")


def shown(name: str) -> str:
    """A file's name as it is, or quoted when it holds anything that a terminal or a log could stumble over."""
    plain = name.isascii() and name.isprintable() and name.strip() == name and "[" not in name
    return _cut(name) if name and plain else quoted(name)


def listed(names: list[str], most: int = 20) -> str:
    """Names after each other, with the count of those left out."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name) for name in names[:most]) + more


def _cut(text: str) -> str:
    return text if len(text) <= 2 * _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…{text[-_MAX_SHOWN:]}"


# What a file that should be something else really is, from its first bytes, and what to do about it.


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
