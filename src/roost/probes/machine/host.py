"""Host memory that a run's masters may take, its NUMA nodes, and room on a disk."""

from __future__ import annotations

import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from roost.facts.machine import PROCESS_BYTES, DeviceKind, HostFacts, system_bytes_of
from roost.probes.machine.cgroup import MemoryBound, list_memory_bounds
from roost.units import KiB

_log = logging.getLogger(__name__)

_PINNABLE_SHARE = 0.8  # pinned pages can't be swapped or moved; the rest stays for everything else


def read_host(
    ram_bytes: int | None = None,
    pinned_max_bytes: int | None = None,
    device_kind: DeviceKind = "cuda",
    *,
    proc: Path = Path("/proc"),
    root: Path = Path("/"),
) -> HostFacts:
    """Memory for masters: the least that the system and every control group above this process leave now.

    ``ram_bytes`` is the memory of a whole machine instead, ``pinned_max_bytes`` the share that may be pinned; ``proc``
    and ``root`` stand for ``/proc`` and ``/``. What a run's process needs beside masters is subtracted, and of a whole
    machine what its system needs.
    """
    system_bytes, process_bytes = 0, PROCESS_BYTES[device_kind]
    if ram_bytes is None:
        bound = min((_read_system_bound(), *list_memory_bounds(proc, root)), key=lambda each: each.available_bytes)
        there, source = bound.available_bytes, bound.source
        process_bytes = max(0, process_bytes - (private_bytes(proc) or 0))  # what it has taken isn't available now
    else:
        there, source, system_bytes = ram_bytes, "--ram", system_bytes_of(ram_bytes)
    host = host_of(there, system_bytes, process_bytes, source)
    _log.debug("host memory: %d bytes of %d available by %s", host.available_bytes, there, source)
    if pinned_max_bytes is not None:
        pinnable = min(pinned_max_bytes, host.available_bytes)
        host = replace(host, pinnable_bytes=pinnable, source=f"{source}, --pinned-max")
    return replace(host, ram_typed=ram_bytes is not None)


def host_of(there_bytes: int, system_bytes: int, process_bytes: int, source: str) -> HostFacts:
    """What is left of so much memory, of which most may be pinned."""
    system_bytes = min(system_bytes, there_bytes)
    process_bytes = min(process_bytes, there_bytes - system_bytes)
    available = there_bytes - system_bytes - process_bytes
    return HostFacts(
        available_bytes=available,
        pinnable_bytes=int(available * _PINNABLE_SHARE),
        source=source,
        system_bytes=system_bytes,
        process_bytes=process_bytes,
    )


def with_weights_here(host: HostFacts, device_kind: DeviceKind, weights_bytes: int) -> HostFacts:
    """The host for a plan that this very process runs, which has ``weights_bytes`` of its weights in memory already.

    What is available now doesn't count those, and what the process takes beside them is measured.
    """
    taken_bytes = max(0, (private_bytes() or 0) - weights_bytes)
    if host.ram_typed:
        there, process_bytes = host.there_bytes, max(host.process_bytes, taken_bytes)
    else:
        there = host.there_bytes + weights_bytes
        process_bytes = max(0, PROCESS_BYTES[device_kind] - taken_bytes)
    found = host_of(there, host.system_bytes, process_bytes, host.source)
    return replace(found, pinnable_bytes=min(host.pinnable_bytes, found.available_bytes), ram_typed=host.ram_typed)


def memory_nodes(root: Path = Path("/")) -> tuple[int, ...]:
    """The numbers of the NUMA nodes that have memory and CPUs; none where the system doesn't say.

    Memory on a node without CPUs is a device's own, or slower than the others'.
    """
    folder = root / "sys/devices/system/node"
    try:
        having = [_numbers((folder / name).read_text(encoding="ascii")) for name in ("has_memory", "has_cpu")]
    except (OSError, ValueError):
        return ()
    return tuple(sorted(set.intersection(*having)))


def _numbers(text: str) -> set[int]:
    """Those of a list like 0-3,8. Raises ValueError for anything else."""
    ranges = (each.partition("-") for each in text.strip().split(",") if each)
    return {number for first, _, last in ranges for number in range(int(first), int(last or first) + 1)}


def read_unified() -> tuple[int, int]:
    """Total and available bytes of a memory that a GPU shares with this host."""
    import psutil  # as below

    return int(psutil.virtual_memory().total), read_host().there_bytes


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
