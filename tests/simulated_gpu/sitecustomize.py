"""What each process of the simulated environment needs; Python imports this file at its start.

cuDNN is off: of its library only names are there, and convolutions then take PyTorch's own path. With SIM_VALUES=1 all
values are true from the moment on at which Roost opens a CUDA device (true_values.py). This file must not import torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def _without_cudnn(module: ModuleType) -> None:
    module.set_flags(_enabled=False)


def _with_true_values(module: ModuleType) -> None:
    made = module.CudaDevice.__init__

    def opening(self: Any, *memory: int) -> None:
        from true_values import TrueValues

        made(self, *memory)
        TrueValues(every=True).__enter__()

    if os.environ.get("SIM_VALUES"):
        module.CudaDevice.__init__ = opening


CHANGED: dict[str, Callable[[ModuleType], None]] = {
    "torch.backends.cudnn": _without_cudnn,
    "roost.residency.device.cuda": _with_true_values,
}


class _Changes(Loader):
    """The module as its own loader makes it, and then as ``CHANGED`` says."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        CHANGED[module.__name__](module)


class _Finds(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in CHANGED else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Changes(spec.loader)
        return spec


sys.meta_path.insert(0, _Finds())
