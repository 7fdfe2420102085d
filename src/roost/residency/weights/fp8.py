"""Linear weights stored in 8 bits, cast back before each use: half the bytes to hold and to copy, for rounded weights.

A weight is stored as float8 e4m3 times a power of two of its own, so only its rounding to 8 bits changes bits; the
arithmetic stays in the dtype that the layer had.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from roost.blocks import block_names
from roost.errors import UsageError
from roost.option_spelling import option
from roost.pipelines.linears import castable_linears
from roost.plan import ComponentPlan, PlanDocument

_STORED = torch.float8_e4m3fn
_LARGEST = torch.finfo(_STORED).max


class Fp8Linear(torch.nn.Linear):
    """A linear layer whose weight is stored in 8 bits."""

    compute_dtype: torch.dtype
    scale: float

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        weight = self.weight.to(self.compute_dtype)
        return torch.nn.functional.linear(input, weight.mul_(self.scale), self.bias)


def store_as_planned(name: str, module: torch.nn.Module, plan: ComponentPlan) -> None:
    """Stores the linear weights of the module's blocks in the plan's ``storage``; does nothing without one.

    Raises UsageError for a module that would take 8 bits for its own dtype: its pipeline would round inputs to them.
    """
    if plan.storage is None:
        return
    for block in block_names(tuple(each.stack for each in plan.stacks)):
        for layer in castable_linears(module.get_submodule(block)):
            _store(layer)
    if getattr(module, "dtype", None) == _STORED:
        raise UsageError(
            f"component {name!r} tells its dtype by the weights of its blocks, so they can't be stored in 8 bits;"
            f" plan again without {option('allow', 'fp8')}."
        )


def stored_layers(module: torch.nn.Module) -> dict[str, tuple[str, float]]:
    """The layers whose weights are stored in 8 bits, each with the dtype that it computes in, and its scale."""
    found = ((path, each) for path, each in module.named_modules() if isinstance(each, Fp8Linear))
    return {path: (str(each.compute_dtype).removeprefix("torch."), each.scale) for path, each in found}


def store_like(module: torch.nn.Module, layers: Mapping[str, tuple[str, float]]) -> None:
    """Makes layers what ``stored_layers`` says, with weights that nobody filled."""
    for path, (dtype, scale) in layers.items():
        layer = module.get_submodule(path)
        assert isinstance(layer, torch.nn.Linear), "what is stored in 8 bits was linear"
        _become(layer, torch.empty_like(layer.weight, dtype=_STORED), getattr(torch, dtype), scale)


def check_storage(plan: PlanDocument) -> None:
    """UsageError for a plan whose weights are rounded: a pipeline in memory is given back as it was."""
    rounded = [name for name, each in plan.components.items() if each.storage is not None]
    if rounded:
        raise UsageError(
            f"the plan stores {', '.join(rounded)} in 8 bits, which is done while loading; load the pipeline with"
            f" roost.load_pipeline(plan), or plan again without {option('allow', 'fp8')}."
        )


def _store(layer: torch.nn.Linear) -> None:
    with torch.no_grad():
        weight = layer.weight.detach()
        largest = weight.abs().max().item()
        scale = 2.0 ** math.ceil(math.log2(largest / _LARGEST)) if largest else 1.0
        stored = (weight / scale).to(_STORED)
    _become(layer, stored, weight.dtype, scale)


def _become(layer: torch.nn.Linear, stored: torch.Tensor, compute_dtype: torch.dtype, scale: float) -> None:
    vars(layer).update(compute_dtype=compute_dtype, scale=scale)
    layer.weight = torch.nn.Parameter(stored, requires_grad=False)
    layer.__class__ = Fp8Linear
