"""A script that places a pipeline as the plan does, as far as diffusers and accelerate can by themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from roost.api.plans.export.exported import MOVED, STREAMED, Exported, block_count, common_notes, model_of
from roost.errors import UsageError
from roost.facts.model import FileSource, PipelineFacts
from roost.facts.step_cache import StepCache
from roost.facts.weight_formats import PLAIN_FORMATS
from roost.plan import ComponentPlan, PlanDocument
from roost.profiles.class_facts import load_pipeline_facts
from roost.profiles.models import fallback_profile, load_model_profiles

_SHARDED = "this plan shards {} with FSDP, which no diffusers script of one process can; export a plan without it."
Files = Mapping[str, FileSource]  # by component

# In the order of their use, so that each makes room for the next.
_USED = ("text_encoder", "image_encoder", "other", "dit", "vae")


def diffusers_script(plan: PlanDocument, model: str | None = None) -> Exported:
    """The script; UsageError for a plan that shards, beside ``model_of``'s."""
    sharded = [name for name, each in plan.components.items() if each.strategy == "fsdp"]
    if sharded:
        raise UsageError(_SHARDED.format(", ".join(sharded)))
    odd = [name for name in plan.components if not name.isidentifier()]
    if odd:
        raise UsageError(f"component {odd[0]!r} has no name that Python knows, so no script can place it.")
    where, files = model_of(plan, model), _read_files(plan)
    notes = tuple(_notes(plan, files))
    parts = [[*_head(plan, notes, files)], [*_loading(plan, where, files)], [*_placing(plan)], [*_generating(plan)]]
    return Exported(text="\n\n".join("\n".join(part) for part in parts) + "\n", notes=notes)


def _read_files(plan: PlanDocument) -> Files:
    """The components' files that diffusers reads by itself: plain and GGUF ones, of classes that take a file."""
    from roost.pipelines.classes import component_class  # imported here: it brings torch

    found = {}
    for name, component in plan.components.items():
        source = component.source
        if source is None or source.own or component.library != "diffusers":
            continue
        container, key = source.container_and_key
        reads = hasattr(component_class("diffusers", component.class_name), "from_single_file")
        if reads and (container == "gguf" or key in PLAIN_FORMATS):
            found[name] = source
    return found


def _head(plan: PlanDocument, notes: tuple[str, ...], files: Files) -> Iterator[str]:
    yield f"# {plan.model.pipeline} as this plan places it, by what diffusers has. Exactly as planned, with all below:"
    yield '#     with roost.attach(pipe, plan="PLAN.yaml"): ...'
    yield from (f"# note: {note}" for note in notes)
    yield "import torch"
    if any(each.strategy in MOVED for each in plan.components.values()):
        yield "from accelerate import cpu_offload_with_hook"
    gguf = ["GGUFQuantizationConfig"] if any(_is_gguf(each) for each in files.values()) else []
    cache = [_cache_config(plan, plan.cache)[0]] if plan.cache is not None else []
    classes = {plan.components[name].class_name for name in files}
    yield f"from diffusers import {', '.join([*cache, *gguf, *sorted(classes), plan.model.pipeline])}"
    if any(each.strategy == STREAMED for each in plan.components.values()):
        yield "from diffusers.hooks import apply_group_offloading"
    if plan.cache is not None and plan.cache.name == "mag":
        yield "from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS"
    loaders = sorted({_loader(name) for name in _facts(plan).needs})
    saver = ["export_to_video"] if _facts(plan).makes == "video" else []
    if loaders or saver:
        yield f"from diffusers.utils import {', '.join([*saver, *loaders])}"


def _loading(plan: PlanDocument, where: str, files: Files) -> Iterator[str]:
    yield f"MODEL = {where!r}"
    yield 'DEVICE = "cuda"'
    variant = f", variant={plan.model.variant!r}" if plan.model.variant else ""
    if files:
        yield "FROM_FILES = {"
        for name, source in files.items():
            yield from _from_file(name, plan.components[name], source)
        yield "}"
    given = "**FROM_FILES, " if files else ""
    yield f"pipe = {plan.model.pipeline}.from_pretrained(MODEL, {given}torch_dtype={_dtypes(plan)}{variant})"


def _from_file(name: str, component: ComponentPlan, source: FileSource) -> Iterator[str]:
    dtype = f"torch.{component.load_dtype or 'float32'}"
    yield f'    "{name}": {component.class_name}.from_single_file('
    yield f'        {source.path!r}, config=MODEL, subfolder="{name}", torch_dtype={dtype},'
    if _is_gguf(source):
        yield f"        quantization_config=GGUFQuantizationConfig(compute_dtype={dtype}),"
    yield "    ),"


def _is_gguf(source: FileSource) -> bool:
    return source.container_and_key[0] == "gguf"


def _dtypes(plan: PlanDocument) -> str:
    """One dtype, or the most frequent and those of the others by component."""
    dtypes = {name: each.load_dtype or "float32" for name, each in plan.components.items()}
    usual = Counter(dtypes.values()).most_common(1)[0][0]
    others = {name: dtype for name, dtype in dtypes.items() if dtype != usual}
    if not others:
        return f"torch.{usual}"
    pairs = [*others.items(), ("default", usual)]
    return "{" + ", ".join(f'"{name}": torch.{dtype}' for name, dtype in pairs) + "}"


