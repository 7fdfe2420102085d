"""The machine a plan is for: a GPU that is here, one by name, or the emulated one; and the host's memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from roost.errors import UsageError
from roost.facts.machine import PROCESS_BYTES, GpuFacts, GpuProfile, HostFacts, Machine, system_bytes_of
from roost.option_spelling import option
from roost.probes.machine.gpu import GpuSurvey, read_gpus, select_gpu
from roost.probes.machine.host import free_disk_bytes, host_of, read_host
from roost.profiles.gpus import find_gpu_profile, load_gpu_profiles, match_gpu_profile, shares_memory
from roost.units import GiB, format_bytes, parse_bytes

DEFAULT_HEADROOM_BYTES = GiB
# What a named card's own system takes before anyone else: its free memory is total less this.
_SYSTEM_BYTES = GiB // 2


def find_machine(
    gpu: str | None = None,
    vram: str | int | None = None,
    ram: str | int | None = None,
    headroom: str | int | None = None,
    pinned_max: str | int | None = None,
) -> Machine:
    """The machine as the options describe it; sizes are bytes or texts like ``24GiB``.

    ``gpu`` is None or ``auto`` for the GPU of this machine, ``emulated``, or a card's name. Raises UsageError when
    there is no GPU here and none was named, and for memory that leaves nothing to plan with.
    """
    vram_bytes = _bytes(vram, "vram")
    if vram_bytes == 0:
        raise UsageError(f"{option('vram', 0)} leaves nothing to plan with; give the free memory, like 12GiB.")
    headroom_bytes = _bytes(headroom, "headroom")
    card = _find_gpu(gpu, vram_bytes)
    host = read_host(_bytes(ram, "ram"), _bytes(pinned_max, "pinned_max"), card.device_kind)
    if host.ram_typed and not host.available_bytes:
        raise _nothing_left(card, host.there_bytes)
    if card.unified:
        card, host = _one_pool(card, host)
    return Machine(
        gpu=_with_vram(card, vram_bytes),
        host=host,
        headroom_bytes=_default_headroom(card) if headroom_bytes is None else headroom_bytes,
    )


def _nothing_left(card: GpuFacts, ram_bytes: int) -> UsageError:
    system_bytes, process_bytes = system_bytes_of(ram_bytes), PROCESS_BYTES[card.device_kind]
    return UsageError(
        f"--ram {format_bytes(ram_bytes)} leaves nothing for weights: {format_bytes(system_bytes)} are the system's and"
        f" {format_bytes(process_bytes)} the process's own; give the machine's memory, more than"
        f" {format_bytes(system_bytes + process_bytes)}."
    )


def _default_headroom(card: GpuFacts) -> int:
    """For what a card's allocator and its other users take; an emulated one has neither."""
    return 0 if card.device_kind == "emulated" else DEFAULT_HEADROOM_BYTES


def _bytes(size: str | int | None, name: str) -> int | None:
    return None if size is None else parse_bytes(str(size), name)


def _find_gpu(gpu: str | None, vram_bytes: int | None) -> GpuFacts:
    name = "auto" if gpu is None else gpu.strip().lower()
    if name == "auto":
        return present_gpu()
    if name == "emulated":
        return emulated_gpu(vram_bytes)
    return gpu_of_profile(find_gpu_profile(gpu or ""))


def present_gpu(survey: GpuSurvey | None = None) -> GpuFacts:
    """The GPU that CUDA would use first, with the profile of its product when there is one; UsageError without one."""
    gpu = select_gpu(survey or read_gpus(shares_memory=shares_memory)).facts
    profile = match_gpu_profile(gpu.name, gpu.total_bytes)
    unified = gpu.unified or (profile is not None and profile.unified)
    return replace(gpu, profile=profile.key if profile else None, unified=unified)


def emulated_gpu(vram_bytes: int | None) -> GpuFacts:
    """The CPU device of the runtime, with a memory budget of ``vram_bytes``."""
    if vram_bytes is None:
        raise UsageError(f"{option('gpu', 'emulated')} needs its memory too; add it, like {option('vram', '12GiB')}.")
    return GpuFacts(
        device_kind="emulated",
        platform="cuda",  # the rules treat it like the CUDA card that it stands for
        name="emulated",
        total_bytes=vram_bytes,
        free_bytes=vram_bytes,
        source="emulated",
        profile=None,
        uuid=None,
        driver=None,
        compute_capability=None,
        pcie_generation=None,
        pcie_width=None,
    )


def gpu_of_profile(profile: GpuProfile) -> GpuFacts:
    """A card that isn't here, as its profile describes it."""
    total = int(profile.total_bytes.value)
    generation, lanes = profile.pcie_generation, profile.pcie_lanes
    return GpuFacts(
        device_kind="cuda",
        platform=profile.platform,
        name=profile.name,
        total_bytes=total,
        free_bytes=total - _SYSTEM_BYTES,
        source=f"profile:{profile.key}",
        named=True,
        profile=profile.key,
        uuid=None,
        driver=None,
        compute_capability=profile.compute_capability,
        unified=profile.unified,
        pcie_generation=int(generation.value) if generation else None,
        pcie_width=int(lanes.value) if lanes else None,
    )


def _one_pool(gpu: GpuFacts, host: HostFacts) -> tuple[GpuFacts, HostFacts]:
    """Both sides of one memory: what is free for the one is what is available to the other.

    The memory of a card by name is its own host's, not that of this machine, which was only found.
    """
    if not host.ram_typed and gpu.uuid is None:
        share = host.pinnable_bytes / max(1, host.available_bytes)
        total_bytes = gpu.total_bytes
        host = host_of(total_bytes, system_bytes_of(total_bytes), PROCESS_BYTES[gpu.device_kind], gpu.source)
        host = replace(host, pinnable_bytes=int(share * host.available_bytes))
    return replace(gpu, free_bytes=min(gpu.free_bytes, host.available_bytes)), host


def _with_vram(gpu: GpuFacts, vram_bytes: int | None) -> GpuFacts:
    """``--vram`` sets the free memory; a total below it grows with it."""
    if vram_bytes is None or gpu.device_kind == "emulated":
        return gpu
    total_bytes = max(gpu.total_bytes, vram_bytes)
    return replace(gpu, free_bytes=vram_bytes, total_bytes=total_bytes, source=f"{gpu.source}+--vram", vram_typed=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSurvey:
    """Everything ``roost gpus`` shows: the GPUs here, the host, and the cards known by name."""

    gpus: GpuSurvey
    host: HostFacts
    disk_bytes: int  # free where the caller stands
    profiles: Mapping[str, GpuProfile]


def survey_machine() -> MachineSurvey:
    """What is here now; never raises for a missing GPU or driver."""
    return MachineSurvey(
        gpus=read_gpus(shares_memory=shares_memory),
        host=read_host(),
        disk_bytes=free_disk_bytes(Path.cwd()),
        profiles=load_gpu_profiles(),
    )
