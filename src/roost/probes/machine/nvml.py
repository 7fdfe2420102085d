"""The one place that talks to NVML: its devices, those that CUDA sees, their memory, what its errors mean."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
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
class NvmlDevice:
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


def nvml_problem(error: Exception) -> str:
    """An NVML error as one sentence with its remedy, where there is one."""
    return _MEANINGS.get(type(error).__name__, f"NVML failed: {error}.")


def ask(nvml: Any, query: Callable[..., Any], *arguments: Any) -> Any:
    """What an NVML function answers, or None when it refuses."""
    try:
        return query(*arguments)
    except nvml.NVMLError:
        return None


def list_devices(nvml: Any) -> tuple[list[NvmlDevice], list[str]]:
    """Every card in PCI order, MIG ones as their MIG devices; and a sentence for each that can't be used."""
    devices: list[NvmlDevice] = []
    problems: list[str] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            devices += _open_card(nvml, index)
        except nvml.NVMLError as error:
            problems.append(f"GPU {index}: {nvml_problem(error)}")
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


def _open_card(nvml: Any, index: int) -> list[NvmlDevice]:
    card = nvml.nvmlDeviceGetHandleByIndex(index)
    uuid = ask(nvml, nvml.nvmlDeviceGetUUID, card)
    mode = ask(nvml, nvml.nvmlDeviceGetMigMode, card)
    mig = mode is not None and mode[0] == nvml.NVML_DEVICE_MIG_ENABLE
    return [
        NvmlDevice(
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


# Which GPUs ``CUDA_VISIBLE_DEVICES`` lets CUDA see, in CUDA's order; NVML itself ignores the variable.


_LEADING_NUMBER = re.compile(r"\+?\d+")


def choose_visible(devices: Sequence[NvmlDevice], environ: Mapping[str, str]) -> list[NvmlDevice]:
    """The devices that CUDA would enumerate, in its order.

    Entries are indices, UUIDs, unique beginnings of UUIDs or MIG UUIDs. Like CUDA, an invalid entry hides itself and
    all later ones, and a repeated one hides everything. Indices are taken in PCI order, which is CUDA's only with
    ``CUDA_DEVICE_ORDER=PCI_BUS_ID``: ``doubt_order`` says when that is uncertain, and UUIDs never are.
    """
    variable = environ.get("CUDA_VISIBLE_DEVICES")
    if variable is None:
        # With any MIG device CUDA enumerates no whole card, so those come first.
        return sorted(devices, key=lambda each: not each.mig)
    chosen: list[NvmlDevice] = []
    for entry in variable.split(","):
        device = _find_device(devices, entry.strip())
        if device is None:
            break
        if device in chosen:
            return []
        chosen.append(device)
    return chosen


def doubt_order(devices: Sequence[NvmlDevice], environ: Mapping[str, str]) -> str | None:
    """One sentence when CUDA may number these cards otherwise than NVML does, else None."""
    cards = {device.index: device.name for device in devices}
    if len(cards) < 2 or environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return None
    variable = environ.get("CUDA_VISIBLE_DEVICES")
    by_index = variable is not None and _LEADING_NUMBER.match(variable.strip()) is not None
    if by_index or (variable is None and len(set(cards.values())) > 1):
        return (
            "CUDA may number several cards fastest first, unlike this list: "
            "set CUDA_VISIBLE_DEVICES to a UUID, or CUDA_DEVICE_ORDER=PCI_BUS_ID."
        )
    return None


def _find_device(devices: Sequence[NvmlDevice], entry: str) -> NvmlDevice | None:
    """The one device that an entry names; a MIG card named as a whole stands for its first MIG device."""
    number = _LEADING_NUMBER.match(entry)
    if number is not None:
        return next((each for each in devices if each.index == int(number[0])), None)
    if not entry.startswith(("GPU-", "MIG-")):
        return None
    named = [each for each in devices if each.uuid and each.uuid.startswith(entry)]
    if named:
        return named[0] if len(named) == 1 else None
    cards = {each.index for each in devices if each.card_uuid and each.card_uuid.startswith(entry)}
    return next((each for each in devices if cards == {each.index}), None)