def _placing(plan: PlanDocument) -> Iterator[str]:
    parts = {name: plan.components[name] for name in plan.load_order}
    for name, each in parts.items():
        if each.strategy == "resident":
            yield f"pipe.{name}.to(DEVICE)"
    moved = sorted((name for name, each in parts.items() if each.strategy in MOVED), key=lambda name: _use(parts, name))
    if moved:
        yield "# Each moves in for its own use, and the one before it out."
        yield "hook = None"
        for name in moved:
            yield f"_, hook = cpu_offload_with_hook(pipe.{name}, DEVICE, prev_module_hook=hook)"
    for name, each in parts.items():
        if each.strategy == STREAMED:
            yield from _streaming(name, each)
    for name, each in parts.items():
        if plan.attention is not None and each.kind == "dit":
            yield f"pipe.{name}.set_attention_backend({plan.attention!r})"
        if plan.cache is not None and each.kind == "dit":
            config, arguments = _cache_config(plan, plan.cache)
            yield f"pipe.{name}.enable_cache({config}({arguments}))"
        yield from (f"pipe.{name}.enable_{what}()" for what in ("tiling", "slicing") if getattr(each, what))


def _cache_config(plan: PlanDocument, cache: StepCache) -> tuple[str, str]:
    """The class of a cache's settings, and the arguments that make them."""
    if cache.name == "first-block":
        return "FirstBlockCacheConfig", f"threshold={cache.threshold!r}"
    if cache.name == "mag":
        steps = f"num_inference_steps={plan.workload.steps_run}"
        return "MagCacheConfig", f"threshold={cache.threshold!r}, {steps}, mag_ratios=FLUX_MAG_RATIOS"
    if cache.name == "pab":
        kinds = ("spatial", "temporal", "cross")
        ranges = ", ".join(f"{kind}_attention_block_skip_range={cache.every}" for kind in kinds)
        return "PyramidAttentionBroadcastConfig", f"{ranges}, current_timestep_callback=lambda: pipe.current_timestep"
    lite = ", use_lite_mode=True" if cache.name == "taylorseer-lite" else ""
    return "TaylorSeerCacheConfig", f"cache_interval={cache.every}{lite}"


def _use(parts: Mapping[str, ComponentPlan], name: str) -> tuple[int, str]:
    return _USED.index(parts[name].kind), name


def _streaming(name: str, component: ComponentPlan) -> Iterator[str]:
    how = 'offload_type="block_level", num_blocks_per_group=1' if _in_blocks(component) else 'offload_type="leaf_level"'
    yield "apply_group_offloading("
    yield f'    pipe.{name}, onload_device=torch.device(DEVICE), offload_device=torch.device("cpu"),'
    yield f'    {how}, use_stream=DEVICE != "cpu",'
    yield ")"


def _in_blocks(component: ComponentPlan) -> bool:
    """Whether whole blocks stream that diffusers finds: it looks for lists of a model, not of its parts."""
    return not component.leaf_level and all("." not in stack.name for stack in component.stacks)


def _generating(plan: PlanDocument) -> Iterator[str]:
    yield "result = pipe("
    yield from (f"    {name}={value}," for name, value in _arguments(plan).items())
    yield ")"
    yield from _saving(_facts(plan))


def _arguments(plan: PlanDocument) -> dict[str, str]:
    """The call's arguments as the script spells their values: those that the plan's workload sets and the call has."""
    from roost.pipelines.classes import pipeline_class
    from roost.pipelines.quiet import quiet_libraries
    from roost.pipelines.signatures import BATCH, FRAMES, call_parameters, name_among  # imported here: they bring torch

    facts, work = _facts(plan), plan.workload
    with quiet_libraries():  # importing a pipeline's class may warn of packages that nothing here needs
        parameters = call_parameters(pipeline_class(plan.model.pipeline))
    wanted: dict[str, int | float | None] = {
        "width": work.width,
        "height": work.height,
        name_among(FRAMES, parameters) or FRAMES[0]: work.frames,
        "num_inference_steps": work.steps,
        _guidance_argument(plan): work.guidance,
        "strength": work.strength,
        name_among(BATCH, parameters) or BATCH[0]: work.batch if work.batch > 1 else None,
    }
    given = {"prompt": '"a red fox in the snow"', **{name: f'{_loader(name)}("FILE")' for name in facts.needs}}
    given |= {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in wanted.items() if value}
    given["generator"] = 'torch.Generator("cpu").manual_seed(0)'
    return {name: value for name, value in given.items() if name in parameters}


def _guidance_argument(plan: PlanDocument) -> str:
    classes = {name: each.class_name for name, each in plan.components.items()}
    known = load_model_profiles().get(plan.model.family or "")
    return (known or fallback_profile(plan.model.pipeline, classes)).guidance_argument


def _saving(facts: PipelineFacts) -> Iterator[str]:
    if facts.makes == "image":
        yield 'result.images[0].save("out.png")'
    elif facts.makes == "video":
        yield 'export_to_video(result.frames[0], "out.mp4", fps=16)'
    else:
        yield "sound = result.audios[0]"


def _loader(argument: str) -> str:
    return "load_video" if "video" in argument or "frames" in argument else "load_image"


def _facts(plan: PlanDocument) -> PipelineFacts:
    facts = load_pipeline_facts().get(plan.model.pipeline)
    if facts is None:
        raise UsageError(f"{plan.model.pipeline} is no pipeline of diffusers, so there is no script for it.")
    return facts


def _notes(plan: PlanDocument, files: Files) -> Iterator[str]:
    for name in plan.load_order:
        component = plan.components[name]
        yield from common_notes(name, component, from_file=name in files)
        if component.strategy != STREAMED:
            continue
        if component.resident_blocks:
            kept, count = component.resident_blocks, block_count(component)
            yield f"{name}: Roost would keep {kept} of {count} blocks on the GPU; group offloading streams them all."
        if component.prefetch is not None and component.prefetch > 1:
            yield f"{name}: Roost would fetch {component.prefetch} blocks ahead; group offloading fetches one."
        if not (_in_blocks(component) or component.leaf_level):
            yield f"{name}: its blocks lie too deep for group offloading, which streams it layer by layer instead."
