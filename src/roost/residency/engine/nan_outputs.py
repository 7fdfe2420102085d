"""Which components gave NaN in a generation, found without making the device or the host wait."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from roost.plan import ComponentPlan

# Text encoders may give NaN where a mask hides everything.
_LOOKED_AT = ("dit", "vae")
_BYTES = 2  # of an element at least: narrower ones have no maximum


@dataclass(slots=True)
class _Look:
    """Memory for looking at outputs of one shape, made once: the highest of each row, of all, and of all outputs."""

    rows: torch.Tensor
    highest: torch.Tensor
    of_all: torch.Tensor
    seen: bool = False  # since the last time that they were taken

    @classmethod
    def at(cls, tensor: torch.Tensor) -> _Look:
        with torch.inference_mode(False):  # whoever calls next may not be in inference mode
            rows, highest, of_all = (tensor.new_empty(shape) for shape in (tensor.shape[:-1], (), ()))
        return cls(rows, highest, of_all)

    def look(self, tensor: torch.Tensor) -> None:
        # By rows first: to one number at once, the device would take memory for what its blocks share.
        torch.amax(tensor, -1, out=self.rows)
        target = self.highest if self.seen else self.of_all
        torch.amax(self.rows, tuple(range(self.rows.ndim)), out=target)
        if self.seen:
            torch.maximum(self.of_all, self.highest, out=self.of_all)
        self.seen = True


class NanOutputs:
    """Looks at what denoisers and VAEs give.

    The highest value of each output is enough, since NaN goes through it: small kernels in each call, which nobody
    waits for, and no new memory. It is read when the generation is over.
    """

    def __init__(self, plans: Mapping[str, ComponentPlan]) -> None:
        self._plans = plans
        self._looks: dict[str, dict[object, _Look]] = {}  # by component, and by its outputs' form

    def look(self, component: str, result: object) -> None:
        """Enqueues the look at what a call of ``component`` gave."""
        if self._plans[component].kind not in _LOOKED_AT:
            return
        tensor = _first_of((result,))
        if tensor is None:
            return
        with torch.no_grad():
            tensor = tensor.detach() if tensor.ndim else tensor.detach().reshape(1)
            looks = self._looks.setdefault(component, {})
            form = (tensor.shape, tensor.dtype, tensor.device)
            if form not in looks:
                looks[form] = _Look.at(tensor)
            looks[form].look(tensor)

    def take(self) -> tuple[str, ...]:
        """The components whose outputs contained NaN since the last time; the device must be synchronised."""
        found = tuple(name for name, looks in self._looks.items() if any(map(_has_seen_nan, looks.values())))
        # Memory of forms that were not seen goes: sizes may change with each generation.
        self._looks = {
            name: {form: each for form, each in looks.items() if each.seen} for name, looks in self._looks.items()
        }
        for looks in self._looks.values():
            for each in looks.values():
                each.seen = False
        return found


def _has_seen_nan(look: _Look) -> bool:
    return look.seen and bool(look.of_all.isnan())


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
