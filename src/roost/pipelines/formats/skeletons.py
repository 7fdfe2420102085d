"""A component's plain module as its config describes it, and the places that a file's tensors take in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from roost.facts.model import ClassFacts
from roost.pipelines.build import Described, build_component
from roost.pipelines.formats.targets import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentConfig:
    """Which component is made of a file: its class and dtype, and where its config is, as for ``build_component``."""

    name: str
    described: Described
    config_dir: Path
    facts: ClassFacts

    @property
    def load_dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.described.load_dtype or "float32")
        return dtype

    def skeleton(self) -> Skeleton:
        """The plain module, in memory that nobody touched. Raises InvalidFile for a config that can't be used."""
        module = build_component(self.name, self.described, self.config_dir, self.facts)
        return Skeleton(module, self.load_dtype, frozenset(self.facts.keep_in_float32))


@dataclass(frozen=True)
class Skeleton:
    """A component's plain module without its values, and which places it has."""

    module: torch.nn.Module
    load_dtype: torch.dtype
    kept: frozenset[str] = frozenset()  # modules that are plain at any dtype: the model's own code reads theirs

    @cached_property
    def places(self) -> dict[str, Place]:
        """Every tensor that a file may hold, by its name."""
        linears = {
            f"{path}.weight".removeprefix(".")
            for path, part in self.module.named_modules()
            if isinstance(part, torch.nn.Linear)
            and type(part).forward is torch.nn.Linear.forward
            and self.kept.isdisjoint(path.split("."))
        }
        state = self.module.state_dict(keep_vars=True)
        return {
            name: Place(name, tuple(each.shape), each.dtype, name in linears and each.dtype == self.load_dtype)
            for name, each in state.items()
        }

    @cached_property
    def tied(self) -> list[tuple[str, ...]]:
        """The names of each tensor, those of tied weights together."""
        found: dict[int, list[str]] = {}
        for name, tensor in self.module.state_dict(keep_vars=True).items():
            found.setdefault(id(tensor), []).append(name)
        return [tuple(names) for names in found.values()]

    @cached_property
    def computed(self) -> frozenset[str]:
        """Buffers, which the class makes itself where a file has none."""
        return frozenset(name for name, _ in self.module.named_buffers())
