"""What was measured on this machine, kept in the user's data directory: a YAML file for each device and model class.

Nothing here can end a run or a plan: a file that can't be used is left out with a note, and set aside, not
overwritten, when new measurements come. Writers take turns by a lock.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from roost.errors import RoostError, UsageError
from roost.plan import write_text_atomically
from roost.plan.measurements import MEASURED_VERSION, DeviceKey, MeasuredEntry
from roost.plan.strict_yaml import MAX_BYTES, NotValid, to_yaml, validated, yaml_mapping
from roost.profiles.lock import locked
from roost.regular_files import read_regular
from roost.shell_quoting import shown_path
from roost.user_folders import user_folder

_SUFFIX, _ASIDE = ".yaml", ".unusable"
_DEVICE_FILE = "device"  # no model class has this slug: theirs end in a hash
_LOCK = ".lock"
_REMEDY = "set XDG_DATA_HOME to a place that can be written"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An entry with the name that ``delete`` takes, like ``emulated-1f0c2a/device``."""

    key: str
    entry: MeasuredEntry


class MeasuredStore:
    """The entries below ``folder`` (the user's data directory). ``notes`` gathers what could not be used."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = user_folder("data") / "measured" if folder is None else folder
        self.notes: list[str] = []

    def read(self, device: DeviceKey, model_class: str | None) -> MeasuredEntry | None:
        """The entry; None when there is none that can be used."""
        entry = self._read(self._path(device, model_class))
        return entry if entry and (entry.device, entry.model_class) == (device, model_class) else None

    def entries(self) -> list[Kept]:
        """Every entry that can be used, by key."""
        found = ((_key(path), self._read(path)) for path in self._files())
        return [Kept(key=key, entry=entry) for key, entry in found if entry is not None]

    def devices(self) -> list[DeviceKey]:
        """The devices that have entries."""
        return sorted({kept.entry.device for kept in self.entries()}, key=lambda device: device.text)

    def update(
        self, device: DeviceKey, model_class: str | None, change: Callable[[MeasuredEntry], MeasuredEntry]
    ) -> MeasuredEntry:
        """Puts ``change`` of the kept entry, or of an empty one, in its place and returns it.

        No other writer comes between. Raises RoostError when the store can't be written or is busy for long.
        """
        path = self._path(device, model_class)
        with self._writing(path.parent):
            old = self.read(device, model_class)
            if old is None and path.exists():
                self._set_aside(path)
            new = change(old or MeasuredEntry(device=device, model_class=model_class))
            _write(path, new)
        return new

    def put(self, entry: MeasuredEntry) -> None:
        """Keeps ``entry`` in place of what its key has."""
        self.update(entry.device, entry.model_class, lambda _: entry)

    def delete(self, key: str) -> None:
        """Deletes one entry; raises UsageError when there is none of that name."""
        path = next((path for path in self._files() if _key(path) == key), None)
        if path is None:
            raise UsageError(f"nothing is kept under {key!r}; roost profiles lists what there is.")
        with self._writing(path.parent):
            path.unlink(missing_ok=True)

    def delete_all(self) -> int:
        """Deletes every file, unusable ones too, and says how many."""
        files = [*self._files(), *self.folder.glob(f"*/*{_ASIDE}*")]
        with self._writing(self.folder):
            for path in files:
                path.unlink(missing_ok=True)
        return len(files)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"*/*{_SUFFIX}"))

    def _path(self, device: DeviceKey, model_class: str | None) -> Path:
        name = _DEVICE_FILE if model_class is None else _slug(model_class, model_class)
        words = f"emulated {device.h2d_bytes_per_s or ''}" if device.device_kind == "emulated" else device.name
        return self.folder / _slug(words, device.model_dump_json()) / f"{name}{_SUFFIX}"

    def _read(self, path: Path) -> MeasuredEntry | None:
        try:
            mapping = yaml_mapping(read_regular(path, MAX_BYTES + 1), "store")
            version = mapping.get("schema")
            if type(version) is int and version > MEASURED_VERSION:
                raise NotValid("a newer Roost wrote it")
            return validated(mapping, MeasuredEntry, "entry")
        except FileNotFoundError:
            return None
        except OSError as error:
            self._note(path, error.strerror or str(error))
        except NotValid as error:
            self._note(path, str(error))
        return None

    def _note(self, path: Path, problem: str) -> None:
        note = f"measurements in {shown_path(path)} are not used: {problem}"
        if note not in self.notes:
            self.notes.append(note)

    @contextmanager
    def _writing(self, folder: Path) -> Iterator[None]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / _LOCK):
                yield
        except OSError as error:
            raise RoostError(
                f"measurements can't be kept in {shown_path(self.folder)}: {error.strerror}; {_REMEDY}."
            ) from None

    def _set_aside(self, path: Path) -> None:
        """Gives an unusable file another name, so that nothing of it is lost."""
        number = 1
        while (aside := path.with_name(f"{path.name}{_ASIDE}-{number}")).exists():
            number += 1
        os.replace(path, aside)


def _write(path: Path, entry: MeasuredEntry) -> None:
    try:
        write_text_atomically(path, to_yaml(entry.model_dump(mode="json", by_alias=True)), _REMEDY)
    except RoostError as error:
        raise RoostError(f"measurements: {error}") from None


def _key(path: Path) -> str:
    return f"{path.parent.name}/{path.name.removesuffix(_SUFFIX)}"


def _slug(words: str, whole: str) -> str:
    """A file name that shows ``words`` and is unique for ``whole``."""
    shown = re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-.")[:60]
    return f"{shown or 'x'}-{hashlib.sha256(whole.encode()).hexdigest()[:6]}"
