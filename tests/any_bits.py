"""Tensors of every dtype and of any bits, and what they and others become on their way to another worker."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import strategies as st

from roost.fleet.codec import packed, unpacked

CPU = torch.device("cpu")
DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.bool),
)
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def sent(value: Any) -> Any:
    return unpacked(packed(value), CPU)


def bits_of(tensor: torch.Tensor) -> bytes:
    """All bits of its values, in their order."""
    flat = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach()).reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def of_bits(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """A tensor of any bits, NaN of all kinds among them."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.rand(shape, generator=generator) > 0.5
    count = math.prod(shape) * dtype.itemsize
    raw = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).reshape(shape)
