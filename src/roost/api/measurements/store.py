"""What the store holds: listed, exported, imported, deleted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from roost.errors import InvalidFile, RoostError, UsageError
from roost.plan import write_text_atomically
from roost.plan.measurements import Collection
from roost.plan.strict_yaml import MAX_BYTES, NotValid, to_yaml, validated, yaml_mapping
from roost.profiles.store import Kept, MeasuredStore
from roost.regular_files import read_regular
from roost.shell_quoting import shown_path
from roost.units import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Every entry with its key, where they are, and what could not be used."""

    folder: Path
    entries: tuple[Kept, ...]
    notes: tuple[str, ...]

    def document(self) -> dict[str, object]:
        """What ``roost profiles --json`` prints: of the runs, only how many."""
        return {
            "schema": 1,
            "folder": str(self.folder),
            "entries": [
                {
                    "key": kept.key,
                    **kept.entry.model_dump(mode="json", exclude={"schema_version", "residuals"}),
                    "runs": len(kept.entry.residuals),
                    "newest": kept.entry.newest,
                }
                for kept in self.entries
            ],
            "notes": list(self.notes),
        }


def list_measured() -> Listing:
    """Everything that was measured on this machine."""
    store = MeasuredStore()
    entries = tuple(store.entries())
    return Listing(folder=store.folder, entries=entries, notes=tuple(store.notes))


def export_measured() -> Collection:
    """Everything that was measured on this machine, in one document."""
    return Collection(entries=[kept.entry for kept in list_measured().entries])


def write_export(collection: Collection, path: Path) -> None:
    """Writes the document as YAML; raises UsageError for a place that can't hold it."""
    write_text_atomically(path, export_text(collection))


def export_text(collection: Collection) -> str:
    """The document as YAML; raises RoostError for one that ``import_measured`` would not read."""
    text = to_yaml(collection.model_dump(mode="json", by_alias=True))
    if len(text.encode()) > MAX_BYTES:
        raise RoostError(
            f"the {len(collection.entries)} entries make {format_bytes(len(text.encode()))}, and import reads at most"
            f" {format_bytes(MAX_BYTES)}; delete some with: roost profiles delete KEY"
        )
    return text


def import_measured(path: Path) -> int:
    """Puts every entry of an exported file in place of what its key has, and says how many.

    Raises InvalidFile for anything but an export; nothing is then imported.
    """
    try:
        mapping = yaml_mapping(read_regular(path, MAX_BYTES + 1), "collection")
        collection = validated(mapping, Collection, "export")
    except OSError as error:
        raise InvalidFile(f"{shown_path(path)} can't be read: {error.strerror}; check its name.") from None
    except ValueError as error:
        problem = str(error) if isinstance(error, NotValid) else "its name is not a path"
        raise InvalidFile(
            f"{shown_path(path)} is not what roost profiles export writes: {problem}; export it again."
        ) from None
    store = MeasuredStore()
    for entry in collection.entries:
        store.put(entry)
    return len(collection.entries)


def delete_measured(key: str | None, *, everything: bool = False) -> int:
    """Deletes one entry or, with ``everything``, all files; says how many. UsageError for a key that isn't there."""
    if (key is None) is not everything:
        raise UsageError("say which to delete: either a KEY that roost profiles lists, or --all.")
    store = MeasuredStore()
    if key is None:
        return store.delete_all()
    store.delete(key)
    return 1
