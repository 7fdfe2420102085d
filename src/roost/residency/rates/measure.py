"""Every rate that a device and its host's memory have, one after another."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from roost.errors import RoostError
from roost.residency.device.interface import Device
from roost.residency.rates.kernels import kernel_points
from roost.residency.rates.timing import Reading
from roost.residency.rates.transfers import transfer_points


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What could be measured by name, and why the rest could not."""

    readings: dict[str, Reading]
    missing: dict[str, str]


def measure_rates(device: Device) -> Readings:
    """Times every rate but the disk's. Takes seconds."""
    readings: dict[str, Reading] = {}
    missing: dict[str, str] = {}
    for name, point in {**transfer_points(device), **kernel_points(device)}.items():
        try:
            readings[name] = point()
        except torch.OutOfMemoryError:
            missing[name] = "not enough memory is free on the device"
        except (RoostError, RuntimeError) as error:  # a kernel that this device lacks
            missing[name] = " ".join(str(error).split())[:200]
        finally:
            device.trim()
    return Readings(readings=readings, missing=missing)
