"""Probing: how fast this machine is, timed, beside what a plan would take it for."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from roost.api.machine import emulated_gpu, present_gpu
from roost.api.measurements.learned import now
from roost.errors import UsageError
from roost.facts.machine import GpuFacts
from roost.facts.rates import RateKey, spelled_rates
from roost.plan.figures import Rate
from roost.plan.measurements import DeviceKey, MeasuredRate, device_key
from roost.plan.revision import revised
from roost.planner.cost.rates import rates_of
from roost.probes.machine.disk_rate import DiskReading, read_disk
from roost.probes.machine.gpu import read_gpus
from roost.profiles.gpus import load_gpu_profiles, shares_memory
from roost.profiles.store import MeasuredStore
from roost.shell_quoting import shown_path
from roost.units import GiB
from roost.user_folders import user_folder

_EMULATED_BYTES = GiB


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """Every rate of the cost model by its key: what was timed, and what a plan without measurements takes it for.

    ``missing`` says why a rate could not be timed. ``notes`` are what a reader must know of the figures.
    """

    device: DeviceKey
    when: str
    seconds: float
    measured: dict[RateKey, MeasuredRate]
    unmeasured: dict[RateKey, Rate]
    missing: dict[RateKey, str]
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
                key.value: {
                    "value": rate.value,
                    "spread": rate.spread,
                    "n": rate.n,
                    "without": asdict(self.unmeasured[key]),
                    "ratio": self.ratio(key),
                }
                for key, rate in self.measured.items()
            },
            "missing": spelled_rates(self.missing.items()),
            "notes": self.notes,
            "saved": self.saved,
        }

    def ratio(self, key: RateKey) -> float:
        """Measured over what a plan would take it for."""
        return self.measured[key].value / self.unmeasured[key].value


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
        kept = spelled_rates(measured.items())
        MeasuredStore().update(key, None, lambda entry: revised(entry, rates={**entry.rates, **kept}))
    rates = rates_of(gpu, load_gpu_profiles().get(gpu.profile or ""))
    return ProbeReport(
        device=key,
        when=now(),
        seconds=time.perf_counter() - began_s,
        measured={each: measured[each] for each in RateKey if each in measured},
        unmeasured=dict(rates.by_key),
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
    survey = read_gpus(shares_memory=shares_memory)
    if survey.gpus or device == "cuda":
        return present_gpu(survey), []
    return emulated_gpu(_EMULATED_BYTES), [survey.why_none, here]


def _measure(gpu: GpuFacts) -> tuple[dict[RateKey, MeasuredRate], dict[RateKey, str]]:
    from roost.residency.device.choice import open_device  # imported here: these bring torch
    from roost.residency.rates.measure import measure_rates

    budget_bytes = _EMULATED_BYTES if gpu.device_kind == "emulated" else gpu.free_bytes
    with open_device(gpu.device_kind, budget_bytes) as opened:
        found = measure_rates(opened)
    when = now()
    return {
        key: MeasuredRate(value=each.value, spread=each.spread, n=each.n, when=when, source="measured")
        for key, each in found.readings.items()
    }, dict(found.missing)


def _add_disk(
    file: Path | None,
    measured: dict[RateKey, MeasuredRate],
    missing: dict[RateKey, str],
    notes: list[str],
) -> None:
    try:
        reading = read_disk(file, user_folder("cache"))
    except UsageError as error:
        if file is not None:
            raise
        missing[RateKey.DISK] = str(error)
        return
    if reading.cached:
        missing[RateKey.DISK] = (
            f"the page cache keeps {shown_path(reading.path.parent)} (a disk in memory?); try --file"
        )
        return
    if reading.cached is None:
        notes.append("the system does not tell whether the page cache answered for the disk.")
    measured[RateKey.DISK] = _disk_rate(reading)


def _disk_rate(reading: DiskReading) -> MeasuredRate:
    rates = reading.bytes_per_s
    middle = median(rates)
    spread = max(middle / min(rates), max(rates) / middle)
    return MeasuredRate(value=middle, spread=spread, n=len(rates), when=now(), source="measured")
