"""LoRAs as peft layers on a pipeline's components, put there by diffusers' own code, which knows every key layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file

from roost.errors import InvalidFile, UsageError
from roost.facts.loras import Adapters, LoraFile, SidePath
from roost.option_spelling import option
from roost.pipelines.internals.of_diffusers import expected_components, lora_components
from roost.shell_quoting import shown_path

T = TypeVar("T")
Modules = Mapping[str, torch.nn.Module]

_DENOISERS = ("transformer", "unet")
_PREFIXES = ("lora_", "lokr_")  # of peft's own names; an adapter whose name is part of one is loaded wrongly
_ADAPTED = re.compile(r"[._]lo(?:ra|kr)[._]")  # after a layer's name: old files have to_q_lora.down
_TABLES, _BASE = "adapter_layer_names", "base_layer"  # what peft's layers have


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedAdapter:
    """Where a LoRA is now, under which name, how many layers it has, and how many of them fit nothing."""

    name: str
    components: tuple[str, ...]
    layers: int
    unused: int


def loadable_components(found: Any, names: Iterable[str]) -> tuple[str, ...]:
    """Of the components with these names, those that the pipeline's class can load a LoRA into."""
    known = frozenset(names)
    return tuple(name for name in lora_components(found) if name in known)


def check_loras(found: Any, names: Iterable[str], loras: Sequence[LoraFile]) -> None:
    """UsageError when the pipeline class takes no LoRA, or none for a named component."""
    if not loras:
        return
    loadable = loadable_components(found, names)
    if not loadable:
        raise UsageError(f"{found.__name__} takes no LoRA in diffusers; leave --lora out.")
    for lora in loras:
        if lora.component is not None and lora.component not in loadable:
            raise UsageError(f"--lora {lora.component}=…: {found.__name__} takes LoRAs for {', '.join(loadable)} only.")


def is_fused(lora: LoraFile, loras: Sequence[LoraFile], component: str, *, plain: bool) -> bool:
    """Whether ``lora``, one of ``loras``, is fused into the component: one answer for all LoRAs of a component.

    UsageError where that is asked for and its weights aren't ``plain``.
    """
    asked = {each.fuse for each in loras if each.component in (None, component)}
    if False in asked or (True not in asked and not plain):
        return False
    if not plain:
        raise UsageError(
            f"--lora {shown_path(lora.path)}: the weights of {component} are quantised, and fusing would round them"
            f" again; leave {option('fuse', True)} out."
        )
    return True


def adapter_names(loras: Sequence[LoraFile]) -> list[str]:
    """A name for each, as ``pipeline.set_adapters`` takes it: the file's, with a number where that isn't enough."""
    names: list[str] = []
    for lora in loras:
        stem = re.sub(r"\W", "_", lora.path.stem)
        tries = (stem, *(f"{stem}_{number}" for number in range(2, len(loras) + 3)))
        names.append(next(each for each in tries if each not in names and not _part_of_a_prefix(each)))
    return names


def _part_of_a_prefix(name: str) -> bool:
    return any(name in prefix for prefix in _PREFIXES)


def add_adapter(found: Any, modules: Modules, lora: LoraFile, name: str) -> AddedAdapter:
    """Puts the LoRA onto those of ``modules`` that it is for, as the adapter ``name``, active and at full scale.

    Raises InvalidFile for a file that doesn't fit.
    """
    expert = _expert(modules, lora)
    # diffusers knows one denoiser, by its name: another expert takes that name's place.
    places = dict(modules) if expert is None else {expert: modules[lora.component or expert]}
    pipeline = bare_pipeline(found, places)
    try:
        layers = _load(pipeline, lora, name)
        if not any(_adapted(each, name) for each in places.values()):
            layers = _load_as_kohya(pipeline, lora, name) or layers
    except Exception as error:  # the libraries raise every kind for a file that doesn't fit
        line = " ".join(str(error).split())[:150]
        raise InvalidFile(
            f"--lora {shown_path(lora.path)} does not fit {found.__name__}: {type(error).__name__}: {line}; use a LoRA"
            " that was made for this model."
        ) from error
    unused = layers - sum(_adapted(each, name) for each in places.values())
    filled = [each for each, module in places.items() if _adapted(module, name)]
    wanted = [each for each in filled if expert is not None or lora.component in (None, each)]
    take_off(found, {each: places[each] for each in places if each not in wanted}, name)
    if not wanted:
        meant = lora.component or " or ".join(places)
        raise InvalidFile(f"--lora {shown_path(lora.path)} holds no weights for {meant} of this model.")
    names = tuple(wanted) if expert is None else (lora.component or expert,)
    return AddedAdapter(name=name, components=names, layers=layers, unused=max(0, unused))


def _load(pipeline: Any, lora: LoraFile, name: str) -> int:
    """Loads the file as diffusers does; how many layers it is for."""
    path = lora.path.absolute()
    source = {"weight_name": path.name, "use_safetensors": True, "local_files_only": True}
    layers = _layers(pipeline.lora_state_dict(str(path.parent), **source))
    pipeline.load_lora_weights(str(path.parent), adapter_name=name, **source)
    return layers


# Of a tensor in ComfyUI's layout, which has the original model's names.
_COMFY = re.compile(r"diffusion_model\.(.+)\.(?:lora_(A|down)|lora_(?:B|up))\.weight")


