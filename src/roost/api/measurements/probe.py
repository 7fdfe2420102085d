"""Probing: how fast this machine is, timed, beside what a plan would take it for."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

from roost.api.machine import emulated_gpu, present_gpu
from roost.api.measurements.learned import now
from roost.errors import UsageError
from roost.facts.machine import GpuFacts
from roost.plan.figures import Rate
from roost.plan.measurements import DeviceKey, MeasuredRate, device_key
from roost.plan.revision import revised
from roost.planner.cost.rates import Rates, rates_of
from roost.probes.machine.disk_rate import DiskReading, read_disk
from roost.profiles.gpus import load_gpu_profiles
from roost.profiles.store import MeasuredStore
from roost.shell_quoting import shown_path
from roost.units import GiB
from roost.user_folders import user_folder

_EMULATED_BYTES = GiB
_DISK = "disk_bytes_per_s"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """Every rate of the cost model by name: what was timed, and what a plan without measurements takes it for.

    ``missing`` says why a rate could not be timed. ``notes`` are what a reader must know of the figures.
    """

    device: DeviceKey
    when: str
    seconds: float
    measured: dict[str, MeasuredRate]
    unmeasured: dict[str, Rate]
    missing: dict[str, str]
    notes: list[str]
    saved: bool

    def document(self) -> dict[str, object]:
        """What ``roost probe --json`` prints."""
        return {
            "schema": 1,
            "device": self.device.model_dump(mode="json"),
            "when": self.when,
            "seconds": self.seconds,
            "rates": {
                name: {
                    "value": rate.value,
                    "spread": rate.spread,
                    "n": rate.n,
                    "without": asdict(self.unmeasured[name]),
                    "ratio": self.ratio(name),
                }
                for name, rate in self.measured.items()
            },
            "missing": self.missing,
            "notes": self.notes,
            "saved": self.saved,
        }

    def ratio(self, name: str) -> float:
        """Measured over what a plan would take it for."""
        return self.measured[name].value / self.unmeasured[name].value


def probe_machine(*, device: str | None = None, file: Path | None = None, save: bool = False) -> ProbeReport:
    """Times this machine's GPU and host; with ``device`` "emulated", the CPU that stands for a GPU.

    ``save`` keeps the rates. ``file`` is what the disk is timed with instead of a temporary file in the cache
    directory. Raises UsageError for a device or a file that isn't there.
    """
    began_s = time.perf_counter()
    gpu, notes = _gpu(device)
    measured, missing = _measure(gpu)
    _add_disk(file, measured, missing, notes)
    key = device_key(gpu)
    if save:
        MeasuredStore().update(key, None, lambda entry: revised(entry, rates={**entry.rates, **measured}))
    rates = rates_of(gpu, load_gpu_profiles().get(gpu.profile or ""))
    names = [each.name for each in fields(Rates)]
    return ProbeReport(
        device=key,
        when=now(),
        seconds=time.perf_counter() - began_s,
        measured={name: measured[name] for name in names if name in measured},
        unmeasured={name: getattr(rates, name) for name in names},
        missing=missing,
        notes=notes,
        saved=save,
    )


def _gpu(device: str | None) -> tuple[GpuFacts, list[str]]:
    """The GPU that is here, unless the emulated one is asked for or there is no other."""
    here = "the emulated GPU is this machine's CPU: these figures say nothing about a GPU."
    if device == "emulated":
        return emulated_gpu(_EMULATED_BYTES), [here]
    # CUDA puts the fastest card first, NVML goes by PCI address: both must mean the same card by "first".
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    try:
        return present_gpu(), []
    except UsageError as error:
        if device == "cuda":
            raise
        return emulated_gpu(_EMULATED_BYTES), [str(error).split(" Name a card")[0], here]


def _measure(gpu: GpuFacts) -> tuple[dict[str, MeasuredRate], dict[str, str]]:
    from roost.residency.device.choice import open_device  # imported here: these bring torch
    from roost.residency.rates.measure import measure_rates

    budget_bytes = _EMULATED_BYTES if gpu.device_kind == "emulated" else gpu.free_bytes
    with open_device(gpu.device_kind, budget_bytes) as opened:
        found = measure_rates(opened)
    when = now()
    return {
        name: MeasuredRate(value=each.value, spread=each.spread, n=each.n, when=when, source="measured")
        for name, each in found.readings.items()
    }, dict(found.missing)


def _add_disk(
    file: Path | None,
    measured: dict[str, MeasuredRate],
    missing: dict[str, str],
    notes: list[str],
) -> None:
    try:
        reading = read_disk(file, user_folder("cache"))
    except UsageError as error:
        if file is not None:
            raise
        missing[_DISK] = str(error)
        return
    if reading.cached:
        missing[_DISK] = f"the page cache keeps {shown_path(reading.path.parent)} (a disk in memory?); try --file"
        return
    if reading.cached is None:
        notes.append("the system does not tell whether the page cache answered for the disk.")
    measured[_DISK] = _disk_rate(reading)


def _disk_rate(reading: DiskReading) -> MeasuredRate:
    rates = reading.bytes_per_s
    middle = median(rates)
    spread = max(middle / min(rates), max(rates) / middle)
    return MeasuredRate(value=middle, spread=spread, n=len(rates), when=now(), source="measured")
