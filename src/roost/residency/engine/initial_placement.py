"""Residents put onto the device as they are loaded; where memory runs out there, less of the pipeline stays on it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from roost.pipelines.formats.packed_tensors import named_parts
from roost.residency.engine.component import HeldComponent
from roost.residency.engine.ladder import give_way, least_bytes, leave_between_stages, may_leave, more_memory
from roost.residency.engine.rerun import MemoryShortage, RerunState, run_elastically
from roost.residency.weights.transfers import Transfers


class Placer:
    """Places the components of one pipeline, one after another.

    What was given up is in the components' plans and in the changes of ``transfers``.
    """

    def __init__(self, transfers: Transfers) -> None:
        self._transfers, self._device = transfers, transfers.device
        self._placed: list[HeldComponent] = []

    def place(self, component: HeldComponent) -> None:
        """Puts a resident component onto the device for good, or has it give way, and others that are there.

        Raises OutOfMemory when nothing is left that could.
        """
        self._run(
            component.name,
            component.place,
            lambda: give_way(component, self._room_bytes()) or self._evict(),
            lambda: least_bytes(component),
        )
        self._placed.append(component)

    def place_whole(self, name: str, module: torch.nn.Module) -> None:
        """Puts a module there that only its own class can move; others give way to it."""
        self.place_apart(name, lambda: module.to(self._device.device), lambda: _bytes(module))

    def place_apart(self, name: str, attempt: Callable[[], object], needed_bytes: Callable[[], int]) -> None:
        """Makes what is no held component's on the device; others give way to it."""
        self._run(name, attempt, self._evict, needed_bytes)

    def _run(
        self,
        name: str,
        attempt: Callable[[], object],
        step_down: Callable[[], str | None],
        needed_bytes: Callable[[], int],
    ) -> None:
        run_elastically(
            attempt,
            RerunState((), self._device.device, (), {}),
            step_down,
            self._transfers,
            MemoryShortage(f"placing {name}", self._device, lambda: more_memory(self._device, needed_bytes())),
        )

    def _evict(self) -> str | None:
        """Makes the lightest one leave that was to stay: a heavy one costs more to bring in again and again."""
        leaving = min(self._leaving(), key=lambda each: each.device_bytes, default=None)
        return None if leaving is None else leave_between_stages(leaving)

    def _room_bytes(self) -> int:
        """What a stage may have, when all that can leave has left."""
        return self._device.free_bytes + sum(each.device_bytes for each in self._leaving())

    def _leaving(self) -> list[HeldComponent]:
        return [each for each in self._placed if each.resident and may_leave(each)]


def _bytes(module: torch.nn.Module) -> int:
    """Of what isn't on the device yet."""
    return sum(each.nbytes for _, each in named_parts(module) if each.device.type == "cpu")
