"""How a plan's sharded components are made of a model's directory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from roost.plan import ComponentPlan, PlanDocument
from roost.residency.hold.live_modules import check_component
from roost.residency.sharded.load import ShardSource
from roost.residency.weights.mapped_masters import StoredTensor, stored_tensors

if TYPE_CHECKING:
    from roost.residency.run.loader import Source


def shard_source(name: str, plan: PlanDocument, model_dir: Path, source: Source) -> ShardSource:
    """Where the component's shards come from."""
    component = plan.components[name]
    return ShardSource(
        shell=partial(_checked_shell, name, component, model_dir, source),
        load=partial(source.load, name, component, model_dir),
        files=stored_by_model(name, plan, model_dir),
        why_whole=_why_whole(name, component, source),
    )


def stored_by_model(name: str, plan: PlanDocument, model_dir: Path) -> Iterator[StoredTensor]:
    """The tensors that the model's own files have for a component."""
    for file in plan.model.files:
        if file.startswith(f"{name}/") and file.endswith(".safetensors"):
            yield from stored_tensors(model_dir / file)


def _checked_shell(name: str, plan: ComponentPlan, model_dir: Path, source: Source) -> torch.nn.Module:
    module = source.shell(name, plan, model_dir)
    check_component(name, module, plan)
    return module


def _why_whole(name: str, plan: ComponentPlan, source: Source) -> str | None:
    """Why the component's values may not be what the model's files have; None where its library only casts them."""
    if not source.loads_own(name):
        return "its weights are made from more than its own files"
    return None if plan.library == "diffusers" else f"{plan.library} may convert what it reads"
