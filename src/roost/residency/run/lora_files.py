"""A LoRA as a run is given it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraFile:
    """A safetensors file of LoRA weights; ``component`` None leaves it to the pipeline's class where they go."""

    path: Path
    scale: float
    component: str | None
    sha256: str
