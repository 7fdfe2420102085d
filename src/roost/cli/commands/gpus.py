"""``roost gpus``: the GPUs that are here, the host's memory, and the cards known by name."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from roost.cli.options import Json
from roost.cli.screen import show_folded, show_json, show_table, show_text
from roost.units import format_bytes

if TYPE_CHECKING:
    from roost.api.machine import MachineSurvey
    from roost.facts.machine import GpuProfile, Number
    from roost.probes.machine.gpu import GpuReading


def gpus(as_json: Json = False) -> None:
    """List the GPUs of this machine, its host memory, and the cards that --gpu knows by name."""
    from roost.api.machine import survey_machine

    survey = survey_machine()
    if as_json:
        show_json(_document(survey))
        return
    for reading in survey.gpus.gpus:
        _show_gpu(reading)
    if survey.gpus.problem:
        show_folded(f"{'note' if survey.gpus.gpus else 'no usable GPU'}: {survey.gpus.problem}")
    show_folded(
        f"host memory: {format_bytes(survey.host.there_bytes)} available ({survey.host.source}),"
        f" {format_bytes(survey.host.available_bytes)} of it for weights,"
        f" {format_bytes(survey.host.pinnable_bytes)} of that pinnable"
        f" · disk: {format_bytes(survey.disk_bytes)} free here"
    )
    show_table(
        ("--gpu", "Memory", "GB/s", "bf16 TFLOP/s", "PCIe"),
        [_profile_row(profile) for profile in survey.profiles.values()],
        numbers=(1, 2, 3),
    )
    show_folded('--gpu takes a product\'s full name too, like "NVIDIA GeForce RTX 4090"; --json lists them.')


def _document(survey: MachineSurvey) -> dict[str, object]:
    return {
        "schema": 1,
        "gpus": [
            {
                "index": reading.index,
                **asdict(reading.facts),
                "reserved_bytes": reading.reserved_bytes,
                "mig": reading.mig,
                "link": {"generation": reading.link.generation, "width": reading.link.width},
                "processes": None
                if reading.processes is None
                else [{"pid": pid, "bytes": size} for pid, size in reading.processes],
                "notes": list(reading.notes),
            }
            for reading in survey.gpus.gpus
        ],
        "problem": survey.gpus.problem,
        "host": asdict(survey.host),
        "disk_bytes": survey.disk_bytes,
        "profiles": {key: asdict(profile) for key, profile in survey.profiles.items()},
    }


def _show_gpu(reading: GpuReading) -> None:
    facts = reading.facts
    show_folded(
        f"GPU {reading.index}: {facts.name}{' (MIG)' if reading.mig else ''}, {format_bytes(facts.free_bytes)} free of"
        f" {format_bytes(facts.total_bytes)}, driver {facts.driver or '?'},"
        f" compute {facts.compute_capability or '?'}, PCIe {facts.pcie_generation or '?'} x{facts.pcie_width or '?'}"
        f" (now {reading.link.generation or '?'} x{reading.link.width or '?'}), {facts.uuid or 'no UUID'}"
    )
    for pid, size in reading.processes or ():
        show_text(f"  process {pid} uses {format_bytes(size)}")
    for note in reading.notes:
        show_folded(f"note: {note}", indent="  ")


def _profile_row(profile: GpuProfile) -> tuple[str, ...]:
    generation, lanes = profile.pcie_generation, profile.pcie_lanes
    return (
        profile.key,
        format_bytes(int(profile.total_bytes.value)),
        f"{profile.memory_bytes_per_s.value / 1e9:.0f}",
        _tera(profile.bf16_flop_per_s),
        f"{generation.value:.0f} x{lanes.value:.0f}" if generation and lanes else "–",
    )


def _tera(rate: Number | None) -> str:
    return "–" if rate is None else f"{rate.value / 1e12:.4g}"
