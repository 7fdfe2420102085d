"""Which device a plan runs on."""

from __future__ import annotations

import logging

import torch

from roost.facts.machine import DeviceKind
from roost.residency.device.cuda import CudaDevice
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.device.interface import Device

_log = logging.getLogger(__name__)


def has_cuda() -> bool:
    """Whether PyTorch finds a CUDA device."""
    return torch.cuda.is_available()


def open_device(
    device_kind: DeviceKind, budget_bytes: int, headroom_bytes: int = 0, link_bytes_per_s: float | None = None
) -> Device:
    """The device of that kind, holding at most ``budget_bytes``. UsageError for CUDA on a machine without it.

    Half of ``headroom_bytes`` is for the gaps of a real one's allocator. ``link_bytes_per_s`` throttles the copies of
    an emulated one, each way.
    """
    _log.debug("opening the %s device with %d bytes", device_kind, budget_bytes)
    if device_kind == "cuda":
        return CudaDevice(budget_bytes, headroom_bytes)
    return EmulatedDevice(
        budget_bytes, h2d_bytes_per_s=link_bytes_per_s, d2h_bytes_per_s=link_bytes_per_s, count_activations=True
    )
