"""The denoisers' calls of a generation: what form each result had, and zeros of that form in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from roost.pipelines.described_values import Unkeepable, described, form_of, rebuilt, zeros_on


class NotExact(BaseException):
    """A generation that can't go on from what was kept; its text says why, in words.

    Not an Exception: a pipeline's own ``except`` must not take it.
    """


class Answers:
    """Notes the form of each call's result; with those of an earlier run, gives zeros in place of the calls.

    ``why_not`` says why what was noted can't be given back.
    """

    def __init__(self, device: torch.device, kept: Mapping[str, Any] | None = None) -> None:
        self.why_not: str | None = None
        self._device = device
        self._forms: list[Sequence[Any]] = list(kept["forms"]) if kept else []
        self._calls: list[int] = list(kept["calls"]) if kept else []  # the index of each call's form
        self._given = 0

    def __len__(self) -> int:
        return len(self._calls)

    def note(self, component: str, method: str, result: Any) -> None:
        """After a call that ran."""
        try:
            form = [component, method, described(result, form_of)]
        except Unkeepable as error:
            self.why_not = f"{component} returns a {error}"
            return
        if not self._forms or self._forms[self._calls[-1]] != form:
            if form not in self._forms:
                self._forms.append(form)
            self._calls.append(self._forms.index(form))
        else:
            self._calls.append(self._calls[-1])

    def give(self, component: str, method: str) -> Any:
        """In place of the next call. Raises NotExact where the kept generation made another one."""
        if self._given < len(self._calls):
            name, entry, form = self._forms[self._calls[self._given]]
            if (name, entry) == (component, method):
                self._given += 1
                return rebuilt(form, zeros_on(self._device))
        raise NotExact(f"the pipeline now calls {component} where it did not")

    @property
    def used_up(self) -> bool:
        """Whether every kept call was answered."""
        return self._given == len(self._calls)

    def document(self) -> dict[str, Any]:
        return {"forms": list(self._forms), "calls": list(self._calls)}


# Random state outside generators.


def random_state(device: torch.device) -> list[torch.Tensor]:
    """Of the host, and of a device that has its own."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def put_random_state(states: Sequence[torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
