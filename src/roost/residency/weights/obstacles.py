"""What a live module is that keeps a strategy from being exact, and the next best strategy for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch.distributed.fsdp import FSDPModule

from roost.errors import UsageError
from roost.facts.request import Strategy
from roost.option_spelling import option
from roost.pipelines.formats.packed_tensors import why_whole
from roost.pipelines.internals.of_diffusers import has_hook
from roost.pipelines.internals.of_torch import as_engine
from roost.plan import PlanDocument
from roost.residency.weights.census import attribute_tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """The only strategy that suits a module, why, and what would leave the choice. Source: the live module."""

    strategy: Strategy
    why: str
    remedy: str


def find_obstacle(module: torch.nn.Module) -> Obstacle | None:
    """None for a module that every strategy can move."""
    with as_engine():
        return _find_obstacle(module)


def _find_obstacle(module: torch.nn.Module) -> Obstacle | None:
    if any(isinstance(part, FSDPModule) for part in module.modules()):
        return Obstacle(
            strategy="fsdp", why="It is managed by FSDP, which moves its own shards.", remedy="leave fully_shard out"
        )
    foreign = foreign_weight(module)
    if foreign is not None:
        return Obstacle(
            strategy="resident",
            why=f"Its weights are moved by their own class only: {foreign}, so they stay whole.",
            remedy="load plain weights",
        )
    cast = next((name for name, part in module.named_modules() if _casts_its_weights(part)), None)
    if cast is not None:
        return Obstacle(
            strategy="resident",
            why=f"Layerwise casting is on: {cast!r} casts its weights around every use, into memory of its own; all "
            "stay.",
            remedy="load it again without enable_layerwise_casting",
        )
    borrowed = next(_borrowed_weights(module), None)
    if borrowed is not None:
        return Obstacle(
            strategy="resident",
            why=f"{borrowed}, so nobody can tell when that weight is needed, and all stay.",
            remedy="have that module keep no other module's weight",
        )
    return None


def find_obstacles(modules: Mapping[str, torch.nn.Module]) -> dict[str, Obstacle]:
    """The obstacles of those components that have one."""
    found = {name: find_obstacle(module) for name, module in modules.items()}
    return {name: obstacle for name, obstacle in found.items() if obstacle is not None}


def foreign_weight(module: torch.nn.Module) -> str | None:
    """The first weight that only its own class can move, and why, in words; None where each is moved by its parts."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        # PyTorch's own lazy and uninitialised classes are refused with a better reason when weights are taken in.
        why = why_whole(tensor) if not tensor.is_meta else None
        if why is not None:
            return f"{name!r} {why}"
    return None


def check_obstacles(plan: PlanDocument, modules: Mapping[str, torch.nn.Module]) -> None:
    """UsageError for a strategy that would not be exact on the live module, with the ``--set`` that mends it."""
    for name, obstacle in find_obstacles(modules).items():
        strategy = plan.components[name].strategy
        if strategy != obstacle.strategy:
            why = obstacle.why[0].lower() + obstacle.why[1:].rstrip(".")
            raise UsageError(
                f"component {name!r} can't be {strategy}: {why}; plan it with"
                f" {option('set', f'{name}={obstacle.strategy}')}"
            )


def _casts_its_weights(part: torch.nn.Module) -> bool:
    """Whether diffusers' layerwise casting is on."""
    return has_hook(vars(part), ("layerwise_casting",))


def _borrowed_weights(module: torch.nn.Module) -> Iterator[str]:
    """Parts that keep another part's weight in a plain attribute, which no hook sees them read."""
    owned = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    for name, part in module.named_modules():
        for attribute, tensor in attribute_tensors(part):
            if id(tensor) in owned and all(tensor is not own for own in (*part.parameters(), *part.buffers())):
                yield f"{name or type(module).__name__}.{attribute} is a weight of another module"
