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


def hook_count(module: Any) -> int:
    """How many of diffusers' hooks are on a module and its parts."""
    return sum(1 for _ in _hooks(module))


def mixes_outputs(module: Any) -> bool:
    """Whether some blocks under a cache give a prompt's hidden states too and others don't: it computes with both."""
    known = filter(None, (getattr(each, "_metadata", None) for each in _hooks(module)))
    return len({each.return_encoder_hidden_states_index is None for each in known}) > 1


def _hooks(module: Any) -> Iterator[Any]:
    for part in module.modules():
        registry = vars(part).get(REGISTRY)
        yield from registry.hooks.values() if registry is not None else ()


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


def optional_components(pipeline_class: Any) -> tuple[str, ...]:
    """What a pipeline's class does without also where its signature names no default; nothing public says so."""
    return tuple(pipeline_class._optional_components)


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


def single_file_conversion(kind: type) -> Any:
    """The function that makes a class's state dict of an original file's; None for a class that has none."""
    from diffusers.loaders import single_file_model  # imported here: this file brings no library

    name = single_file_model._get_single_file_loadable_mapping_class(kind)
    return single_file_model.SINGLE_FILE_LOADABLE_CLASSES[name]["checkpoint_mapping_fn"] if name else None


def open_clip_conversion() -> Any:
    """The function that makes CLIP's state dict of OpenCLIP's; the public loader also builds and fills the model."""
    from diffusers.loaders import single_file_utils  # imported here: this file brings no library

    return single_file_utils.convert_open_clip_checkpoint


def gguf_blocks(kind: str) -> tuple[Any, int, int]:
    """How blocks of a type of ggml are decoded, how many values each holds and how many bytes it takes.

    The public ``dequantize_gguf_tensor`` takes diffusers' parameters only, which lose their type in a copy.
    """
    import gguf  # imported here: this file brings no library
    from diffusers.quantizers.gguf.utils import dequantize_functions

    found = gguf.GGMLQuantizationType[kind]
    values, size = gguf.GGML_QUANT_SIZES[found]
    return dequantize_functions[found], values, size


def dequantize_bfl(packed: Any, scales: Mapping[str, Any]) -> Any:
    """A weight of BFL's files by diffusers' own functions, which only its module of quantised layers has."""
    from diffusers.quantizers.bfl import utils  # imported here: this file brings no library

    if "weight_scale_2" in scales:
        return utils.dequantize_nvfp4(packed, scales["weight_scale"], scales["weight_scale_2"])
    return utils.dequantize_fp8r(packed, scales["weight_scale"])


def bfl_linear(plain: Any, dtype: Any, *, four_bits: bool) -> Any:
    """diffusers' layer of BFL's files, with ``plain``'s bias; its quantizer makes one only of a whole state dict."""
    import torch  # imported here: this file brings no library
    from diffusers.quantizers.bfl import utils

    kind = utils.QUANTIZED_LINEARS["nvfp4" if four_bits else "fp8r"]
    with torch.device("meta"):
        made = kind(plain.in_features, plain.out_features, plain.bias is not None, compute_dtype=dtype)
    made.bias = plain.bias
    return made.requires_grad_(False)


def gguf_linear(plain: Any, dtype: Any, packed: Any, kind: str) -> Any:
    """diffusers' layer of ggml's blocks, with ``plain``'s bias; its quantizer makes one only of a whole state dict."""
    import gguf  # imported here: this file brings no library
    import torch
    from diffusers.quantizers.gguf import utils

    with torch.device("meta"):
        made = utils.GGUFLinear(plain.in_features, plain.out_features, plain.bias is not None, compute_dtype=dtype)
    made.weight = utils.GGUFParameter(packed, quant_type=gguf.GGMLQuantizationType[kind])
    made.bias, made.source_cls = plain.bias, type(plain)
    return made.requires_grad_(False)


def mark_quantised(module: Any, *, gguf: bool, dtype: Any) -> None:
    """Makes a model known to diffusers as one with its quantised layers, as its loader does: adapters ask for it."""
    import diffusers  # imported here: this file brings no library
    from diffusers.quantizers.auto import DiffusersAutoQuantizer

    config = (diffusers.GGUFQuantizationConfig if gguf else diffusers.BFLQuantizationConfig)(compute_dtype=dtype)
    module.hf_quantizer = DiffusersAutoQuantizer.from_config(config)
    module.is_quantized, module.quantization_method = True, config.quant_method
