"""The one place that talks to NVML: the devices it lists, their memory, and what its errors mean to a person."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_log = logging.getLogger(__name__)

# Sentences by the class of nvidia-ml-py's exception, so that the package need not be imported to read them.
_MEANINGS = {
    "NVMLError_LibraryNotFound": "The NVML library is missing: no NVIDIA driver is installed, or this container was "
    "started without it.",
    "NVMLError_DriverNotLoaded": "The NVIDIA kernel driver is not loaded: there is no NVIDIA GPU, or its driver is "
    "not installed.",
    "NVMLError_LibRmVersionMismatch": "The NVIDIA driver and its NVML library differ in version, as after an update; "
    "restart the machine.",
    "NVMLError_NoPermission": "No permission to ask the NVIDIA driver; check the access to /dev/nvidia* or the "
    "container's devices.",
    "NVMLError_GpuIsLost": "The GPU is lost: it hung or fell off the bus; restart the machine.",
    "NVMLError_ResetRequired": "The GPU needs a reset before it can be used; restart the machine.",
    "NVMLError_InsufficientPower": "The GPU's external power cables are not attached.",
    "NVMLError_IrqIssue": "The NVIDIA kernel driver has an interrupt problem with the GPU; see the kernel log.",
    "NVMLError_OperatingSystem": "The operating system blocked the request to the NVIDIA driver.",
    "NVMLError_Timeout": "The NVIDIA driver did not answer in time.",
    "NVMLError_NotSupported": "NVML does not report this GPU's memory, as with memory that it shares with the host "
    "(unified): name the card and say how much it may use, with --gpu NAME --vram SIZE.",
    "NVMLError_Unknown": "NVML failed without a cause (unknown error); see the kernel log.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A card, or one MIG device of it. ``card`` is the physical card's handle, which answers what a MIG one can't."""

    index: int  # of the card, in NVML's order
    handle: Any
    card: Any
    uuid: str | None
    card_uuid: str | None
    name: str
    mig: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReading:
    """One look at a device's memory. ``used_bytes`` and ``reserved_bytes`` are None where NVML lumps them together."""

    total_bytes: int
    free_bytes: int
    used_bytes: int | None
    reserved_bytes: int | None


def explain(error: Exception) -> str:
    """An NVML error as one sentence with its remedy, where there is one."""
    return _MEANINGS.get(type(error).__name__, f"NVML failed: {error}.")


def ask(nvml: Any, query: Callable[..., Any], *arguments: Any) -> Any:
    """What an NVML function answers, or None when it refuses."""
    try:
        return query(*arguments)
    except nvml.NVMLError:
        return None


def list_devices(nvml: Any) -> tuple[list[Device], list[str]]:
    """Every card in PCI order, MIG ones as their MIG devices; and a sentence for each that can't be used."""
    devices: list[Device] = []
    problems: list[str] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            devices += _open_card(nvml, index)
        except nvml.NVMLError as error:
            problems.append(f"GPU {index}: {explain(error)}")
        else:
            if not any(device.index == index for device in devices):
                problems.append(f"GPU {index}: MIG mode is on but it has no MIG device; create one or turn MIG off.")
    _log.debug("NVML: %s; problems: %s", [(each.index, each.name, each.uuid) for each in devices], problems)
    return devices, problems


def read_memory(nvml: Any, handle: Any) -> MemoryReading:
    """Total, free and reserved memory now, as NVML reports each of them; raises NVMLError when it reports none.

    Free is NVML's own figure: drivers disagree on whether used memory includes what is reserved.
    """
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except nvml.NVMLError:  # drivers before 510 have only the first version, without reserved memory
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    if not memory.total:
        raise nvml.NVMLError_NotSupported
    split = hasattr(memory, "reserved")
    return MemoryReading(
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
        used_bytes=int(memory.used) if split else None,
        reserved_bytes=int(memory.reserved) if split else None,
    )


def _open_card(nvml: Any, index: int) -> list[Device]:
    card = nvml.nvmlDeviceGetHandleByIndex(index)
    uuid = ask(nvml, nvml.nvmlDeviceGetUUID, card)
    mode = ask(nvml, nvml.nvmlDeviceGetMigMode, card)
    mig = mode is not None and mode[0] == nvml.NVML_DEVICE_MIG_ENABLE
    return [
        Device(
            index=index,
            handle=handle,
            card=card,
            uuid=ask(nvml, nvml.nvmlDeviceGetUUID, handle),
            card_uuid=uuid,
            name=nvml.nvmlDeviceGetName(handle),
            mig=mig,
        )
        for handle in (_list_mig_handles(nvml, card) if mig else [card])
    ]


def _list_mig_handles(nvml: Any, card: Any) -> list[Any]:
    places = range(nvml.nvmlDeviceGetMaxMigDeviceCount(card))
    handles = (ask(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, card, place) for place in places)
    return [handle for handle in handles if handle is not None]
