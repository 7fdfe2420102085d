"""Switches cuDNN off in every process of the simulated environment: of its library only names are there.

Convolutions then take PyTorch's own path. Python imports this file at its start, and it must not import torch itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class _TurnsOff(Loader):
    """The module as its own loader makes it, with the switch turned."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        module.set_flags(_enabled=False)


class _FindsCudnn(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torch.backends.cudnn":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _TurnsOff(spec.loader)
        return spec


sys.meta_path.insert(0, _FindsCudnn())
