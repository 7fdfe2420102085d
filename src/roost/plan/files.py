"""Plans as YAML files: canonical text out, whole or not at all; strict, bounded reading in."""

from __future__ import annotations

import os
import re
from pathlib import Path

from roost.errors import InvalidFile, UsageError
from roost.plan.schema import SCHEMA_VERSION, PlanDocument
from roost.plan.strict_yaml import MAX_BYTES, NotValid, to_yaml, validated, yaml_mapping
from roost.shell_quoting import command, shown_path, unwritable
from roost.temporary import temporary_file

_ELSEWHERE = "choose another place with -o"


def plan_to_yaml(plan: PlanDocument) -> str:
    """The plan's canonical text: schema order, block style, one line a value where it fits."""
    return to_yaml(plan.model_dump(mode="json", by_alias=True))


def read_plan(path: Path) -> PlanDocument:
    """The validated plan in the file at ``path``.

    Raises InvalidFile, in one line, for anything else: not a regular file, over ``MAX_BYTES``, not YAML, or not
    the schema.
    """
    found: dict[object, object] = {}
    try:
        found = yaml_mapping(_read(path), "plan")
        version = found.get("schema")
        if type(version) is int and version > SCHEMA_VERSION:
            raise NotValid(f"schema: {version} is of a newer Roost, this one reads {SCHEMA_VERSION}")
        return validated(found, PlanDocument, "plan")
    except NotValid as error:
        raise _invalid(path, str(error), _other_remedy(found, error)) from None


def _other_remedy(found: dict[object, object], error: NotValid) -> str:
    """What to do before planning again, when a newer version may have written the plan."""
    versions = found.get("versions")
    written = versions.get("roost") if isinstance(versions, dict) else None
    here = _version_here()
    if not isinstance(written, str) or here is None:
        return ""
    if _release(written) > _release(here):
        return f"it was written by a newer version, Roost {written[:40]!r}, and this is {here}: update Roost, or "
    if error.unknown_keys:
        return f"such keys are written by a newer version than this, Roost {here}, or by hand: take them out, or "
    return ""


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparing: ``0.10.1rc2`` is (0, 10, 1)."""
    found = re.match(r"\d{1,9}(\.\d{1,9}){0,5}", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _version_here() -> str | None:
    from importlib import metadata  # imported here: only a plan that can't be read needs it

    try:
        return metadata.version("roost")
    except metadata.PackageNotFoundError:
        return None


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise InvalidFile(f"plan {shown_path(path)} is not a file; make one with: {_planning(path)}")
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidFile(f"plan {shown_path(path)} can't be read: {error.strerror}; check its permissions.") from None
    except ValueError:  # a null byte in the path
        raise InvalidFile(f"plan path {shown_path(path)} is not a path; check its spelling.") from None


def _invalid(path: Path, problem: str, other_remedy: str = "") -> InvalidFile:
    remedy = f"{other_remedy}plan again with: {_planning(path)}"
    return InvalidFile(f"plan {shown_path(path)} is not valid: {problem}; {remedy}")


def _planning(path: Path) -> str:
    """What to type for a plan at ``path``, as far as one can be written there."""
    if path.is_dir():
        return command("roost", "plan", path, "-o", "PLAN")
    return command("roost", "plan", "MODEL", "-o", "PLAN" if path.exists() and not path.is_file() else path)


def write_text_atomically(path: Path, text: str, remedy: str = _ELSEWHERE) -> None:
    """Replaces ``path`` by a file with ``text``, as ``write_bytes_atomically`` does."""
    write_bytes_atomically(path, text.encode(), remedy)


def write_bytes_atomically(path: Path, raw: bytes, remedy: str = _ELSEWHERE) -> None:
    """Replaces ``path`` by a file with ``raw``: old or new content after a crash, never a mixture.

    Folders that lack are made. Raises UsageError for a place that can't hold a file, RoostError for a disk that fails;
    an old file is then intact.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"can't write {shown_path(path)}: it is not a regular file; {remedy}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path) as temporary:
            with temporary.open("wb") as stream:
                stream.write(raw)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        _sync_directory(path.parent)
    except (OSError, ValueError) as error:
        raise unwritable(path, error, remedy) from None


def _sync_directory(directory: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows can't open a directory
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
