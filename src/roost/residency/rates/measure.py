"""Every rate that a device and its host's memory have, one after another."""

from __future__ import annotations

from dataclasses import dataclass

from roost.errors import RoostError
from roost.facts.rates import RateKey
from roost.residency.device.failures import ran_out
from roost.residency.device.interface import Device
from roost.residency.rates.kernels import kernel_points
from roost.residency.rates.timing import Reading
from roost.residency.rates.transfers import transfer_points


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What could be measured, and why the rest could not."""

    readings: dict[RateKey, Reading]
    missing: dict[RateKey, str]


def measure_rates(device: Device) -> Readings:
    """Times every rate but the disk's. Takes seconds."""
    readings: dict[RateKey, Reading] = {}
    missing: dict[RateKey, str] = {}
    for key, point in {**transfer_points(device), **kernel_points(device)}.items():
        try:
            readings[key] = point()
        except (RoostError, RuntimeError) as error:  # a kernel that this device lacks
            said = " ".join(str(error).split())[:200]
            missing[key] = "not enough memory is free on the device" if ran_out(error) else said
        finally:
            device.trim()
    return Readings(readings=readings, missing=missing)