def _load_as_kohya(pipeline: Any, lora: LoraFile, name: str) -> int:
    """For classes whose diffusers converter knows the original names (FLUX's) in Kohya's spelling alone."""
    state: dict[str, torch.Tensor] = load_file(lora.path)
    renamed = {}
    for key, tensor in state.items():
        found = _COMFY.fullmatch(key)
        if found is not None:
            which = "lora_down" if found[2] else "lora_up"
            renamed[f"lora_unet_{found[1].replace('.', '_')}.{which}.weight"] = tensor
        elif key.startswith("diffusion_model.") and key.endswith(".alpha"):
            path = key.removeprefix("diffusion_model.").removesuffix(".alpha")
            renamed[f"lora_unet_{path.replace('.', '_')}.alpha"] = tensor
    if not renamed:
        return 0
    layers = _layers(pipeline.lora_state_dict(dict(renamed)))
    pipeline.load_lora_weights(renamed, adapter_name=name)
    return layers


def take_off(found: Any, modules: Modules, name: str) -> None:
    """Removes the adapter; where it was the last one, the layers are what they were before the first."""
    for component, module in modules.items():
        others = [each for each in getattr(module, "peft_config", {}) if each != name]
        pipeline = bare_pipeline(found, {_known(found, component): module})
        if others:
            pipeline.delete_adapters(name)
        else:
            pipeline.unload_lora_weights()


def fuse_adapter(found: Any, modules: Modules, scale: float) -> None:
    """Adds the one adapter of each of ``modules`` to its weights; nothing of the adapter is left then.

    Raises ValueError where that gives NaN.
    """
    for component, module in modules.items():
        place = _known(found, component)
        pipeline = bare_pipeline(found, {place: module})
        pipeline.fuse_lora(components=[place], lora_scale=scale, safe_fusing=True)
        pipeline.unload_lora_weights()


def activate(found: Any, component: str, module: torch.nn.Module, scales: Mapping[str, float]) -> None:
    """Makes these adapters of the component the active ones, each at its scale."""
    module.eval()  # an adapter's file may ask for dropout
    pipeline = bare_pipeline(found, {_known(found, component): module})
    pipeline.set_adapters(list(scales), list(scales.values()))


def _known(found: Any, component: str) -> str:
    """The component's name, or that of the denoiser in whose place it is."""
    names = lora_components(found)
    return component if component in names else next(each for each in _DENOISERS if each in names)


def _expert(modules: Modules, lora: LoraFile) -> str | None:
    """The main denoiser's name, when the LoRA is for another one of its class."""
    main = next((name for name in _DENOISERS if name in modules), None)
    if lora.component is None or main is None or lora.component == main:
        return None
    return main if type(modules[lora.component]) is type(modules[main]) else None


def _layers(state: Any) -> int:
    """How many layers of the model a LoRA's tensors, renamed as diffusers does, are for."""
    tensors = state[0] if isinstance(state, tuple) else state  # some classes give alphas beside the tensors
    return len({name[: found.start()] for name in tensors if (found := _ADAPTED.search(name)) is not None})


def _adapted(module: torch.nn.Module, name: str) -> int:
    return sum(name in _adapters_of(part) for _, part in _tuned(module))


def _tuned(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers that peft has wrapped, told by what it names in public: peft may not be installed."""
    for name, part in module.named_modules():
        if hasattr(part, _TABLES) and hasattr(part, _BASE):
            yield name, part


def _adapters_of(part: Any) -> set[str]:
    return {name for table in part.adapter_layer_names for name in getattr(part, table)}


def bare_pipeline(found: Any, modules: Modules) -> Any:
    """A pipeline that holds these modules and nothing else: all that diffusers' LoRA code looks at."""
    pipeline = found.__new__(found)
    pipeline.register_modules(**{**dict.fromkeys(expected_components(found)), **modules})
    return pipeline


# What adapters add to a component.


def without_adapters(module: torch.nn.Module, state: Mapping[str, T]) -> dict[str, T]:
    """What of the module's ``state`` is the model's own, under the names that it has without adapters."""
    tuned = {name for name, _ in _tuned(module)}
    if not tuned:
        return dict(state)
    found = {}
    for key, value in state.items():
        parts = key.split(".")
        outer = next((at for at in range(1, len(parts)) if ".".join(parts[:at]) in tuned), None)
        if outer is None:
            found[key] = value
        elif parts[outer] == _BASE:
            found[".".join((*parts[:outer], *parts[outer + 1 :]))] = value
    return found


def bare_name(name: str) -> str:
    """A weight's name as it is without the layers that adapters put around its own."""
    return name.replace(f".{_BASE}.", ".")


def adapters_of(component: str, module: torch.nn.Module, element_bytes: int | None = None) -> Adapters:
    """What the adapters of ``module`` add to it, at the dtype that they have or as elements of so many bytes."""
    tuned = list(_tuned(module))
    own = without_adapters(module, dict(module.named_parameters()))
    return Adapters(
        component=component,
        paths=tuple(
            _side_path(adapter, name, part, element_bytes)
            for name, part in tuned
            for adapter in sorted(_adapters_of(part))
        ),
        matrices={name.rpartition(".")[0]: each.numel() for name, each in own.items() if each.ndim > 1},
    )


def _side_path(adapter: str, name: str, part: Any, element_bytes: int | None) -> SidePath:
    base = part.get_base_layer().weight
    found = (getattr(part, table) for table in part.adapter_layer_names)
    weights = [weight for table in found if adapter in table for weight in _weights(table[adapter])]
    sizes = [each.numel() * (element_bytes or each.element_size()) for each in weights]
    low_rank = adapter in getattr(part, "lora_A", {})
    return SidePath(
        adapter=adapter,
        module=name,
        tensor_bytes=tuple(sizes),
        inputs=base.numel() // base.shape[0],
        outputs=base.shape[0],
        # What isn't two matrices is multiplied out, in each call, into one as large as the layer's own.
        multiply_adds=sum(each.numel() for each in weights) if low_rank else base.numel(),
    )


def _weights(value: Any) -> list[torch.Tensor]:
    return list(value.parameters()) if isinstance(value, torch.nn.Module) else [value]
