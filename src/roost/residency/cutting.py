"""Loaded components with blocks taken out of the middle of their stacks: what a heat runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from roost.errors import UsageError
from roost.plan import ComponentPlan, PlanDocument
from roost.residency.loader import LoadComponent
from roost.residency.matching import check_component

# The places of the blocks that stay, by component and stack.
Kept = Mapping[str, Mapping[str, Sequence[int]]]


def loading_cut(load: LoadComponent, whole: PlanDocument, kept: Kept) -> LoadComponent:
    """Loads components as ``whole`` plans them, by ``load``, and drops all blocks but those ``kept``.

    Raises UsageError where dropped blocks are not like their neighbours, and what ``load`` raises.
    """

    def load_cut(name: str, plan: ComponentPlan, model_dir: Path) -> torch.nn.Module:
        module = load(name, whole.components[name], model_dir)
        if name in kept:
            for stack, places in kept[name].items():
                keep_blocks(module, stack, places)
            check_component(name, module, plan)
        return module

    return load_cut


def keep_blocks(module: torch.nn.Module, stack: str, places: Sequence[int]) -> None:
    """Drops the blocks of ``stack`` that aren't at ``places``; the others move up. UsageError where blocks differ."""
    blocks = module.get_submodule(stack)
    if not isinstance(blocks, torch.nn.ModuleList | torch.nn.Sequential):
        raise UsageError(f"{stack!r} is a {type(blocks).__name__}, which is no list; measure it whole.")
    staying, last = set(places), None
    dropped = []
    for place, block in enumerate(blocks):
        if place in staying:
            last = _structure(block)
        elif _structure(block) != last:
            raise UsageError(f"the blocks of {stack!r} differ at {place}, so none can stand for others.")
        else:
            dropped.append(place)
    for place in reversed(dropped):
        del blocks[place]


def _structure(block: torch.nn.Module) -> object:
    """Equal for blocks that only their weights tell apart."""
    tensors = [(name, tensor.shape, tensor.dtype) for name, tensor in block.state_dict().items()]
    return type(block), tensors, tuple((name, type(part)) for name, part in block.named_modules())
