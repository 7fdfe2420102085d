"""LoRAs: a file as it is given, and what one adds to a model that it isn't fused into."""

from __future__ import annotations

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
    """What the LoRAs of one layer, by its module's name, add to it: ``bytes`` of weights, and work in each call.

    ``inputs`` and ``outputs`` are the layer's own, ``multiply_adds`` those of one row (a token, or a pixel).
    """

    component: str
    module: str
    bytes: int
    inputs: int
    outputs: int
    multiply_adds: int
    kernels: int
