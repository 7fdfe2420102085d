"""One component from the model's own files: read, finished as planned, and refused in one line where that fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from roost.errors import InvalidFile
from roost.pipelines.build import bounded_modules, kept_default_dtype
from roost.pipelines.classes import model_class
from roost.pipelines.internals.of_transformers import closed_to_the_outside
from roost.plan import ComponentPlan
from roost.residency.hold.live_modules import check_component
from roost.residency.weights.fp8 import store_as_planned

# Makes a component of the plan in host memory; a name, its plan and the model's directory.
LoadComponent = Callable[[str, ComponentPlan, Path], torch.nn.Module]

# Safetensors only, nothing from the network, no code of the directory.
SAFELY = {"use_safetensors": True, "local_files_only": True}


def load_component(name: str, plan: ComponentPlan, model_dir: Path) -> torch.nn.Module:
    """One component in host memory, at the plan's dtype and storage. Raises InvalidFile or PlanMismatch."""
    return finish_component(name, read_component(name, plan, model_dir), plan)


def finish_component(name: str, module: torch.nn.Module, plan: ComponentPlan) -> torch.nn.Module:
    """Stores the weights as planned, once nothing adds to them any more; PlanMismatch unless it is the planned one."""
    store_as_planned(name, module, plan)
    check_component(name, module, plan)
    return module


def read_component(name: str, plan: ComponentPlan, model_dir: Path) -> torch.nn.Module:
    """One component in host memory, at the plan's dtype. Raises InvalidFile."""
    found: Any = model_class(plan.library, plan.class_name)
    folder = model_dir / name
    # The folder itself, not ``subfolder``: given that, diffusers prefers a file of the same name at the model's root.
    source = folder if folder.is_dir() else model_dir  # a component without a folder lies at the root
    _refuse_adapter(name, source)
    options: dict[str, Any] = {**SAFELY}
    if plan.variant is not None:
        options["variant"] = plan.variant
    if plan.load_dtype is not None:
        options["dtype"] = getattr(torch, plan.load_dtype)
    try:
        with closed_to_the_outside(), kept_default_dtype(), bounded_modules():
            module, loaded = found.from_pretrained(str(source), output_loading_info=True, **options)
    except Exception as error:  # the libraries raise every kind for a broken file
        raise unloadable(name, error) from error
    missing = sorted(loaded["missing_keys"])
    if missing:
        raise InvalidFile(
            f"component {name!r}: its files lack {len(missing)} weights that {plan.class_name!r} needs, such as "
            f"{missing[0]!r}; fetch the component's files again."
        )
    module.eval()  # and requires_grad as the library leaves it: it changes how PyTorch folds, and so rounds, a matmul
    return module  # type: ignore[no-any-return]


def _refuse_adapter(name: str, folder: Path) -> None:
    """transformers would load an adapter that lies beside the weights, from wherever its config points to."""
    if (folder / "adapter_config.json").exists():
        raise InvalidFile(
            f"component {name!r} has an adapter_config.json beside its weights, and Roost loads no adapters from model"
            " directories; remove that file, or fuse the adapter with --lora."
        )


def unloadable(name: str, error: Exception) -> InvalidFile:
    what = name if name == "pipeline" else f"component {name!r}"
    return InvalidFile(
        f"{what} can't be loaded: {type(error).__name__}: {first_line(error)}; "
        "check the directory with: roost inspect MODEL"
    )


def first_line(error: Exception) -> str:
    line = " ".join(str(error).split())[:300]
    return line.encode("unicode_escape").decode("ascii")
