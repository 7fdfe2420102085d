"""One model directory: which names it holds, where links lead, and a record of every file that was relied on."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from roost.errors import InvalidFile
from roost.facts.model import StoredFile
from roost.probes.files.headers import Header, read_header, read_header_text
from roost.probes.files.safe_files import is_stand_in, open_regular, quoted, shown
from roost.probes.files.strict_json import MAX_CONFIG_BYTES, read_strict_object
from roost.probes.model.hub import blobs_folders, hub_cache
from roost.probes.recognition.files import why_no_directory

_CACHED_BLOB = re.compile(r"models--[^/\\]+[/\\]blobs[/\\][^/\\]+")
_CHUNK_BYTES = 1024**2
_SMALLEST_WEIGHTS_BYTES = 1024
_EMPTY_SHA256 = hashlib.sha256().hexdigest()


class ModelDirectory:
    """Reads files below one directory by relative name (``transformer/config.json``), and remembers which.

    Links may lead to files inside the directory or in the Hugging Face cache, nowhere else.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise InvalidFile(why_no_directory(path))
        self.path = path
        self.files: dict[str, StoredFile] = {}
        self._root = os.path.realpath(path)
        self._blobs = blobs_folders(self._root)
        self._names: dict[str, Mapping[str, bool]] = {}

    def names(self, folder: str = "") -> Mapping[str, bool]:
        """Names in a folder ("" is the root) -> whether each is a link. Dangling links are absent."""
        if folder not in self._names:
            self._names[folder] = self._list(folder)
        return self._names[folder]

    def has_folder(self, folder: str) -> bool:
        return folder in self.names() and os.path.isdir(os.path.join(self._root, folder))

    def has(self, name: str) -> bool:
        """Whether the file is there; a dangling link isn't."""
        folder, _, base = name.rpartition("/")
        return base in self.names(folder)

    def read_object(self, name: str, *, infinities: bool = False) -> dict[str, Any]:
        """The JSON object in a file, recorded with the hash of its whole content."""
        with open_regular(self._locate(name), name) as file:
            parsed, raw = read_strict_object(file, infinities=infinities)
        self.files[name] = StoredFile(bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
        return parsed

    def peek(self, name: str) -> object:
        """What a library finds in a JSON file that no plan stands on; None where that is no JSON. Nothing is recorded.

        InvalidFile for a link that leads outside, and for what is no regular file of at most 32 MiB.
        """
        with open_regular(self._locate(name), name) as file:
            if file.bytes > MAX_CONFIG_BYTES:
                raise InvalidFile(f"{shown(name)} is larger than 32 MiB, too large for a config. Fetch it again.")
            raw = file.read_at(0, file.bytes)
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            return None

    def refuse_links(self, folder: str) -> None:
        """InvalidFile for a link in a folder that leads outside the directory."""
        for name, is_link in self.names(folder).items():
            if is_link:
                self._refuse_outside(f"{folder}/{name}")

    def read_header(self, name: str) -> Header:
        """A safetensors file's header, recorded with its size and the header's hash."""
        header = read_header(self._locate(name), name)
        self.files[name] = StoredFile(bytes=header.file_bytes, sha256=header.sha256)
        return header

    def read_header_text(self, name: str) -> bytes:
        """The JSON text of a header that ``read_header`` accepted; not recorded."""
        return read_header_text(self._locate(name), name)

    def measure(self, name: str) -> int:
        """Size in bytes of a regular file that isn't read, recorded without a hash of its content.

        Only of one that is too small for weights the first bytes are looked at: it may stand for the real file.
        """
        with open_regular(self._locate(name), name) as file:
            if file.bytes < _SMALLEST_WEIGHTS_BYTES and is_stand_in(file.read_at(0, file.bytes)):
                raise InvalidFile(f"{shown(name)} is empty or a Git LFS pointer. Run: git lfs pull, or fetch it again.")
            self.files[name] = StoredFile(bytes=file.bytes, sha256=_EMPTY_SHA256)
            return file.bytes

    def content_digest(self, folder: str) -> str:
        """Hash over names and contents of a folder's files, for what is not otherwise read; nothing is recorded.

        Of what is no regular file, or can't be read, only the name counts.
        """
        digest = hashlib.sha256()
        for name in sorted(self.names(folder)):
            digest.update(f"\0{name}\0".encode("utf-8", "surrogateescape"))
            with suppress(InvalidFile), open_regular(self._locate(f"{folder}/{name}"), name) as file:
                for start in range(0, file.bytes, _CHUNK_BYTES):
                    digest.update(file.read_at(start, min(_CHUNK_BYTES, file.bytes - start)))
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """Hash over name, size and hash of everything that was read."""
        digest = hashlib.sha256()
        for name, file in sorted(self.files.items()):
            digest.update(f"{name}\0{file.bytes}\0{file.sha256}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def _list(self, folder: str) -> dict[str, bool]:
        if folder:
            if folder not in self.names() or not self.has_folder(folder):
                return {}
            if self.names()[folder]:
                self._refuse_outside(folder)
        found: dict[str, bool] = {}
        try:
            with os.scandir(os.path.join(self._root, folder)) as entries:
                for entry in entries:
                    is_link = entry.is_symlink()
                    if not is_link or os.path.exists(entry.path):
                        found[entry.name] = is_link
        except OSError as error:
            raise InvalidFile(
                f"{shown(folder or str(self.path))} can't be listed: {error.strerror}. Check its permissions."
            ) from error
        return found

    def _locate(self, name: str) -> str:
        folder, _, base = name.rpartition("/")
        if self.names(folder).get(base):
            self._refuse_outside(name)
        return os.path.join(self._root, name)

    def _refuse_outside(self, name: str) -> None:
        target = os.path.realpath(os.path.join(self._root, name))
        for allowed in (self._root, *self._blobs):
            if target.startswith(allowed.rstrip(os.sep) + os.sep):
                return
        cache = os.path.realpath(hub_cache()) + os.sep
        if target.startswith(cache) and _CACHED_BLOB.fullmatch(target[len(cache) :]):
            return
        raise InvalidFile(
            f"{shown(name)} is a link that leads outside the model directory, to {quoted(target)}. "
            "Copy the file into the directory."
        )
