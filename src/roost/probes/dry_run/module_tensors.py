"""What a module takes from its files: names and shapes, to compare with what the files hold."""

from __future__ import annotations

from collections import Counter

import torch
from transformers import PreTrainedModel

from roost.pipelines.internals import of_diffusers, of_transformers
from roost.probes.dry_run.entry_calls import TracedComponent
from roost.trace import ModuleTensors


def module_tensors(component: TracedComponent) -> ModuleTensors | None:
    """The names and shapes; None for a class that makes its tensors of others, which names alone don't tell."""
    module = component.module
    if _converts(module):
        return None
    state = {name: each for name, each in module.state_dict().items() if isinstance(each, torch.Tensor)}
    # Tied weights are one object under several names; what the state holds of it are views of one storage.
    owners = {name: id(each) for name, each in module.named_parameters(remove_duplicate=False)}
    counts = Counter(owners.values())
    return ModuleTensors(
        component=component.name,
        shapes={name: tuple(each.shape) for name, each in state.items()},
        spare=tuple(name for name, owner in owners.items() if counts[owner] > 1),
    )


def _converts(module: torch.nn.Module) -> bool:
    if isinstance(module, PreTrainedModel):
        return of_transformers.converts_its_files(module)
    return of_diffusers.converts_its_files(type(module))
