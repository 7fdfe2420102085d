"""What must hold before a plan runs: its workload, its model, its GPU and enough host memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from roost.api.models.inspect import structure_fingerprint, why_not_run
from roost.errors import NothingFits, PlanMismatch, UsageError
from roost.facts.machine import GpuFacts, HostFacts
from roost.facts.model import Component, Inventory, ModelProfile
from roost.facts.request import Workload
from roost.option_spelling import option
from roost.plan.revision import revised
from roost.plan.schema import ComponentPlan, MachineRecord, PlanDocument
from roost.planner.buffers import can_be_mapped
from roost.planner.leaf_level import units_at_level
from roost.shell_quoting import command, shown_path
from roost.units import GiB, format_bytes

_TOTAL_TOLERANCE = 0.02
_SHOWN_DIFFERENCES = 3


def check_workload(plan: PlanDocument, wanted: Workload) -> None:
    """Raises PlanMismatch when ``wanted`` is larger than the plan's workload in any way."""
    planned = plan.workload
    larger = [
        name
        for name, asked, limit in (
            ("--size", wanted.width * wanted.height, planned.width * planned.height),
            ("--frames", wanted.frames or 1, planned.frames or 1),
            ("--batch", wanted.batch, planned.batch),
        )
        if asked > limit
    ]
    # Fewer steps at a higher strength may be as much work.
    if wanted.steps * (wanted.strength or 1) > planned.steps * (planned.strength or 1):
        larger.append("--steps" if wanted.steps > planned.steps else "--strength")
    if larger:
        frames = ("--frames", str(wanted.frames)) if wanted.frames else ()
        strength = ("--strength", f"{wanted.strength:g}") if wanted.strength is not None else ()
        size = ("--size", f"{wanted.width}x{wanted.height}", *frames, "--steps", str(wanted.steps))
        batch = ("--batch", str(wanted.batch))
        machine = ("--fleet", "SPEC", "--layout", plan.layout) if plan.layout else _machine_words(plan.machine)
        raise PlanMismatch(
            f"{', '.join(larger)}: more than this plan is for; plan it with: "
            + command("roost", "plan", _model_of(plan), *_file_words(plan), *machine, *size, *strength, *batch)
        )


def check_executable(plan: PlanDocument) -> None:
    """Raises UsageError for a plan that no run of one model can execute: of several workers, or of one role."""
    if plan.is_for_several:
        raise UsageError(
            f"this plan is for {len(plan.workers)} workers; run it with roost run --on ray, or plan one of the cards"
            f" with: {command('roost', 'plan', _model_of(plan), '--gpu', 'CARD')}"
        )
    if plan.role.name != "monolithic":
        raise UsageError(
            f"this plan is for the role {plan.role.name} alone, and a run needs all of them; plan them together with:"
            f" {command('roost', 'plan', _model_of(plan), '--fleet', 'SPEC', '--layout', 'roles', '-o', 'PLAN')}"
        )


def check_runnable(inventory: Inventory, profile: ModelProfile) -> None:
    """Raises UsageError for a model that Roost plans but can't load: without a pipeline, pickled or quantised."""
    if profile.plan_only:
        raise UsageError(f"{inventory.pipeline} has no pipeline in diffusers; Roost inspects and plans it, no more.")
    if inventory.layout != "diffusers":
        raise UsageError(
            f"model {shown_path(inventory.path or '')} has no model_index.json, so there is no pipeline to run."
        )
    for component in inventory.components:
        why = why_not_run(component)
        if why is not None:
            raise UsageError(f"component {component.name!r} {why}.")


def _model_of(plan: PlanDocument) -> str | Path:
    """What to type for the plan's model."""
    if plan.model.source == "memory":
        return "DIR"
    return Path(plan.model.path) if plan.model.path else plan.model.family or "MODEL"


def model_differences(plan: PlanDocument, inventory: Inventory) -> list[str]:
    """How the model directory differs from the one planned, a phrase a file; empty when it is the same.

    Covers file sizes, headers and configs, not the content of weights. A plan made from a name knows no files: there
    it is classes, stacks, sizes, and every tensor's name and shape; one of a pipeline in memory all but the tensors.
    """
    files = _file_differences(plan, inventory)
    if plan.model.source != "directory":
        return [*files, *_structure_differences(plan, inventory)]
    planned, found = plan.model.files, inventory.files
    differences = [*files, *(f"{name} is gone" for name in planned if name not in found)]
    differences += [f"{name} is new" for name in found if name not in planned]
    for name in planned.keys() & found.keys():
        if planned[name].bytes != found[name].bytes:
            sizes = f"{format_bytes(planned[name].bytes)} → {format_bytes(found[name].bytes)}"
            differences.append(f"{name} changed size ({sizes})")
        elif planned[name].sha256 != found[name].sha256:
            differences.append(f"{name} changed its {'header' if name.endswith('.safetensors') else 'content'}")
    if not differences and plan.model.fingerprint != inventory.fingerprint:
        differences.append("its fingerprint differs")
    return sorted(differences)


