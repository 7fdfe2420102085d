"""Components built ahead of their weights, which take them over when the plan's turn in host memory comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from roost.errors import RoostError
from roost.facts.model import ClassFacts
from roost.option_spelling import option
from roost.pipelines.build import build_component
from roost.pipelines.internals.of_torch import buffers_of, parameters_of
from roost.pipelines.quiet import quiet_libraries
from roost.plan import ComponentPlan
from roost.residency.weights.census import attribute_tensors, named_tensors
from roost.residency.weights.mapped_masters import Fill

if TYPE_CHECKING:
    from roost.residency.run.components import LoadComponent

# What a loader reads beside the weights, and a class alone makes up.
_READ_TOO = ("generation_config",)


def build_shell(
    name: str, plan: ComponentPlan, model_dir: Path, class_facts: Mapping[str, ClassFacts]
) -> torch.nn.Module:
    """The component's module without weights: untouched memory has their shapes and dtypes. Raises InvalidFile."""
    module = build_component(name, plan, model_dir, class_facts.get(plan.class_name, ClassFacts()))
    return module.eval()


def filling(name: str, plan: ComponentPlan, model_dir: Path, load: LoadComponent) -> Fill:
    """What gives the component's shell the weights that ``load`` loads, when it is called."""
    return partial(_fill, name=name, plan=plan, model_dir=model_dir, load=load)


def _fill(shell: torch.nn.Module, *, name: str, plan: ComponentPlan, model_dir: Path, load: LoadComponent) -> None:
    with quiet_libraries():
        loaded = load(name, plan, model_dir)
    difference = next(_differences(shell, loaded, stored=plan.storage is not None), None)
    if difference is not None:
        raise RoostError(
            f"{name} loads otherwise than it was built ({difference}), and the pipeline may have read that: plan with"
            f" {option('generations', 2)}, which loads it at first."
        )
    for mine, theirs in zip(shell.modules(), loaded.modules(), strict=True):
        _take_over(mine, theirs)


def _differences(shell: torch.nn.Module, loaded: torch.nn.Module, *, stored: bool) -> Iterator[str]:
    """Where the two have other modules or tensors; the dtypes of weights that are ``stored`` otherwise are not one."""
    mine, theirs = ([path for path, _ in each.named_modules()] for each in (shell, loaded))
    if mine != theirs:
        yield f"{len(theirs)} modules instead of {len(mine)}"
    built, found = (
        {path: (tuple(tensor.shape), None if stored else tensor.dtype) for path, tensor in named_tensors(each)}
        for each in (shell, loaded)
    )
    yield from (path for path in built.keys() | found.keys() if built.get(path) != found.get(path))


def _take_over(mine: torch.nn.Module, theirs: torch.nn.Module) -> None:
    """Makes one module what the loaded one is, and leaves what others have put onto it meanwhile."""
    mine.__class__ = type(theirs)  # a layer that is stored in 8 bits has a class of its own
    parameters_of(mine).update(parameters_of(theirs))
    buffers_of(mine).update(buffers_of(theirs))
    aside = {key for key, _ in attribute_tensors(theirs)}
    known = vars(mine)
    for key, value in vars(theirs).items():
        if key in aside or key not in known or key in _READ_TOO:
            known[key] = value
