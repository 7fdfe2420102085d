"""Which components gave NaN in a generation, found without making the device or the host wait."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import torch

from roost.plan import ComponentPlan

# Text encoders may give NaN where a mask hides everything.
_LOOKED_AT = ("dit", "vae")
_BYTES = 2  # of an element at least: narrower ones have no maximum


class NanOutputs:
    """Looks at what denoisers and VAEs give.

    The highest value of each output is enough, since NaN goes through it: one small kernel a call, which nobody waits
    for, and no memory. It is read when the generation is over.
    """

    def __init__(self, plans: Mapping[str, ComponentPlan]) -> None:
        self._plans = plans
        self._highest: dict[str, torch.Tensor] = {}  # by component, of all its outputs so far

    def look(self, component: str, result: object) -> None:
        """Enqueues the look at what a call of ``component`` gave."""
        if self._plans[component].kind not in _LOOKED_AT:
            return
        tensor = _first_of((result,))
        if tensor is None:
            return
        with torch.no_grad():
            highest = tensor.detach().amax().float()
            before = self._highest.get(component)
            self._highest[component] = highest if before is None else torch.maximum(before, highest)

    def take(self) -> tuple[str, ...]:
        """The components whose outputs contained NaN since the last time; the device must be synchronised."""
        found = tuple(name for name, highest in self._highest.items() if bool(highest.isnan()))
        self._highest.clear()
        return found


def warn_of_nan(components: tuple[str, ...]) -> None:
    """Tells of what ``take`` gave, where nobody else does."""
    logging.getLogger(__name__).warning(
        "what %s gave contains NaN, and so may the result: check the weights and inputs, or use another dtype.",
        ", ".join(components),
    )


def has_nan(tensor: torch.Tensor) -> bool:
    """Whether a tensor on the host contains NaN."""
    return _is_looked_at(tensor) and bool(tensor.amax().isnan())


def _is_looked_at(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.element_size() >= _BYTES and tensor.numel() > 0


def _first_of(values: Iterable[object]) -> torch.Tensor | None:
    """The first tensor of numbers with a fraction, in tuples, lists and the libraries' output classes."""
    for value in values:
        if isinstance(value, torch.Tensor):
            if _is_looked_at(value):
                return value
        elif isinstance(value, Mapping | list | tuple):
            found = _first_of(value.values() if isinstance(value, Mapping) else value)
            if found is not None:
                return found
    return None