def _file_differences(plan: PlanDocument, inventory: Inventory) -> list[str]:
    """How the files that were given for components differ from those planned with; configs are the model's."""
    here = {each.name: each.source for each in inventory.components}
    return [
        f"{name}'s file {shown_path(Path(each.source.path).name)} has another header"
        for name, each in plan.components.items()
        if each.source is not None and each.source.fingerprint != getattr(here.get(name), "fingerprint", None)
    ]


def check_component_names(plan: PlanDocument, inventory: Inventory) -> None:
    """Raises PlanMismatch when the plan places other components than the model has."""
    found = {each.name for each in inventory.components}
    for name in plan.components.keys() - found:
        raise PlanMismatch(f"the plan places component {name!r}, which the model doesn't have; plan this model again.")
    for name in found - plan.components.keys():
        raise PlanMismatch(f"component {name!r} of the model is not in the plan; plan this model again.")


def _structure_differences(plan: PlanDocument, inventory: Inventory) -> list[str]:
    found = {each.name: each for each in inventory.components}
    differences = []
    if plan.model.pipeline != inventory.pipeline:
        differences.append(f"the plan is for a {plan.model.pipeline}, here is {inventory.pipeline!r}")
    for name, planned in plan.components.items():
        component = found.get(name)
        if component is None:
            differences.append(f"{name} is not in the directory")
        else:
            live = plan.model.source == "memory"
            differences += [f"{name}: {each}" for each in _component_differences(planned, component, live=live)]
    by_name = plan.model.source == "name"
    if by_name and not differences and plan.model.fingerprint != structure_fingerprint(inventory):
        differences.append(f"its tensors differ from {plan.model.family}'s in names or shapes")
    return differences


def _component_differences(planned: ComponentPlan, found: Component, *, live: bool) -> list[str]:
    if planned.class_name != found.class_name:
        return [f"{planned.class_name} planned, {found.class_name!r} found"]
    units = units_at_level(found, {stack.name: stack.leaves for stack in planned.stacks})
    blocks = [(stack.name, stack.count) for stack in planned.stacks], [(each.name, each.count) for each in units]
    if sorted(blocks[0]) != sorted(blocks[1]):
        return [f"blocks {_shown_blocks(blocks[0])} planned, {_shown_blocks(blocks[1])} found"]
    # Bytes at another load dtype say nothing; the fingerprint compares shapes. Live modules have buffers of no file.
    same = planned.load_bytes >= found.load_bytes if live else planned.load_bytes == found.load_bytes
    if planned.storage is None and planned.load_dtype == found.load_dtype and not same:
        return [f"{format_bytes(planned.load_bytes)} planned, {format_bytes(found.load_bytes)} found"]
    return []


def _shown_blocks(stacks: list[tuple[str, int]]) -> str:
    return " + ".join(f"{count} {name!r}" for name, count in stacks) or "none"


def bind_files(plan: PlanDocument, inventory: Inventory) -> PlanDocument:
    """The plan with the files and variants of the directory that it runs on; a plan by name has none of its own."""
    if plan.model.files:
        return plan
    components = {
        name: revised(each, variant=inventory.component(name).variant) for name, each in plan.components.items()
    }
    return revised(plan, model=revised(plan.model, files=dict(inventory.files)), components=components)


def gpu_differences(plan: PlanDocument, gpu: GpuFacts) -> list[str]:
    """How the GPU that is here differs from the one planned for: product name, or total memory by over 2 %."""
    planned = plan.machine.gpu
    differences = []
    if planned.name != gpu.name:
        differences.append(f"the plan is for {planned.name}, here is {gpu.name}")
    grown = planned.vram_typed and planned.total_bytes == planned.free_bytes
    # A total that grew with --vram says nothing about the card.
    if not grown and abs(gpu.total_bytes - planned.total_bytes) > _TOTAL_TOLERANCE * planned.total_bytes:
        differences.append(
            f"the plan's card has {format_bytes(planned.total_bytes)}, this one {format_bytes(gpu.total_bytes)}"
        )
    return differences


