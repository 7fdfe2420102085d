"""What packed weights mean: each format's definition, in float32, on whatever device the bytes are.

Values are computed in float32 in the order that is written here and rounded once, to the dtype of whoever asks. GGUF
and BFL's formats are decoded by diffusers' own functions, whose arithmetic is theirs: GGUF's scales are float16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from roost.pipelines.internals.of_diffusers import gguf_blocks

_NVFP4_BLOCK, _MXFP8_BLOCK = 16, 32
# The exponents of E8M0 are float32's own; 0 stands for 2 ** -127, which float32 has as a denormal.
_LEAST_E8M0 = 0x00400000
_MANTISSA_BITS = 23


def decode_scaled(packed: torch.Tensor, scale: torch.Tensor, rotation: int = 0) -> torch.Tensor:
    """Values times the scale of the tensor, their row or their block; turned back where they were rotated."""
    values = packed.float()
    scale = scale.float()
    if scale.ndim == 2 and scale.numel() > 1 and tuple(scale.shape) != (values.shape[0], 1):  # of blocks
        rows, columns = (-(-size // count) for size, count in zip(values.shape, scale.shape, strict=True))
        if scale.shape == tuple(-(-size // 128) for size in values.shape):
            rows = columns = 128
        scale = scale.repeat_interleave(rows, 0)[: values.shape[0]]
        scale = scale.repeat_interleave(columns, 1)[:, : values.shape[1]]
    elif scale.ndim:
        scale = _as_rows(scale, values)
    values = values * scale
    return values if not rotation else _turned_back(values, rotation)


def decode_mxfp8(packed: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Values times a power of two for each 32 of a row. ``scale`` has its exponents as bytes, swizzled."""
    rows, columns = packed.shape
    exponents = unswizzled(scale, rows, columns // _MXFP8_BLOCK).to(torch.int32)
    bits = torch.where(exponents == 0, _LEAST_E8M0, exponents << _MANTISSA_BITS)
    blocks = packed.float().reshape(rows, -1, _MXFP8_BLOCK)
    return (blocks * bits.view(torch.float32).unsqueeze(-1)).reshape(rows, columns)


def decode_nvfp4(packed: torch.Tensor, scale: torch.Tensor, scale_2: torch.Tensor) -> torch.Tensor:
    """Two values a byte, the first in its high half, times their tensor's scale times that of each 16 of a row."""
    rows = packed.shape[0]
    values = _e2m1(torch.stack((packed >> 4, packed & 0x0F), dim=-1)).reshape(rows, -1, _NVFP4_BLOCK)
    blocks = unswizzled(scale, rows, values.shape[1]).float()
    total = scale_2.float() * blocks
    return (values * total.unsqueeze(-1)).reshape(rows, -1)


def decode_gguf(packed: torch.Tensor, kind: str, shape: Sequence[int]) -> torch.Tensor:
    """The values of ggml's blocks as diffusers decodes them, in the dtype that it does so in."""
    decode, values, size = gguf_blocks(kind)
    made: torch.Tensor = decode(packed.reshape(-1, size), values, size)
    return made.reshape(tuple(shape))


def unswizzled(scale: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Scales of blocks by row and column, from tiles of 128 rows and 4 columns, which lie row after row of tiles.

    In a tile the rows are interleaved: 32 groups, each of its row in every quarter of the tile.
    """
    tiles = scale.reshape(-(-rows // 128), -(-columns // 4), 32, 4, 4)
    return tiles.permute(0, 3, 2, 1, 4).reshape(-(-rows // 128) * 128, -(-columns // 4) * 4)[:rows, :columns]


def rotation_matrix(size: int, device: torch.device) -> torch.Tensor:
    """The regular Hadamard matrix that rotates ``size`` values, a power of four; orthogonal, and its own inverse."""
    matrix = four = 1 - 2 * torch.eye(4, device=device).flip(0)
    while matrix.shape[0] < size:
        matrix = torch.kron(matrix, four)
    return matrix / math.sqrt(size)


def _turned_back(values: torch.Tensor, rotation: int) -> torch.Tensor:
    groups = values.reshape(values.shape[0], -1, rotation)
    turned = groups @ rotation_matrix(rotation, values.device)
    return turned.reshape(values.shape)


def _as_rows(scale: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return scale.reshape(-1, *(1,) * (values.ndim - 1))


def _e2m1(codes: torch.Tensor) -> torch.Tensor:
    """The values of four bits: a sign, two of exponent and one of mantissa."""
    exponent, mantissa = (codes >> 1) & 3, codes & 1
    doubled = torch.where(exponent == 0, mantissa, (2 + mantissa) << (exponent - (exponent > 0).to(codes.dtype)))
    values = doubled.float() / 2
    return torch.where(codes >= 8, -values, values)
