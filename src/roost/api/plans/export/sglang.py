"""SGLang's command for a plan. Its arguments: sglang/multimodal_gen, runtime/server_args.py; tests keep their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from roost.api.plans.export.exported import MOVED, STREAMED, Exported, block_count, common_notes, model_of
from roost.facts.resident_policy import blocks_of_stacks
from roost.plan import ComponentPlan, PlanDocument
from roost.shell_quoting import command

_MODES = {"resident": "resident", STREAMED: STREAMED, **dict.fromkeys(MOVED, "component-offload")}


def sglang_command(plan: PlanDocument, model: str | None = None) -> Exported:
    """The command that makes one generation of the plan's workload with SGLang, as a shell takes it."""
    where, notes = model_of(plan, model), tuple(_notes(plan))
    lines = [
        command("sglang", "generate", "--model-path", where),
        *(command(*words) for words in _placement(plan)),
        *(command(*words) for words in _workload(plan)),
        '--prompt "…"',
    ]
    comments = [
        f"# {plan.model.pipeline} as this plan places it; sglang serve takes the same, without what is generated.",
        *(f"# note: {note}" for note in notes),
    ]
    return Exported(text="\n".join([*comments, " \\\n  ".join(lines), ""]), notes=notes)


def _placement(plan: PlanDocument) -> Iterator[tuple[str, ...]]:
    components = {name: plan.components[name] for name in plan.load_order}
    yield "--performance-mode", "manual"
    placed = [f"{name}={_MODES[each.strategy]}" for name, each in components.items() if each.strategy in _MODES]
    if placed:
        yield "--component-residency", *placed
    streamed = {name: each for name, each in components.items() if each.strategy == STREAMED}
    for flag, value_of in _STREAMING.items():
        values = {name: value_of(each) for name, each in streamed.items()}
        given = [f"{name}={value}" for name, value in values.items() if value is not None]
        if given:
            yield flag, ",".join(given)
    if any(each.strategy == "fsdp" for each in components.values()):
        yield "--use-fsdp-inference", "true"
        yield "--num-gpus", str(plan.policy.num_gpus)
    for flag, on in (("--vae-tiling", "tiling"), ("--vae-slicing", "slicing")):
        if any(getattr(each, on) for each in components.values()):
            yield flag, "true"


def _resident_layers(component: ComponentPlan) -> str | None:
    """A number for one stack; for several a share, since SGLang counts in each stack."""
    kept, count = component.resident_blocks, block_count(component)
    if not kept or component.leaf_level:
        return None
    return str(kept) if len(component.stacks) == 1 or kept == count else f"{kept / count:.3f}"


def _policy(component: ComponentPlan) -> str | None:
    """SGLang knows no number for each stack; evenly spread comes nearest."""
    if not component.resident_blocks or component.leaf_level:
        return None
    return "strided" if blocks_of_stacks(component.resident_policy or "") else component.resident_policy


_STREAMING: Mapping[str, Callable[[ComponentPlan], object]] = {
    "--layerwise-prefetch-size": lambda each: 1 if each.leaf_level else each.prefetch,
    "--layerwise-resident-layers": _resident_layers,
    "--layerwise-residency-policy": _policy,
}


def _workload(plan: PlanDocument) -> Iterator[tuple[str, str]]:
    work = plan.workload
    yield "--width", str(work.width)
    yield "--height", str(work.height)
    if work.frames is not None:
        yield "--num-frames", str(work.frames)
    yield "--num-inference-steps", str(work.steps)
    if work.guidance is not None:
        yield "--guidance-scale", f"{work.guidance:g}"


def _notes(plan: PlanDocument) -> Iterator[str]:
    for name in plan.load_order:
        component = plan.components[name]
        yield from common_notes(name, component)
        if component.leaf_level:
            yield f"{name}: Roost would stream it layer by layer; SGLang streams whole blocks, which take more."
        elif component.resident_blocks and len(component.stacks) > 1:
            kept, count = component.resident_blocks, block_count(component)
            yield f"{name}: {kept} of {count} blocks stay by the plan; SGLang keeps that share of each stack."
    if any(each.master for each in plan.components.values()):
        yield "SGLang decides itself how much host memory it pins."
    if plan.attention is not None:
        yield f"attention by diffusers' {plan.attention!r}: SGLang's --attention-backend has names of its own."
    if plan.cache is not None:
        yield f"the plan has diffusers' cache {plan.cache.text}; SGLang's caches are others."
    if plan.workload.batch > 1:
        yield f"the plan is for {plan.workload.batch} outputs a prompt; ask SGLang for one at a time."
    if plan.workload.strength is not None:
        yield f"the plan is for strength {plan.workload.strength:g}, an argument of the request in SGLang."