def refuse(plan: PlanDocument, differences: list[str], *, what: str, force: bool) -> list[str]:
    """The differences as changes to record when forced; raises PlanMismatch with the first few otherwise."""
    if not differences or force:
        return [f"forced: {each}" for each in differences]
    shown = "; ".join(differences[:_SHOWN_DIFFERENCES])
    more = len(differences) - _SHOWN_DIFFERENCES
    # A name means the published model, so what differs from it is planned from its own directory.
    again = "DIR" if what == "model" and plan.model.path is None else _model_of(plan)
    raise PlanMismatch(
        f"this plan was made for another {what}: {shown}{f'; and {more} more' if more > 0 else ''}."
        f" Plan again with: {command('roost', 'plan', again, *_file_words(plan))} or run with {option('force', True)}."
    )


def _file_words(plan: PlanDocument) -> Iterator[str]:
    for name, path in plan.given_files.items():
        yield from ("--file", f"{name}={path}")


def _machine_words(machine: MachineRecord) -> Iterator[str]:
    """What was typed for the machine that the plan is for."""
    gpu, host = machine.gpu, machine.host
    emulated = gpu.device_kind == "emulated"
    if emulated or gpu.named:
        yield from ("--gpu", "emulated" if emulated else gpu.profile or gpu.name)
    if emulated or gpu.vram_typed:
        yield from ("--vram", f"{gpu.free_bytes / GiB:g}GiB")
    if host.ram_typed:
        yield from ("--ram", f"{host.there_bytes / GiB:g}GiB")


def check_fits(plan: PlanDocument) -> None:
    """Raises NothingFits for a plan whose weights exceed its budget."""
    if not plan.fits:
        raise NothingFits(
            f"this plan {plan.budget.verdict} Plan with less resident, with a larger {option('vram')}, or run"
            f" with {option('force', True)}."
        )


def why_masters_stay(plan: PlanDocument, generations: int, *, loras: bool = False) -> str | None:
    """Why so many generations can't give back the host memory that the plan does; None where they can.

    Of several generations the texts are encoded first, so text encoders may go when that is done.
    """
    turns = plan.budget.host_turns
    if not turns:
        return None
    if loras:
        return "weights with a LoRA are in memory from the start"
    if generations == 1:
        return None
    texts = {name for name, each in plan.components.items() if each.kind == "text_encoder"}
    among = any(
        one.masters.keys() - other.masters.keys() and other.component in texts for one, other in pairwise(turns)
    )
    return None if plan.budget.given_back <= texts and not among else f"{generations} generations need them again"


def keeping_masters(plan: PlanDocument) -> PlanDocument:
    """The plan with every master in host memory all the time."""
    return revised(plan, budget=revised(plan.budget, host_bytes=plan.budget.all_masters_bytes, host_turns=[]))


def check_host_memory(plan: PlanDocument, inventory: Inventory, host: HostFacts, why_all: str | None = None) -> None:
    """Raises NothingFits for a plan whose host copies exceed host memory.

    ``why_all`` says why the plan's masters are all there together, where it would give some back. Masters that stay in
    the model's files need none, as far as the files have the very tensors to load.
    """
    # While it loads, the largest resident component passes through host memory beside the masters.
    passing = max((each.load_bytes for each in plan.components.values() if each.strategy == "resident"), default=0)
    converted = _mapped_in_vain(plan, inventory)
    shared = plan.budget.peak_weights_bytes if plan.machine.gpu.unified else 0  # lies in the same memory
    needed = plan.budget.host_bytes + passing + shared + sum(converted.values())
    if needed > host.available_bytes:
        because = f" ({', '.join(converted)} can't stay in its files: they are converted as they load)"
        raise NothingFits(
            f"loading needs {format_bytes(needed)} of host memory{because if converted else ''} and"
            f" {format_bytes(host.available_bytes)} is available ({host.source}),"
            f" {format_bytes(needed - host.available_bytes)} short; {_remedy(why_all)}, or run with"
            f" {option('force', True)}."
        )


def _remedy(why_all: str | None) -> str:
    if why_all is None:
        return "free host memory"
    return f"the plan's masters stay, because {why_all}: plan for that with {option('generations', 2)}"


def _mapped_in_vain(plan: PlanDocument, inventory: Inventory) -> dict[str, int]:
    """Bytes of the blocks that the plan leaves in files which don't have them as they load, by component."""
    found = {}
    for name, planned in plan.components.items():
        loaded = replace(inventory.component(name), load_dtype=planned.load_dtype)
        if planned.master is None or not planned.master.mapped or can_be_mapped(loaded):
            continue
        blocks = planned.master.pinned + planned.master.pageable + planned.master.mapped
        # Blocks of one component differ little; when all are mapped, so is the rest.
        size = planned.load_bytes if planned.master.mapped == blocks else sum(each.bytes for each in planned.stacks)
        found[name] = size * planned.master.mapped // blocks
    return found
