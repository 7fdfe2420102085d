"""How the known models' components are named in files: each layout's tensors with their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

LayoutName = Literal["diffusers", "original", "comfy", "llama.cpp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownLayout:
    """``components`` are (model, component) pairs that have exactly these tensors. Source: ``profiles/layouts``."""

    layout: LayoutName
    class_name: str
    components: tuple[tuple[str, str], ...]
    tensors: Mapping[str, tuple[int, ...]]
