"""Which device a plan runs on."""

from __future__ import annotations

import torch

from roost.facts import DeviceKind
from roost.residency.cuda import CudaDevice
from roost.residency.emulated import EmulatedDevice
from roost.residency.lanes import Device


def has_cuda() -> bool:
    """Whether PyTorch finds a CUDA device."""
    return torch.cuda.is_available()


def open_device(device_kind: DeviceKind, budget_bytes: int) -> Device:
    """The device of that kind, holding at most ``budget_bytes``. UsageError for CUDA on a machine without it."""
    if device_kind == "cuda":
        return CudaDevice(budget_bytes)
    return EmulatedDevice(budget_bytes, count_activations=True)
