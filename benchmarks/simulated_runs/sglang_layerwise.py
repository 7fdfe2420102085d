"""SGLang's layerwise manager out of its wheel: its two files as they are, the rest of SGLang replaced by stand-ins.

The stand-ins say that there is a CUDA platform and host memory for everything; no decision of the manager is changed.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from denoisers import GPU, Denoiser
from peer_wheels import unpacked

BASE = "sglang.multimodal_gen"
MANAGERS = f"{BASE}.runtime.managers.memory_managers"
HOST_BYTES = 200 * 2**30


class AmpleHost:
    """Stands for whatever class the manager only asks for permission."""

    spendable_bytes = HOST_BYTES

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes what the real one takes."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None

    def holds(self, tensor: torch.Tensor) -> bool:
        return False


def managed(denoiser: Denoiser, share: int, policy: str) -> torch.nn.Module:
    """The module with a manager on each of its lists, ``share`` percent of every list's layers resident."""
    manager_class = _code().LayerwiseOffloadManager
    managers = []
    for each in denoiser.lists:
        count = len(getattr(denoiser.module, each))
        managers.append(
            manager_class(
                denoiser.module,
                layers_attr_str=each,
                num_layers=count,
                enabled=True,
                prefetch_size=1,
                resident_layers=round(share * count / 100),
                residency_policy=policy,
                initialize=False,
            )
        )
    for manager in managers:  # as its mixin does: all lists leave first, then the trunk comes in
        manager._initialize_layer_weights()
    denoiser.module.to(GPU)
    for manager in managers:
        manager._finalize_initialization()
    return denoiser.module


@cache
def _code() -> ModuleType:
    no = _refuses
    _stand_in(BASE, envs=AmpleHost())
    _stand_in(f"{BASE}.runtime.disaggregation.roles", RoleType=AmpleHost)
    _stand_in(f"{BASE}.runtime.loader.utils", MappedRegions=AmpleHost)
    _stand_in(
        f"{MANAGERS}.component_residency",
        COMPONENT_RESIDENCY_GROUPS={},
        LAYERWISE_OFFLOAD="layerwise",
        ComponentResidencyError=RuntimeError,
    )
    asked = ("describe_host_memory", "host_copies_are_redundant", "host_copies_would_not_fit", "module_weight_bytes")
    asked += ("page_cache_cannot_hold", "pin_benefit_bytes")
    _stand_in(
        f"{MANAGERS}.host_memory_budget",
        HostPinBudget=AmpleHost,
        host_memory_available_bytes=lambda: HOST_BYTES,
        **dict.fromkeys(asked, no),
    )
    platform = SimpleNamespace(
        is_mps=no, is_cuda=lambda: True, device_type=GPU, get_local_torch_device=lambda: torch.device(GPU)
    )
    _stand_in(f"{BASE}.runtime.platforms", current_platform=platform)
    _stand_in(f"{BASE}.runtime.server_args", ServerArgs=AmpleHost)
    _stand_in(f"{BASE}.runtime.utils.logging_utils", init_logger=logging.getLogger)
    folder = unpacked("sglang").joinpath(*MANAGERS.split("."))
    _loaded(f"{MANAGERS}.layerwise_offload_components", folder / "layerwise_offload_components.py")
    return _loaded(f"{MANAGERS}.layerwise_offload", folder / "layerwise_offload.py")


def _refuses(*_: Any, **__: Any) -> bool:
    return False


def _stand_in(name: str, **members: Any) -> None:
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        part = ".".join(parts[:end])
        sys.modules.setdefault(part, ModuleType(part))
    vars(sys.modules[name]).update(members)


def _loaded(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, file
    assert spec.loader is not None, file
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
