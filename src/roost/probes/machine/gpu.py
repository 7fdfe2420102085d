"""The GPUs of this machine and the memory they have free, through NVML, which creates no CUDA context."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from roost.errors import UsageError
from roost.facts.machine import GpuFacts
from roost.option_spelling import option
from roost.probes.machine.host import read_unified
from roost.probes.machine.nvml import (
    MemoryReading,
    NvmlDevice,
    ask,
    choose_visible,
    doubt_order,
    list_devices,
    nvml_problem,
    read_memory,
)
from roost.units import MiB, format_bytes

_HIDDEN_USE_BYTES = 64 * MiB  # above this, memory in use without a process in sight means that one is hidden


class PcieLink(NamedTuple):
    """The link as negotiated now; an idle card lowers its generation."""

    generation: int | None
    width: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One GPU or MIG device as NVML reports it, free memory being the least of a few samples.

    ``processes`` are other processes as (pid, bytes); their bytes are None where the driver hides them, and all of it
    is None where processes can't be seen. ``notes`` has a sentence for each figure that is missing or doubtful.
    """

    index: int  # of the card, in NVML's order
    facts: GpuFacts
    reserved_bytes: int | None
    processes: tuple[tuple[int, int | None], ...] | None
    mig: bool
    link: PcieLink
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSurvey:
    """The GPUs that CUDA may use, in its order, and a sentence on each thing that keeps others out."""

    gpus: tuple[GpuReading, ...]
    problem: str | None

    @property
    def why_none(self) -> str:
        """Why there is no GPU, where there is none."""
        return self.problem or "There is no GPU."


def read_gpus(
    samples: int = 3,
    pause_s: float = 0.05,
    nvml: Any = None,
    environ: Mapping[str, str] = os.environ,
    shares_memory: Callable[[str], bool] = lambda name: False,
) -> GpuSurvey:
    """Survey the GPUs that ``CUDA_VISIBLE_DEVICES`` leaves visible; never raises for what NVML refuses.

    ``nvml`` stands in for the pynvml module. ``shares_memory`` tells of a product's name whether it has no memory but
    the host's: NVML reports none then, and the host's counts. Choose cards by UUID rather than index: CUDA's default
    order is fastest first, NVML's is by PCI address.
    """
    if nvml is None:
        import pynvml  # 40 ms that only a survey needs

        nvml = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return GpuSurvey(gpus=(), problem=nvml_problem(error))
    try:
        return _survey(nvml, samples, pause_s, environ, shares_memory)
    except nvml.NVMLError as error:
        return GpuSurvey(gpus=(), problem=nvml_problem(error))
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def select_gpu(survey: GpuSurvey) -> GpuReading:
    """The GPU that CUDA would use first; UsageError with the ways on when there is none."""
    if survey.gpus:
        return survey.gpus[0]
    raise UsageError(
        f"{survey.why_none} Name a card with {option('gpu', 'NAME')} (see: roost gpus), or use"
        f" {option('gpu', 'emulated')} with {option('vram', 'SIZE')}."
    )


def _survey(
    nvml: Any, samples: int, pause_s: float, environ: Mapping[str, str], shares_memory: Callable[[str], bool]
) -> GpuSurvey:
    devices, problems = list_devices(nvml)
    if not devices and not problems:
        problems.append("The NVIDIA driver is loaded but finds no GPU.")
    visible = choose_visible(devices, environ)
    if devices and not visible:
        problems.append(f"CUDA_VISIBLE_DEVICES={environ['CUDA_VISIBLE_DEVICES']!r} hides every GPU.")
    doubt = doubt_order(devices, environ)
    driver = ask(nvml, nvml.nvmlSystemGetDriverVersion)
    gpus: list[GpuReading] = []
    for device, memory in zip(visible, _sample_memory(nvml, visible, samples, pause_s), strict=True):
        if isinstance(memory, MemoryReading):
            gpus.append(_read_gpu(nvml, device, memory, driver, doubt))
        elif isinstance(memory, nvml.NVMLError_NotSupported) and shares_memory(device.name):
            read = _read_gpu(nvml, device, _host_memory(), driver, doubt)
            gpus.append(replace(read, facts=replace(read.facts, unified=True)))
        else:
            problems.append(f"GPU {device.index} ({device.name}): {nvml_problem(memory)}")
    return GpuSurvey(gpus=tuple(gpus), problem=" ".join(problems) or None)


