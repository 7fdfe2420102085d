"""Host memory that a run may take, and room on a disk."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path

from roost.facts.machine import HostFacts
from roost.probes.machine.cgroup import MemoryBound, list_memory_bounds
from roost.units import KiB

_log = logging.getLogger(__name__)

_PINNABLE_SHARE = 0.8  # pinned pages can't be swapped or moved; the rest stays for everything else


def read_host(
    ram_bytes: int | None = None,
    pinned_max_bytes: int | None = None,
    *,
    proc: Path = Path("/proc"),
    root: Path = Path("/"),
) -> HostFacts:
    """Memory available now: the least that the system and every control group above this process leave.

    ``ram_bytes`` replaces what is found, ``pinned_max_bytes`` the share of it that may be pinned; ``proc`` and
    ``root`` stand for ``/proc`` and ``/``.
    """
    if ram_bytes is None:
        tightest = min((_read_system_bound(), *list_memory_bounds(proc, root)), key=lambda bound: bound.available_bytes)
        available, source = tightest.available_bytes, tightest.source
    else:
        available, source = ram_bytes, "--ram"
    _log.debug("host memory: %d bytes available by %s", available, source)
    if pinned_max_bytes is None:
        pinnable = int(available * _PINNABLE_SHARE)
    else:
        pinnable, source = min(pinned_max_bytes, available), f"{source}, --pinned-max"
    return HostFacts(available_bytes=available, pinnable_bytes=pinnable, source=source, ram_typed=ram_bytes is not None)


def read_unified() -> tuple[int, int]:
    """Total and available bytes of a memory that a GPU shares with this host."""
    import psutil  # as below

    return int(psutil.virtual_memory().total), read_host().available_bytes


def free_disk_bytes(path: Path) -> int:
    """Room for files at ``path``, which need not exist yet: then its nearest existing parent counts."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def peak_rss_bytes(proc: Path = Path("/proc")) -> int | None:
    """The most memory this process ever had resident; None where the system doesn't say."""
    # getrusage would tell the peak of whoever started this process, where that was higher.
    return _read_status(proc, "VmHWM")


def private_bytes(proc: Path = Path("/proc")) -> int | None:
    """Resident memory of this process that no file stands behind, pinned pages included; None where nobody says."""
    anonymous, shared = _read_status(proc, "RssAnon"), _read_status(proc, "RssShmem")
    return None if anonymous is None else anonymous + (shared or 0)


def _read_status(proc: Path, field: str) -> int | None:
    try:
        lines = (proc / "self/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    words = next((line.split() for line in lines if line.startswith(f"{field}:")), [])
    return int(words[1]) * KiB if len(words) > 1 and words[1].isdecimal() else None


def _read_system_bound() -> MemoryBound:
    import psutil  # 40 ms that `roost --help` can do without

    source = "MemAvailable" if sys.platform == "linux" else "the operating system"
    return MemoryBound(available_bytes=psutil.virtual_memory().available, source=source)
