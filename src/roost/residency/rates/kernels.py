"""Arithmetic, device memory and launches, timed on the shapes of large models (small ones on an emulated device)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional

from roost.facts.rates import HALF, SINGLE, RateKey
from roost.residency.device.interface import Device
from roost.residency.rates.timing import Reading, timed_on_device, timed_on_host


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shapes:
    """``matmul`` is the side of square matrices; attention is (heads, tokens, width); conv is (channels, side)."""

    matmul: int
    attention: tuple[int, int, int]
    conv: tuple[int, int]
    elements: int
    launches: int


_LARGE = _Shapes(matmul=4096, attention=(24, 4096, 128), conv=(256, 512), elements=128 * 1024**2, launches=500)
# What a CPU does in some milliseconds; the elements are beyond its caches.
_SMALL = _Shapes(matmul=512, attention=(8, 512, 64), conv=(64, 64), elements=16 * 1024**2, launches=100)


def kernel_points(device: Device) -> dict[RateKey, Callable[[], Reading]]:
    """How to measure each rate of arithmetic, memory and launches."""
    shapes = _LARGE if device.kind == "cuda" else _SMALL
    half, single = half_dtype(device), torch.float32
    points: dict[RateKey, Callable[[], Reading]] = {
        RateKey.MEMORY: partial(_memory, device, shapes, half),
        RateKey.KERNELS: partial(_launches, device, shapes, half),
    }
    for keys, dtype in ((HALF, half), (SINGLE, single)):
        points |= {
            keys["matmul"]: partial(_matmul, device, shapes, dtype),
            keys["attention"]: partial(_attention, device, shapes, dtype),
            keys["conv"]: partial(_conv, device, shapes, dtype),
        }
    return points


def half_dtype(device: Device) -> torch.dtype:
    """What models of 16 bits are run in here: what has no units for bfloat16 may emulate it, many times as slowly."""
    if device.kind != "cuda":
        return torch.bfloat16
    with torch.cuda.device(device.device):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def _matmul(device: Device, shapes: _Shapes, dtype: torch.dtype) -> Reading:
    side = shapes.matmul
    left, right = _random(device, dtype, side, side), _random(device, dtype, side, side)
    return _timed(device, lambda: left @ right, 2 * side**3)


def _attention(device: Device, shapes: _Shapes, dtype: torch.dtype) -> Reading:
    heads, tokens, width = shapes.attention
    query, key, value = (_random(device, dtype, 1, heads, tokens, width) for _ in range(3))
    flops = 4 * heads * tokens**2 * width
    return _timed(device, lambda: functional.scaled_dot_product_attention(query, key, value), flops)


def _conv(device: Device, shapes: _Shapes, dtype: torch.dtype) -> Reading:
    channels, side = shapes.conv
    picture, kernel = _random(device, dtype, 1, channels, side, side), _random(device, dtype, channels, channels, 3, 3)
    flops = 2 * 9 * channels**2 * side**2
    return _timed(device, lambda: functional.conv2d(picture, kernel, padding=1), flops)


def _memory(device: Device, shapes: _Shapes, dtype: torch.dtype) -> Reading:
    left = _random(device, dtype, 1024).repeat(shapes.elements // 1024)
    right, out = left.clone(), torch.empty_like(left)
    return _timed(device, lambda: torch.add(left, right, out=out), 3 * left.nbytes)


def _launches(device: Device, shapes: _Shapes, dtype: torch.dtype) -> Reading:
    """Kernels with nothing to do, one after another from Python: the host sets the pace."""
    one = _random(device, dtype, 1)

    def launch() -> None:
        for _ in range(shapes.launches):
            torch.add(one, one)

    with device.counting_activations(), torch.inference_mode():
        return timed_on_host(device, launch, shapes.launches)


def _timed(device: Device, work: Callable[[], object], amount: float) -> Reading:
    with device.counting_activations(), torch.inference_mode():
        return timed_on_device(device, work, amount)


def _random(device: Device, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Random numbers: GPUs draw less power, and clock higher, on zeros."""
    return torch.randn(shape, device=device.device, dtype=dtype)