def _host_memory() -> MemoryReading:
    total_bytes, free_bytes = read_unified()
    return MemoryReading(total_bytes=total_bytes, free_bytes=free_bytes, used_bytes=None, reserved_bytes=None)


def _sample_memory(
    nvml: Any, devices: list[NvmlDevice], samples: int, pause_s: float
) -> list[MemoryReading | Exception]:
    """For each device the reading with the least free memory, or the error that one of its samples met."""
    rounds: list[list[MemoryReading | Exception]] = []
    for turn in range(max(1, samples)):
        if turn:
            time.sleep(pause_s)
        rounds.append([_try_memory(nvml, device) for device in devices])
    return [_keep_least(list(readings)) for readings in zip(*rounds, strict=True)]


def _try_memory(nvml: Any, device: NvmlDevice) -> MemoryReading | Exception:
    try:
        return read_memory(nvml, device.handle)
    except nvml.NVMLError as error:
        return error  # type: ignore[no-any-return]  # pynvml is untyped


def _keep_least(readings: list[MemoryReading | Exception]) -> MemoryReading | Exception:
    seen = [each for each in readings if isinstance(each, MemoryReading)]
    failed = [each for each in readings if isinstance(each, Exception)]
    return failed[0] if failed else min(seen, key=lambda each: each.free_bytes)


def _read_gpu(
    nvml: Any, device: NvmlDevice, memory: MemoryReading, driver: str | None, doubt: str | None
) -> GpuReading:
    capability = ask(nvml, nvml.nvmlDeviceGetCudaComputeCapability, device.card)
    facts = GpuFacts(
        device_kind="cuda",
        platform="cuda",
        name=device.name,
        total_bytes=memory.total_bytes,
        free_bytes=memory.free_bytes,
        source="nvml",
        profile=None,
        uuid=device.uuid,
        driver=driver,
        compute_capability=".".join(map(str, capability)) if capability else None,
        pcie_generation=ask(nvml, nvml.nvmlDeviceGetMaxPcieLinkGeneration, device.card),
        pcie_width=ask(nvml, nvml.nvmlDeviceGetMaxPcieLinkWidth, device.card),
    )
    link = PcieLink(
        ask(nvml, nvml.nvmlDeviceGetCurrPcieLinkGeneration, device.card),
        ask(nvml, nvml.nvmlDeviceGetCurrPcieLinkWidth, device.card),
    )
    processes, hidden = _read_processes(nvml, device, memory)
    notes = _note_missing(facts, memory, link)
    return GpuReading(
        index=device.index,
        facts=facts,
        reserved_bytes=memory.reserved_bytes,
        processes=processes,
        mig=device.mig,
        link=link,
        notes=(*notes, *(note for note in (hidden, doubt) if note)),
    )


def _read_processes(
    nvml: Any, device: NvmlDevice, memory: MemoryReading
) -> tuple[tuple[tuple[int, int | None], ...] | None, str | None]:
    """Other processes on the device, or None with a sentence when they can't be seen."""
    computing = ask(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, device.handle)
    drawing = ask(nvml, nvml.nvmlDeviceGetGraphicsRunningProcesses, device.handle)
    if computing is None and drawing is None:
        return None, "NVML does not list the processes on this GPU."
    held = {each.pid: each.usedGpuMemory for each in (*(computing or ()), *(drawing or ()))}
    if not held and (memory.used_bytes or 0) > _HIDDEN_USE_BYTES:
        used = format_bytes(memory.used_bytes)
        return None, f"{used} are in use by processes that NVML does not show here (a container or WSL hides them)."
    held.pop(os.getpid(), None)
    return tuple(sorted(held.items())), None


def _note_missing(facts: GpuFacts, memory: MemoryReading, link: PcieLink) -> list[str]:
    figures = {
        "the UUID": facts.uuid,
        "the driver version": facts.driver,
        "the compute capability": facts.compute_capability,
        "the memory that the driver reserves": memory.reserved_bytes,
        "the fastest PCIe link": facts.pcie_generation and facts.pcie_width,
        "the present PCIe link": link.generation and link.width,
    }
    return [f"NVML does not report {figure} of this GPU." for figure, value in figures.items() if value is None]
