"""Single changes: less typed, less headroom, what changes bits, more memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from roost.facts.machine import PROCESS_BYTES, HostFacts, ram_leaving, system_bytes_of
from roost.facts.request import Choices
from roost.planner.cost.fp8_storage import in_fp8
from roost.planner.placements import Lossy
from roost.planner.rules.case import Case
from roost.planner.rules.typed import dit_layerwise_option, layerwise_option, option_text, resolve
from roost.planner.search.remedies.change import Change, LoadedAs, Remedy, on_machine
from roost.planner.search.shortfall import Shortfall
from roost.units import GiB, MiB

_ROUNDED: frozenset[Lossy] = frozenset({"fp8"})
_LEAST_HEADROOM, _HEADROOM_STEP = 256 * MiB, 64 * MiB


def fewer_options(asked: Change) -> list[Change]:
    """Each typed option about placement left out."""
    return [
        replace(asked, remedy=remedy, case=_with_choices(asked.case, choices))
        for remedy, choices in _fewer_options(asked.case.choices)
    ]


def _fewer_options(choices: Choices) -> Iterator[tuple[Remedy, Choices]]:
    for index, choice in enumerate(choices.sets):
        if not choice.found:
            others = choices.sets[:index] + choices.sets[index + 1 :]
            yield Remedy(without=(choice.option,)), replace(choices, sets=others)
    if selection := layerwise_option(choices):
        yield Remedy(without=(selection,)), replace(choices, layerwise_components=None)
    if dit := dit_layerwise_option(choices):
        yield Remedy(without=(dit,)), replace(choices, dit_layerwise_offload=None)
    for group, value in choices.cpu_offload.items():
        rest = {name: each for name, each in choices.cpu_offload.items() if name != group}
        yield Remedy(without=(option_text(group, value),)), replace(choices, cpu_offload=rest)
    if choices.mode in ("speed", "manual"):
        yield Remedy(given=(("--mode", "auto"),)), replace(choices, mode="auto")


def _with_choices(case: Case, choices: Choices) -> Case:
    return replace(case, choices=choices, explicit=resolve(choices, case.components))


def less_headroom(asked: Change, missing: Shortfall) -> list[Change]:
    """Less of the headroom, where that is all that is short."""
    headroom_bytes = asked.forecast.machine.headroom_bytes
    rest_bytes = (headroom_bytes - missing.short_bytes) // _HEADROOM_STEP * _HEADROOM_STEP
    if missing.memory != "VRAM" or rest_bytes < _LEAST_HEADROOM:
        return []
    machine = replace(asked.forecast.machine, headroom_bytes=rest_bytes)
    return [on_machine(Remedy(given=(("--headroom", f"{rest_bytes // MiB}MiB"),)), machine, asked)]


def unforbidden(asked: Change) -> list[Change]:
    """Tiling, which is open unless it was forbidden."""
    if "tiling" not in asked.aim.forbid or not any(each.setting == "tiled" for each in asked.forecast.trace.variants):
        return []
    aim = replace(asked.aim, forbid=asked.aim.forbid - {"tiling"})
    return [replace(asked, remedy=Remedy(without=("--forbid tiling",), note="tiling changes bits"), aim=aim)]


def rounded(asked: Change) -> list[Change]:
    """The denoiser's linear weights in 8 bits."""
    possible = any(in_fp8(each, asked.forecast.trace) for each in asked.forecast.components.values())
    if "fp8" in asked.aim.allow or not possible:
        return []
    allowed = asked.aim.allow | _ROUNDED
    remedy = Remedy(given=(("--allow", ",".join(sorted(allowed))),), note="rounds weights")
    return [replace(asked, remedy=remedy, aim=replace(asked.aim, allow=allowed))]


def halved(asked: Change, missing: Shortfall, loaded_as: LoadedAs) -> Iterator[Change]:
    """What is short of memory in float32 loaded in half of its bytes, in the dtype that the card computes."""
    wide = [each for each in asked.case.components if each.load_dtype == "float32"]
    if missing.memory == "VRAM":
        helps = missing.component in {each.name for each in wide}
    else:
        helps = sum(each.load_bytes for each in wide) >= 2 * missing.short_bytes
    if helps:
        dtype = "float16" if "bfloat16" in asked.forecast.model.single_dtypes else "bfloat16"
        change = loaded_as(dtype)
        names = ", ".join(each.name for each in wide)
        if change is not None:
            yield replace(change, remedy=Remedy(given=(("--dtype", dtype),), note=f"{names} no longer in float32"))


def dearer(asked: Change, premium: float) -> Change:
    """What surely fits, at what it costs: ``premium`` times the likely plan's seconds, rounded up."""
    most = math.ceil(100 * premium) / 100
    given = (("--max-premium", f"{most:g}"),)
    return replace(asked, remedy=Remedy(given=given), aim=replace(asked.aim, max_premium=most))


def more_memory(asked: Change, missing: Shortfall) -> Change:
    """As much more of what is short as lacks."""
    machine = asked.forecast.machine
    if missing.memory == "VRAM":
        free_gib = _up(machine.gpu.free_bytes + missing.short_bytes)
        remedy = Remedy(given=(("--vram", f"{free_gib:g}GiB"),), note="a card with that much free")
        free_bytes = int(free_gib * GiB)
        gpu = replace(machine.gpu, free_bytes=free_bytes, total_bytes=max(machine.gpu.total_bytes, free_bytes))
        return on_machine(remedy, replace(machine, gpu=gpu), asked)
    return _more_host(asked, missing)


def _more_host(asked: Change, missing: Shortfall) -> Change:
    machine = asked.forecast.machine
    host, process_bytes = machine.host, PROCESS_BYTES[machine.gpu.device_kind]
    more_bytes = max(missing.short_bytes, GiB)
    if missing.memory == "pinned memory":  # of more memory, a part can be pinned
        more_bytes = more_bytes * host.available_bytes // max(1, host.pinnable_bytes)
    ram_gib = _up(ram_leaving(host.available_bytes + more_bytes, process_bytes))
    host = _typed(host, int(ram_gib * GiB), process_bytes)
    return on_machine(Remedy(given=(("--ram", f"{ram_gib:g}GiB"),)), replace(machine, host=host), asked)


def enlarged(change: Change, missing: Shortfall) -> Change:
    """The change together with as much host memory as lacks."""
    more = _more_host(change, missing)
    return replace(more, remedy=change.also(*more.remedy.given))


def _typed(host: HostFacts, ram_bytes: int, process_bytes: int) -> HostFacts:
    """The host as it would be with so much memory, of which the same share can be pinned."""
    pinned_share, system_bytes = host.pinnable_bytes / max(1, host.available_bytes), system_bytes_of(ram_bytes)
    available_bytes = ram_bytes - system_bytes - process_bytes
    return replace(
        host,
        available_bytes=available_bytes,
        pinnable_bytes=int(available_bytes * pinned_share),
        system_bytes=system_bytes,
        process_bytes=process_bytes,
    )


def _up(size: int) -> float:
    """GiB, rounded up to a tenth."""
    return math.ceil(size / GiB * 10) / 10
