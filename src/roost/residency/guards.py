"""Refuses what would give wrong pictures without a word while a plan holds a pipeline."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch.nn.modules.batchnorm import _NormBase

from roost.errors import RoostError
from roost.residency.census import named_tensors
from roost.residency.component import HeldComponent
from roost.residency.instance_attributes import set_attribute

# Each of these would move weights behind the plan's back; some are accepted silently and then give wrong pictures.
_FORBIDDEN = (
    "to",
    "enable_model_cpu_offload",
    "enable_sequential_cpu_offload",
    "enable_group_offload",
    "remove_all_hooks",
    "reset_device_map",
)
_FORBIDDEN_OF_COMPONENT = ("enable_group_offload", "enable_layerwise_casting")


def forbid_moves(pipeline: Any, undo: ExitStack) -> None:
    """Makes the pipeline's own ways of moving weights an error."""
    for method in _FORBIDDEN:
        if hasattr(pipeline, method):
            set_attribute(pipeline, method, functools.partial(_refuse, f"pipeline.{method}"), undo)


def guard_component(component: HeldComponent, undo: ExitStack) -> None:
    """Makes a component's own ways of moving or changing weights an error, and saving it right."""
    for method in _FORBIDDEN_OF_COMPONENT:
        if hasattr(component.module, method):
            set_attribute(component.module, method, functools.partial(_refuse, f"{component.name}.{method}"), undo)
    _read_state_from_masters(component, undo)


def check_inference(component: HeldComponent) -> None:
    """RoostError for a call that would train: gradients would read weights that have left by then."""
    module = component.module
    if torch.is_grad_enabled():
        if module.training:
            raise RoostError(f"{component.name} is in training mode; call eval() on it, Roost only runs inference.")
        if any(parameter.requires_grad for parameter in module.parameters()):
            raise RoostError(
                f"{component.name} was called with gradients enabled, and its weights require them; call it inside "
                "torch.no_grad(), Roost only runs inference."
            )
    if module.training and any(isinstance(part, _NormBase) and part.training for part in component.parts):
        raise RoostError(
            f"{component.name} is in training mode, in which its running statistics change; call eval() on it."
        )


def weights_of(component: HeldComponent) -> Iterator[tuple[str, torch.Tensor]]:
    """The component's weights by name. A buffer that nobody had packed is something that the model keeps for itself."""
    packed = {id(each) for unit in component.units.values() for entry in unit.entries for each in entry.objects}
    for name, tensor in named_tensors(component.module):
        if isinstance(tensor, torch.nn.Parameter) or id(tensor) in packed:
            yield name, tensor


def _refuse(method: str, *_: object, **__: object) -> None:
    raise RoostError(f"{method}() can't be used while a Roost plan holds the pipeline; detach the plan first.")


def _read_state_from_masters(component: HeldComponent, undo: ExitStack) -> None:
    """Reads a component's state from its masters: what is bound while it is in use is not all there."""
    read: Any = component.module.state_dict

    def state_dict(*args: Any, **kwargs: Any) -> Any:
        if component.depth:
            raise RoostError(f"{component.name}.state_dict() can't be read while it runs; save it after the call.")
        component.release()
        return read(*args, **kwargs)

    set_attribute(component.module, "state_dict", state_dict, undo)
