"""When two modules are twins: same classes, same plain attributes, same shapes and dtypes, all the way down."""

from __future__ import annotations

import types
from typing import Any

import torch

# Where a layer stands in its stack; read only to find its own part of a key-value cache, which a replay never sees.
_POSITIONS = ("layer_idx",)
_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)
_COLLECTIONS = (list, tuple, dict, set, frozenset)
_CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type)
_BOOKKEEPING = frozenset((*vars(torch.nn.Module()), "forward", "_hf_hook"))


def structure_of(module: torch.nn.Module) -> tuple[Any, ...]:
    """A hashable description, equal for modules whose forward does the same operations on equal inputs."""
    tensors = [*module._parameters.items(), *module._buffers.items()]
    return (
        type(module),
        tuple((name, *_layout(each)) for name, each in tensors),
        tuple((name, _attribute(value)) for name, value in sorted(vars(module).items()) if _matters(name)),
        tuple((name, structure_of(each)) for name, each in module._modules.items() if each is not None),
    )


def _matters(name: str) -> bool:
    return name not in _BOOKKEEPING and name not in _POSITIONS


def _layout(tensor: torch.Tensor | None) -> tuple[Any, ...]:
    return () if tensor is None else (tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _attribute(value: Any, depth: int = 0) -> Any:
    if isinstance(value, _PLAIN):
        return (type(value), value)
    if isinstance(value, torch.Tensor):
        return _layout(value)
    if isinstance(value, _COLLECTIONS):
        parts = value.items() if isinstance(value, dict) else value
        if isinstance(value, set | frozenset):
            parts = sorted(value, key=repr)
        return (type(value), *(_attribute(each, depth) for each in parts))
    if depth == 0 and hasattr(value, "__dict__") and not isinstance(value, _CODE):  # attention processors and the like
        return (type(value), *((name, _attribute(each, 1)) for name, each in sorted(vars(value).items())))
    return getattr(value, "__func__", value) if isinstance(value, _CODE) else id(value)
