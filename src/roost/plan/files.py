"""Plans as YAML files: canonical text out, whole or not at all; strict, bounded reading in."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Hashable
from pathlib import Path

import yaml
from pydantic import ValidationError

from roost.errors import InvalidFile, RoostError
from roost.plan.schema import PlanDocument

MAX_PLAN_BYTES = 1024 * 1024
_LEFTOVER = ".roost-tmp"


class _PlanLoader(yaml.SafeLoader):
    """The pure-Python safe loader (the C one can be crashed by nesting), without aliases or duplicate keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: keys must be plain names")
            if key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: duplicate key {key.value!r}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _PlanDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        # YAML takes these for line breaks, and only double quotes escape them.
        style = '"' if re.search("[\x85\u2028\u2029]", text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_PlanDumper.add_representer(str, _PlanDumper.represent_text)


def plan_to_yaml(plan: PlanDocument) -> str:
    """The plan's canonical text: schema order, block style, one line a value where it fits."""
    return yaml.dump(
        plan.model_dump(mode="json", by_alias=True),
        Dumper=_PlanDumper,
        sort_keys=False,
        allow_unicode=True,
        width=1000,
        default_flow_style=False,
    )


def read_plan(path: Path) -> PlanDocument:
    """The validated plan in the file at ``path``.

    Raises InvalidFile, in one line, for anything else: not a regular file, over 1 MiB, not YAML, or not the schema.
    """
    text = _read_text(path)
    try:
        document = yaml.load(text, _PlanLoader)  # derived from SafeLoader
    except RecursionError:
        raise _invalid(path, "it nests too deeply") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise _invalid(path, f"it is not a plan's YAML ({_one_line(error)})") from None
    if not isinstance(document, dict):
        raise _invalid(path, "it is not a mapping")
    try:
        return PlanDocument.model_validate(document)
    except ValidationError as error:
        raise _invalid(path, _first_problems(error)) from None
    except RecursionError:
        raise _invalid(path, "it nests too deeply") from None


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            raise InvalidFile(f"plan {str(path)!r} is not a file; make one with: roost plan MODEL -o {path}")
        with path.open("rb") as stream:
            raw = stream.read(MAX_PLAN_BYTES + 1)
    except OSError as error:
        raise InvalidFile(f"plan {str(path)!r} can't be read: {error.strerror}; check its permissions.") from None
    except ValueError:  # a null byte in the path
        raise InvalidFile(f"plan path {str(path)!r} is not a path; check its spelling.") from None
    if len(raw) > MAX_PLAN_BYTES:
        raise _invalid(path, "it is larger than 1 MiB")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _invalid(path, "it is not UTF-8 text") from None


def _invalid(path: Path, problem: str) -> InvalidFile:
    return InvalidFile(f"plan {str(path)!r} is not valid: {problem}; plan again with: roost plan MODEL -o {path}")


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error))[:300]


def _first_problems(error: ValidationError) -> str:
    problems = [
        f"{'.'.join(str(part) for part in each['loc']) or 'plan'}: {each['msg']}" for each in error.errors()[:3]
    ]
    more = error.error_count() - len(problems)
    return _one_line(Exception("; ".join(problems) + (f"; and {more} more" if more else "")))


def write_text_atomically(path: Path, text: str) -> None:
    """Replaces ``path`` by a file with ``text``: old or new content after a crash, never a mixture.

    Raises RoostError when the directory can't be written; the old file is then intact.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    if path.exists() and not path.is_file():
        raise RoostError(f"can't write {str(path)!r}: it is not a regular file; choose another place with -o.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{_LEFTOVER}")
    try:
        _sweep(path)
        with temporary.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise RoostError(f"can't write {str(path)!r}: {reason}; choose another place with -o.") from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sweep(path: Path) -> None:
    """Removes what writers of the same file left behind when they were killed."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.[0-9a-f]{{8}}{re.escape(_LEFTOVER)}")
    for entry in path.parent.iterdir():
        match = pattern.fullmatch(entry.name)
        if match and not _is_running(int(match[1])):
            entry.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        import psutil  # imported here: only a leftover needs it

        return psutil.pid_exists(pid)
    except (OverflowError, ValueError):
        return False


def _sync_directory(directory: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows can't open a directory
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
