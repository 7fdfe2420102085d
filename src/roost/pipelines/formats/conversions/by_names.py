"""The conversion by the authors' names alone, for classes that diffusers has none for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from roost.pipelines.formats.conversions.original_names import SWAPPED, Rule, original_name
from roost.pipelines.formats.conversions.recording import StandIn

Shapes = Mapping[str, Sequence[int]]


def converted_by_names(
    class_name: str, rules: Sequence[Rule], shapes: Shapes, stand_ins: Mapping[str, StandIn]
) -> dict[str, StandIn]:
    """What the stand-ins hold of the class's tensors, whose ``shapes`` are in the order of the module.

    What no tensor of the class is made of keeps its name; a fused tensor is cut into its parts in their order.
    """
    parts: dict[str, list[str]] = {}
    for name in shapes:
        parts.setdefault(original_name(name, rules), []).append(name)
    found: dict[str, StandIn] = {}
    for original, tensor in stand_ins.items():
        names = parts.get(original, [original])
        rows = [shapes[name][0] for name in names if shapes.get(name)]
        cut: Sequence[Any] = [tensor] * len(names)
        if len(names) > 1 and sum(rows) == tensor.shape[0]:
            cut = torch.split(tensor, rows)
        found |= {name: _shaped(each, shapes.get(name)) for name, each in zip(names, cut, strict=True)}
    start = SWAPPED.get(class_name)
    if start is not None:
        found |= {name: _swapped(each) for name, each in found.items() if name.startswith(start)}
    return found


def _shaped(tensor: StandIn, shape: Sequence[int] | None) -> StandIn:
    """A convolution of one pixel as the linear that it is in the class."""
    ones = tuple(tensor.shape[2:])
    if shape is not None and len(shape) == 2 < tensor.ndim and set(ones) == {1}:
        return tensor.reshape(tensor.shape[:2])  # type: ignore[return-value]
    return tensor


def _swapped(tensor: StandIn) -> StandIn:
    first, second = tensor.chunk(2)
    return torch.cat([second, first])  # type: ignore[return-value]
