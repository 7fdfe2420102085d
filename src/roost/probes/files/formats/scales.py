"""What kind of scale stands beside a weight, by its shape; a shape that no kind has is refused."""

from __future__ import annotations

import math

from roost.facts.weight_files import ScaleKind, StoredTensor

# Formats whose scales cover so many elements of a row. Kernels want them in tiles of 128 by 4, which some files pad to.
_GROUPS = {"mxfp8": 32, "mxfp8-unmarked": 32, "hybrid_mxfp8": 32, "nvfp4": 16, "bfl-nvfp4": 16, "nvfp4-unmarked": 16}
_ONLY_BLOCKS = ("int8_blockwise", "float8_e4m3fn_blockwise")
_NO_BLOCKS = ("int8_tensorwise", "convrot_w4a4", "float8_e4m3fn_rowwise")
_TILE_ROWS, _TILE_COLUMNS = 128, 4


def scale_kind(format: str, shape: tuple[int, ...], scale: StoredTensor) -> ScaleKind | None:
    """The kind of the scale of a weight whose values have that shape; None where it fits none."""
    if not shape or scale.shape == ():
        return "tensor" if format not in (*_GROUPS, *_ONLY_BLOCKS) else None
    rows, columns = shape[0], math.prod(shape[1:])
    group = _GROUPS.get(format)
    if group is not None:
        return "block" if _is_grouped(scale.shape, rows, columns, group) else None
    if format in _ONLY_BLOCKS:
        return "block" if _is_blocked(scale.shape, rows, columns) else None
    if math.prod(scale.shape) == 1:
        return "tensor"
    if scale.shape in ((rows,), (rows, 1), (rows, *(1 for _ in shape[1:]))):
        return "row"
    return "block" if format not in _NO_BLOCKS and _is_blocked(scale.shape, rows, columns) else None


def _is_grouped(scale: tuple[int, ...], rows: int, columns: int, group: int) -> bool:
    exact = (rows, -(-columns // group))
    padded = tuple(-(-each // tile) * tile for each, tile in zip(exact, (_TILE_ROWS, _TILE_COLUMNS), strict=True))
    return math.prod(scale) in (math.prod(exact), math.prod(padded))


def _is_blocked(scale: tuple[int, ...], rows: int, columns: int) -> bool:
    """One scale for each block of rows and columns, which divide the weight's."""
    if len(scale) == 3 and scale[-1] == 1:
        scale = scale[:2]
    if len(scale) != 2 or not all(scale):
        return False
    return all(
        each <= whole and -(-whole // (-(-whole // each))) == each
        for each, whole in zip(scale, (rows, columns), strict=True)
    )
