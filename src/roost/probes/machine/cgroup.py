"""The memory limits that Linux control groups put on this process, at every level of every hierarchy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_UNLIMITED = 2**62  # version 1 writes "none" as a number just under 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBound:
    """What one level still lets its processes take, and the limit that says so."""

    available_bytes: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """The names that one version of the interface uses, all found in one level's directory."""

    version: str
    limits: tuple[str, ...]
    usage: str
    events: str  # has a line "oom_kill N": processes that the kernel has killed for memory
    reclaimable: tuple[str, ...]  # keys of memory.stat: file cache that the kernel gives back under pressure
    hidden_limit: str | None  # key of memory.stat: the least limit among the ancestors, also those out of sight


_V1 = _Files(
    version="v1",
    limits=("memory.limit_in_bytes",),
    usage="memory.usage_in_bytes",
    events="memory.oom_control",
    reclaimable=("total_inactive_file", "total_active_file"),
    hidden_limit="hierarchical_memory_limit",
)
_V2 = _Files(
    version="v2",
    limits=("memory.max", "memory.high"),
    usage="memory.current",
    events="memory.events",
    reclaimable=("inactive_file", "active_file"),
    hidden_limit=None,
)


def list_memory_bounds(proc: Path, root: Path) -> list[MemoryBound]:
    """One bound for each limit that is set, from this process's group up to the top of what is mounted.

    ``proc`` and ``root`` stand for ``/proc`` and ``/``. No control groups, or none readable: an empty list.
    """
    bounds: list[MemoryBound] = []
    for files, top, level in _list_own_levels(proc, root):
        name = "/" if level == top else f"/{level.relative_to(top).as_posix()}"
        bounds += _read_bounds(files, level, name)
    return bounds


def count_oom_kills(proc: Path = Path("/proc"), root: Path = Path("/")) -> int | None:
    """How many processes of this process's group the kernel has killed for memory; None where nothing counts them.

    A kill counts in the group of its victim, whichever level's limit was exceeded.
    """
    counts: dict[str, int] = {}
    for files, _, level in _list_own_levels(proc, root):
        count = _read_stat(level / files.events).get("oom_kill")
        if count is not None:
            counts.setdefault(files.version, count)  # the group's own level comes first
    return sum(counts.values()) if counts else None


def _list_own_levels(proc: Path, root: Path) -> Iterator[tuple[_Files, Path, Path]]:
    """The interface, the mount and the directory of every level that holds this process."""
    memberships = _read_text(proc / "self/cgroup") or ""
    mounts = _read_text(proc / "self/mountinfo") or ""
    for files, group in _list_memberships(memberships):
        for mounted_group, mount_point in _list_mounts(mounts, files):
            top = root / mount_point.lstrip("/")
            for level in _list_levels(top, mounted_group, group):
                yield files, top, level


def _list_memberships(text: str) -> Iterator[tuple[_Files, str]]:
    """The memory groups in the lines ``id:controllers:path`` of /proc/self/cgroup; a hybrid system has two."""
    for line in text.splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            if not fields[1]:
                yield _V2, fields[2]
            elif "memory" in fields[1].split(","):
                yield _V1, fields[2]


def _list_mounts(text: str, files: _Files) -> Iterator[tuple[str, str]]:
    """(group at the root of the mount, mount point) for the mounts of that version in mountinfo."""
    for line in text.splitlines():
        head, _, tail = line.partition(" - ")
        left, right = head.split(" "), tail.split(" ")
        if len(left) < 5 or len(right) < 3:
            continue
        is_v1 = right[0] == "cgroup" and "memory" in right[2].split(",")
        if (files is _V1 and is_v1) or (files is _V2 and right[0] == "cgroup2"):
            yield _unescape(left[3]), _unescape(left[4])


def _list_levels(top: Path, mounted_group: str, group: str) -> list[Path]:
    """The directories from the group's own up to the mount; what a namespace hides is skipped."""
    inside = PurePosixPath(group)
    if inside.is_relative_to(mounted_group):
        inside = inside.relative_to(mounted_group)
    # A group outside the namespace shows as /../..: only the mount itself can be read then.
    parts = [part for part in inside.parts if part not in ("/", "..")] if ".." not in inside.parts else []
    levels = [top.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]
    return [level for level in levels if level.is_dir()]


def _read_bounds(files: _Files, level: Path, name: str) -> Iterator[MemoryBound]:
    """Limit and usage of the same level: a parent's usage against a child's limit would say nothing."""
    usage = _read_count(level / files.usage)
    if usage is None:
        return
    stat = _read_stat(level / "memory.stat")
    held = max(0, usage - sum(stat.get(key, 0) for key in files.reclaimable))
    limits = {limit: _read_count(level / limit) for limit in files.limits}
    if files.hidden_limit:
        limits[files.hidden_limit] = stat.get(files.hidden_limit)
    for limit, value in limits.items():
        if value is not None and value < _UNLIMITED:
            yield MemoryBound(available_bytes=max(0, value - held), source=f"cgroup {files.version} {name} {limit}")


def _read_stat(path: Path) -> dict[str, int]:
    lines = (line.split() for line in (_read_text(path) or "").splitlines())
    return {fields[0]: int(fields[1]) for fields in lines if len(fields) == 2 and fields[1].isdecimal()}


def _read_count(path: Path) -> int | None:
    text = (_read_text(path) or "").strip()
    return int(text) if text.isdecimal() else None  # "max" means no limit


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _unescape(field: str) -> str:
    """mountinfo writes a blank as ``\\040``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
