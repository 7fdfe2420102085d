"""What Roost uses of diffusers that is private to it. Libraries are imported where they are used: names need none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

# Where a module keeps its registry of hooks, and its cache's settings. ``HookRegistry.check_if_exists_or_initialize``
# would put a registry onto modules of a user that have none.
REGISTRY = "_diffusers_hook"
BACKEND = "_attention_backend"  # of an attention's processor
CACHE_CONFIG = "_cache_config"


def has_hook(attributes: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Whether one of diffusers' hooks of these names is on a module with these attributes."""
    registry = attributes.get(REGISTRY)
    return registry is not None and any(name in registry.hooks for name in names)


def forward_before_hooks(registry: Any) -> Any:
    """The forward that a module had before its first hook; ``remove_hook`` would change the user's module."""
    first = registry._fn_refs[0]
    return first.original_forward or first.forward


def put_before_hooks(registry: Any, forward: Any) -> None:
    """Has the first hook call ``forward`` in place of what it called; a public one would come before the others."""
    first = registry._fn_refs[0]
    if first.original_forward is not None:
        first.original_forward = forward
    else:
        first.forward = forward


def replace_forward(registry: Any, forward: Any, other: Any) -> None:
    """Puts ``other`` wherever a registry's hooks call ``forward``."""
    for each in registry._fn_refs:
        if each.original_forward is forward:
            each.original_forward = other
        if each.forward is forward:
            each.forward = other


def may_skip(registry: Any) -> bool:
    """Whether hooks of diffusers that read no weight decide if a module's forward runs; there is no public word for it.

    TextKVCache's hooks run modules of their block before its forward: theirs is not one.
    """
    return bool(registry.hooks) and all(
        type(each).__module__ in _SKIPPING or type(each).__name__ == _LAYER_SKIP for each in registry.hooks.values()
    )


_SKIPPING = frozenset(f"diffusers.hooks.{name}" for name in ("first_block_cache", "mag_cache", "taylorseer_cache"))
_LAYER_SKIP = "TransformerBlockSkipHook"


def hook_references() -> type:
    """The class of a registry's notes of the forwards it wrapped, which hold no state of a call."""
    from diffusers.hooks.hooks import HookFunctionReference  # imported here: this file brings no library

    found: type = HookFunctionReference
    return found


def converts_its_files(kind: type) -> bool:
    """Whether a model's class changes its files' tensors as it loads them, which nothing public tells."""
    from diffusers import ModelMixin  # imported here: this file brings no library

    return getattr(kind, _CONVERTS, None) is not getattr(ModelMixin, _CONVERTS)


_CONVERTS = "_fix_state_dict_keys_on_load"


def lora_components(pipeline_class: Any) -> tuple[str, ...]:
    """The components that a pipeline's class can load a LoRA into; the documentation only lists them in words."""
    if not hasattr(pipeline_class, "load_lora_weights"):
        return ()
    return tuple(getattr(pipeline_class, "_lora_loadable_modules", ()))


def expected_components(pipeline_class: Any) -> set[str]:
    """What a pipeline's class must be given; its public ``components`` needs an instance that has them all."""
    expected, _ = pipeline_class._get_signature_keys(pipeline_class)
    return set(expected)


def takes_group_offload(component: object) -> bool:
    """False where a component's class refuses group offloading; the public way is to try, and get half of it."""
    return getattr(component, "_supports_group_offloading", True) is not False


@contextmanager
def kept_attention(module: Any) -> Iterator[None]:
    """Afterwards the module has the backends that it had; ``reset_attention_backend`` would forget a user's own."""
    processors = [getattr(part, "processor", None) for part in module.modules()]
    before = [(each, vars(each)[BACKEND]) for each in processors if BACKEND in getattr(each, "__dict__", {})]
    unset = [each for each in processors if each is not None and BACKEND not in getattr(each, "__dict__", {})]
    try:
        yield
    finally:
        for processor, backend in before:
            setattr(processor, BACKEND, backend)
        for processor in unset:
            getattr(processor, "__dict__", {}).pop(BACKEND, None)


@contextmanager
def kept_registries(module: Any) -> Iterator[None]:
    """Afterwards no part has more of a registry than it had; ``disable_cache`` leaves empty ones, and own forwards."""
    before = [(part, REGISTRY in vars(part), "forward" in vars(part)) for part in module.modules()]
    had_config = CACHE_CONFIG in vars(module)
    try:
        yield
    finally:
        for part, had_registry, had_forward in before:
            if not had_registry:
                vars(part).pop(REGISTRY, None)
                if not had_forward:
                    vars(part).pop("forward", None)
        if not had_config:
            vars(module).pop(CACHE_CONFIG, None)


def reset_cache(module: Any) -> None:
    """Empties a model's cache over steps; the public ``maybe_free_model_hooks`` does it at the end of a call only."""
    module._reset_stateful_cache()


def without_initial_weights() -> AbstractContextManager[object]:
    """Inside it, models are made without computing initial weights; the public meta device would leave no buffers."""
    from diffusers.models import modeling_utils  # imported here: this file brings no library

    context: AbstractContextManager[object] = modeling_utils.no_init_weights()
    return context
