"""The law of what is private of other libraries: one folder uses it."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterable, Iterator

from house_sources import DRY_RUN, PACKAGE, TORCH_ROOMS, Source, Violation, imported_names

INTERNALS = "pipelines/internals"  # the one folder that uses what other libraries keep private
FOREIGN = ("torch", "diffusers", "transformers", "accelerate", "peft")
# Private of them, by name: an underscored one that Roost's own code has too, or one that no underscore marks.
PRIVATE_NAMES = frozenset(
    (
        *("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_forward_hooks", "_forward_pre_hooks"),
        *("_compiled_call_impl", "_apply", "_version", "_cdata", "_schema", "_NormBase", "_is_view", "_backward_hooks"),
        *("_disable_current_modes", "DisableTorchFunctionSubclass", "DisableTorchFunction", "DispatchKey"),
        *("flop_registry", "sdpa_flop_count", "py_kernels", "flex_attention_hop", "HigherOrderOperator"),
        *("in_kernel_invocation_manager", "_hf_hook", "_mm_manager", "_diffusers_hook", "_fn_refs", "_cache_config"),
        "_attention_backend",
        *("_lora_loadable_modules", "_get_signature_keys", "_supports_group_offloading", "HookFunctionReference"),
        *("_fix_state_dict_keys_on_load", "_from_config", "no_init_weights", "TIME_OUT_REMOTE_CODE", "get_kernel"),
        *("get_model_conversion_mapping", "_local_scalar_dense", "_unique2", "_to_copy"),
    )
)
NOT_FOREIGN = ("_exit",)  # os._exit, which Python documents


def check_internals(sources: Iterable[Source]) -> Iterator[Violation]:
    """What is private of other libraries is used in one folder, and rooms without torch don't load them through it."""
    sources = list(sources)
    own = {name for source in sources for name in _own_names(source.tree)}
    for source in sources:
        place = "/".join(source.module[1:])
        if place.startswith(f"{INTERNALS}/"):
            continue
        for line, name in _private_uses(source, own):
            yield Violation(source.path, line, f"{name} is private of a library: use it in {INTERNALS}, with a canary")
        if source.room in TORCH_ROOMS or place.startswith(DRY_RUN):
            continue
        for line, name in imported_names(source):
            if name.startswith(f"{PACKAGE}.pipelines.internals.") and ".".join(name.split(".")[:4]) not in _LIGHT:
                yield Violation(source.path, line, f"{source.room} must not import {name}: it brings torch")


# Files of the internals whose import brings no library.
_LIGHT = tuple(f"{PACKAGE}.pipelines.internals.{name}" for name in ("of_accelerate", "of_diffusers", "of_transformers"))


def _private_uses(source: Source, own: Container[str]) -> Iterator[tuple[int, str]]:
    """Imports, attributes and texts (of a getattr or a module's dictionary) that name what is private of a library."""
    for line, name in imported_names(source):
        parts = name.split(".")
        if parts[0] in FOREIGN and any(each.startswith("_") or each in PRIVATE_NAMES for each in parts):
            yield line, name
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute):
            if (not _is_of_self(node) and _is_private(node.attr, own)) or _is_data_setter(node):
                yield node.lineno, node.attr
        elif isinstance(node, ast.Constant) and node.value in PRIVATE_NAMES:
            yield node.lineno, str(node.value)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "getattr",
            "setattr",
            "hasattr",
            "delattr",
        ):
            names = [each.value for each in node.args[1:2] if isinstance(each, ast.Constant)]
            yield from ((node.lineno, name) for name in names if name not in PRIVATE_NAMES and _is_private(name, own))


def _is_private(name: object, own: Container[str]) -> bool:
    """Whether a name is one of a library's, by the list, or underscored and nothing that Roost's own code defines."""
    if not isinstance(name, str):
        return False
    underscored = name.startswith("_") and not name.startswith("__")
    return name in PRIVATE_NAMES or (underscored and name not in own and name not in NOT_FOREIGN)


def _is_data_setter(node: ast.Attribute) -> bool:
    return node.attr == "__set__" and isinstance(node.value, ast.Attribute) and node.value.attr == "data"


def _own_names(tree: ast.Module) -> Iterator[str]:
    """Names that a module defines: functions, classes, variables and fields, and attributes of ``self``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_of_self(node):
            yield node.attr


def _is_of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
