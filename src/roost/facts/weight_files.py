"""A file of weights as its header describes it, and the recipe that makes a component's tensors of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Container = Literal["safetensors", "gguf"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor as it lies in a file. Source: the header alone.

    ``shape`` is of its values, rows first, whatever the file packs into a byte; ``format`` is the container's own word
    (``BF16``, ``F8_E4M3``, ``Q4_K``); ``offset`` counts from the file's first byte.
    """

    name: str
    shape: tuple[int, ...]
    format: str
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """What one file of weights says of itself. ``sha256`` is of its header; ``metadata`` holds plain values only.

    ``small`` are the contents of tensors that say how others are to be read, such as Comfy's markers, by their names.
    """

    path: str
    container: Container
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str | int | float | bool]
    sha256: str
    file_bytes: int
    small: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows ``start`` to ``stop`` of a file's tensor, a contiguous run of its bytes."""

    source: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One tensor of a component as its module holds it, and the pieces it is made of, one below another.

    ``shape`` is of its values; ``bytes`` are those that the module holds, packed where ``dtype`` is (``uint8`` for
    GGUF's blocks). ``format`` is the stored one.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    format: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a component's tensors are made of one file's; every target once, every source used or ``unused``.

    ``method`` is how the file's weights are quantised, None for plain ones.
    """

    targets: tuple[Target, ...]
    unused: tuple[str, ...]
    method: str | None
