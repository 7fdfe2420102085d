"""How each weight of a file is quantised, as its header says: read once, for what sizes files and what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ScaleKind = Literal["tensor", "row", "block"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """What is said of one layer. ``rotated_by`` is the group size of its rotation, None for none."""

    format: str
    rotated_by: int | None = None
    full_precision_matmul: bool = False

    @property
    def key(self) -> str:
        """The format's key in ``facts/weight_formats``."""
        rotated = self.rotated_by is not None and not self.format.startswith("convrot")
        return f"{self.format}+convrot" if rotated else self.format


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedWeight:
    """``name`` is the weight's own, which its module has; ``parts`` are all of its tensors, codes first.

    ``format`` is a key of ``facts/weight_formats`` and ``shape`` that of the values. ``problem`` says what it lacks:
    such a weight must not run as if it were plain.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    parts: tuple[str, ...]
    scale: ScaleKind | None = None
    marker: Marker | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileWeights:
    """``quantised`` by their names; ``asides`` are tensors that are neither a weight's parts nor a model's."""

    quantised: Mapping[str, QuantisedWeight]
    asides: tuple[str, ...]
    full_precision_matmul: bool = False  # said for the whole file
