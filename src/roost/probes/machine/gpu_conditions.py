"""Under which conditions a GPU works: clocks, throttling, its PCIe link under load, and who else is on it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from roost.probes.machine.gpu import PcieLink
from roost.probes.machine.nvml import NvmlDevice, ask, list_devices

# NVML's bits for why clocks are below what they could be. Idling and clocks that a user set are no throttling.
_THROTTLING = {
    "nvmlClocksEventReasonSwPowerCap": "power",
    "nvmlClocksEventReasonHwPowerBrakeSlowdown": "power",
    "nvmlClocksEventReasonSwThermalSlowdown": "heat",
    "nvmlClocksEventReasonHwThermalSlowdown": "heat",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuConditions:
    """One look at a GPU. None is what NVML does not report; ``throttled`` says for what: ``heat``, ``power``.

    ``fastest_link`` is what card and slot can do together. ``pids`` are all processes on the device, also one's own,
    and a container may see them under numbers that are not its own.
    """

    sm_clock_mhz: int | None
    throttled: frozenset[str]
    link: PcieLink
    fastest_link: PcieLink
    pids: frozenset[int]
    held_bytes: Mapping[int, int] = field(default_factory=dict)  # of the device, by process, where NVML says


def read_conditions(nvml: Any, device: NvmlDevice) -> GpuConditions:
    """One look; never raises for what NVML refuses."""
    card = device.card
    reasons = ask(nvml, nvml.nvmlDeviceGetCurrentClocksEventReasons, card)
    if reasons is None:  # drivers before 535 know it under its older name
        reasons = ask(nvml, nvml.nvmlDeviceGetCurrentClocksThrottleReasons, card) or 0
    processes = ask(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, device.handle) or ()
    return GpuConditions(
        sm_clock_mhz=ask(nvml, nvml.nvmlDeviceGetClockInfo, card, nvml.NVML_CLOCK_SM),
        throttled=frozenset(what for name, what in _THROTTLING.items() if reasons & getattr(nvml, name)),
        link=PcieLink(
            ask(nvml, nvml.nvmlDeviceGetCurrPcieLinkGeneration, card),
            ask(nvml, nvml.nvmlDeviceGetCurrPcieLinkWidth, card),
        ),
        fastest_link=PcieLink(
            ask(nvml, nvml.nvmlDeviceGetMaxPcieLinkGeneration, card),
            ask(nvml, nvml.nvmlDeviceGetMaxPcieLinkWidth, card),
        ),
        pids=frozenset(each.pid for each in processes),
        held_bytes={each.pid: each.usedGpuMemory for each in processes if each.usedGpuMemory},
    )


class ConditionSampler:
    """Looks at the GPU of this UUID again and again while its ``with`` lasts; ``looks`` are what it saw.

    Without NVML or that GPU it sees nothing. ``nvml`` stands in for the pynvml module.
    """

    def __init__(self, uuid: str, every_s: float = 0.5, nvml: Any = None) -> None:
        if nvml is None:
            import pynvml  # 40 ms that only sampling needs

            nvml = pynvml
        self._nvml, self._uuid, self._every_s = nvml, uuid, every_s
        self._looks: list[GpuConditions] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="roost-gpu-conditions", daemon=True)

    @property
    def looks(self) -> tuple[GpuConditions, ...]:
        return tuple(self._looks)

    def __enter__(self) -> ConditionSampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        nvml = self._nvml
        with suppress(nvml.NVMLError):
            nvml.nvmlInit()
            try:
                devices, _ = list_devices(nvml)
                device = next((each for each in devices if each.uuid == self._uuid), None)
                while device is not None:
                    self._looks.append(read_conditions(nvml, device))
                    if self._stop.wait(self._every_s):
                        break
            finally:
                nvml.nvmlShutdown()
