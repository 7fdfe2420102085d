"""What one operation is and costs: its class, its FLOPs, the bytes it reads and writes, or that it is only a view."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from roost.pipelines.internals import of_operators
from roost.trace import OpClass

_ATEN = torch.ops.aten
_MATMULS = frozenset(("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot")) | of_operators.MATMULS
_CONVS = frozenset(("convolution", "cudnn_convolution", "mkldnn_convolution")) | of_operators.CONVS
# Allocations, and results that share their argument's storage without being declared as views.
_NO_KERNEL = frozenset(
    (
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_"),
        *("lift", "lift_fresh", "detach"),
        *("sym_size", "sym_stride", "is_same_size"),
        *of_operators.NO_KERNEL,
    )
)


@dataclass(frozen=True, slots=True)
class OpKind:
    """An operation's class and, when it has one, its formula ``flops(args, kwargs, out)``; None for a mere view."""

    op_class: OpClass
    flops: Callable[[tuple[Any, ...], Mapping[str, Any], Any], int] | None


@cache
def op_kind(func: Any) -> OpKind | None:
    """The kind of an operator overload; None when it launches nothing."""
    packet = func.overloadpacket
    name = packet.__name__
    if func.is_view or name in _NO_KERNEL or func.namespace == "prim":
        return None
    if of_operators.is_attention(name):
        return OpKind("attention", _attention_flops)
    op_class: OpClass = "matmul" if name in _MATMULS else "conv" if name in _CONVS else "elementwise"
    formula = of_operators.flops_of(packet)
    if formula is None:
        return OpKind(op_class, None)
    return OpKind(op_class, lambda args, kwargs, out: int(formula(*args, **kwargs, out_val=out)))


def _attention_flops(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    """By hand, because torch's counter takes the CPU's flash attention for free."""
    query, key, value = args[:3]
    return int(of_operators.attention_flops(query.shape, key.shape, value.shape))


def attention_kind(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[bool, int]:
    """Whether a call of fused attention passes a mask, and the width of its heads."""
    return of_operators.is_masked(func, args, kwargs), int(args[0].shape[-1])


def moved_bytes(tensor: torch.Tensor) -> int:
    """Bytes that reading or writing ``tensor`` once moves; an expanded tensor's storage is smaller than its shape."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
