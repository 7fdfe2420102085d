"""What Roost uses of torch's operators that is private to it: their schemas, names and formulas of FLOPs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

_ATEN = torch.ops.aten

# Which arguments an operation writes: TorchDispatchMode gives operators, and nothing public tells it of one.
schema_of: Callable[[Any], Any] = attrgetter("_schema")

# flex attention and the like, which have no schema; the public ``torch.ops.higher_order`` only lists them.
HigherOrderOperator: type = torch._ops.HigherOrderOperator

# FLOPs by operator. The public FlopCounterMode is a mode of its own, and counts no bytes.
flops_of: Callable[[Any], Callable[..., Any] | None] = flop_registry.get
attention_flops: Callable[[Any, Any, Any], int] = sdpa_flop_count

# Operators that TorchDispatchMode shows and whose names are nobody's public interface.
SCALAR_READ: Any = _ATEN._local_scalar_dense.default
UNIQUE: Any = _ATEN._unique2.default
MATMULS = frozenset(("_scaled_mm", "_int_mm"))
CONVS = frozenset(("_convolution", "_slow_conv2d_forward"))
NO_KERNEL = frozenset(("_unsafe_view", "_reshape_alias", "_local_scalar_dense"))
COPIES = frozenset(("_to_copy", "_local_scalar_dense"))
_ATTENTION, _ATTENTION_END = "_scaled_dot_product", "_attention_forward"
_MASKS = frozenset(("attn_mask", "attn_bias", "bias"))  # what fused attention calls its mask


def is_attention(name: str) -> bool:
    """Whether an operator is one of fused attention, of which each backend has its own."""
    return name.startswith(_ATTENTION) or name.endswith(_ATTENTION_END)


def is_masked(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call of fused attention passes a mask."""
    names = [argument.name for argument in schema_of(func).arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return any(given.get(name) is not None for name in _MASKS)


def eager_kernel(operator: Any) -> Callable[..., Any] | None:
    """What a higher-order operator does where nobody compiles it; calling it would have it compiled first."""
    kernel: Callable[..., Any] | None = operator.py_kernels.get(torch._C.DispatchKey.CompositeExplicitAutograd)
    return kernel
