"""A published model's directory that nobody has to have: the same questions, answered from the package's data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from roost.errors import InvalidFile
from roost.facts.model import PublishedModel, StoredFile
from roost.probes.files.headers import Header, header_of
from roost.probes.files.strict_json import config_decoder, decode_strict, parse_strict
from roost.probes.model.directory import ModelDirectory


class PublishedDirectory(ModelDirectory):
    """Reads like the directory that ``roost model-dir`` writes for the same model."""

    def __init__(self, model: PublishedModel) -> None:
        self.path = Path(model.name)
        self.files: dict[str, StoredFile] = {}
        self._model = model
        self._names = _names_by_folder([*model.documents, *model.tokenizers, *model.weights])

    def names(self, folder: str = "") -> Mapping[str, bool]:
        return self._names.get(folder, {})

    def has_folder(self, folder: str) -> bool:
        return bool(folder) and folder in self._names

    def read_object(self, name: str, *, infinities: bool = False) -> dict[str, Any]:
        raw = self._model.documents[name]

        def reject(reason: str) -> NoReturn:
            raise InvalidFile(f"{self._model.name}: {name} isn't valid JSON: {reason}. Install Roost again.")

        parsed: dict[str, Any] = parse_strict(
            decode_strict(raw, reject), reject, decoder=config_decoder(infinities=infinities)
        )
        self.files[name] = StoredFile(bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
        return parsed

    def peek(self, name: str) -> object:
        return None  # the package's own data name nothing outside

    def read_header(self, name: str) -> Header:
        header = header_of(self._model.weights[name].header, name)
        self.files[name] = StoredFile(bytes=header.file_bytes, sha256=header.sha256)
        return header

    def read_header_text(self, name: str) -> bytes:
        return self._model.weights[name].header


def _names_by_folder(file_names: list[str]) -> dict[str, Mapping[str, bool]]:
    """Folder ("" is the root) -> its names, none of them a link."""
    found: dict[str, dict[str, bool]] = {"": {}}
    for file_name in file_names:
        folder, _, base = file_name.rpartition("/")
        found.setdefault(folder, {})[base] = False
        if folder:
            found[""][folder] = False
    return dict(found)
