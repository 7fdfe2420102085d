"""Which GPUs ``CUDA_VISIBLE_DEVICES`` lets CUDA see, in CUDA's order; NVML itself ignores the variable."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from roost.probes.nvml import Device

_LEADING_NUMBER = re.compile(r"\+?\d+")


def choose_visible(devices: Sequence[Device], environ: Mapping[str, str]) -> list[Device]:
    """The devices that CUDA would enumerate, in its order.

    Entries are indices, UUIDs, unique beginnings of UUIDs or MIG UUIDs. Like CUDA, an invalid entry hides itself and
    all later ones, and a repeated one hides everything. Indices are taken in PCI order, which is CUDA's only with
    ``CUDA_DEVICE_ORDER=PCI_BUS_ID``: ``doubt_order`` says when that is uncertain, and UUIDs never are.
    """
    variable = environ.get("CUDA_VISIBLE_DEVICES")
    if variable is None:
        # With any MIG device CUDA enumerates no whole card, so those come first.
        return sorted(devices, key=lambda each: not each.mig)
    chosen: list[Device] = []
    for entry in variable.split(","):
        device = _find_device(devices, entry.strip())
        if device is None:
            break
        if device in chosen:
            return []
        chosen.append(device)
    return chosen


def doubt_order(devices: Sequence[Device], environ: Mapping[str, str]) -> str | None:
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


def _find_device(devices: Sequence[Device], entry: str) -> Device | None:
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
