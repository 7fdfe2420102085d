"""LoRAs: a file as it is given, and what one adds to a model that it isn't fused into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFile:
    """A safetensors file of LoRA weights; ``component`` None leaves it to the pipeline's class where they go.

    ``fuse`` None fuses it into plain weights, and computes it beside quantised ones.
    """

    path: Path
    scale: float
    component: str | None
    sha256: str
    fuse: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SidePath:
    """What one adapter adds to one layer, by its module's name: weights of ``tensor_bytes``, and work in each call.

    ``inputs`` and ``outputs`` are the layer's own, ``multiply_adds`` those of one row (a token, or a pixel).
    """

    adapter: str
    module: str
    tensor_bytes: tuple[int, ...]
    inputs: int
    outputs: int
    multiply_adds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """What LoRAs add to one component; ``matrices`` are the elements of all its weights of two dimensions or more."""

    component: str
    paths: tuple[SidePath, ...]
    matrices: Mapping[str, int]  # by the module's name
