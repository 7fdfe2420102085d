"""One component under its strategy: which of its units are on the device, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from roost.blocks import block_names, resident_indices
from roost.facts import Stack
from roost.plan import ComponentPlan
from roost.residency.accelerator import Accelerator
from roost.residency.units import TRUNK, split_units

T = TypeVar("T")


class HeldComponent:
    """A component's weights, moved between host and device as its plan says.

    ``acquire`` makes it ready for use, ``release`` empties the device of it; in between, streamed blocks come and go
    with their forward. Resident components are ready from ``place`` to ``restore``.
    """

    def __init__(self, name: str, module: torch.nn.Module, plan: ComponentPlan, accelerator: Accelerator) -> None:
        self.name, self.module, self.plan = name, module, plan
        self.active = False
        self.depth = 0  # running calls into the component, nested ones included
        self._accelerator = accelerator
        self._keep_master = plan.strategy in ("snapshot-offload", "layerwise-offload")
        layerwise = plan.strategy == "layerwise-offload"
        self.block_names = _plan_blocks(plan) if layerwise else ()
        self._eager = frozenset({TRUNK, *_resident_names(plan, self.block_names)})
        self._in_use: set[str] = set()  # streamed blocks whose forward runs
        self._units = split_units(module, self.block_names)

    @property
    def resident(self) -> bool:
        return self.plan.strategy == "resident"

    def place(self) -> None:
        """Puts a resident component onto the device for good; the others wait for their first use."""
        if self.resident:
            self.acquire()

    def missing_bytes(self) -> int:
        """Device bytes that a use still needs: what stays during it, and the largest block that streams."""
        streamed = [unit.missing_bytes for name, unit in self._units.items() if name not in self._eager]
        eager = sum(self._units[name].missing_bytes for name in self._eager)
        return eager + (sum(streamed) if self.plan.hold else max(streamed, default=0))

    def acquire(self) -> None:
        """Loads the trunk and the resident blocks; nothing is left on the device when that fails."""
        if self.active:
            return
        # Taken anew: a .to() or fused projections since the last release made other tensors.
        self._units = split_units(self.module, self.block_names)
        try:
            for name in self._units:
                if name in self._eager:
                    self._load(name)
        except BaseException:
            self._park_all()
            raise
        self.active = True

    def release(self) -> None:
        """Drops everything from the device, unless the component is resident."""
        if self.active and not self.resident:
            self._park_all()

    def restore(self) -> None:
        """Binds every weight to host memory, whatever the strategy."""
        self._park_all()

    def keep(self, name: str) -> None:
        """Loads a unit that is used outside its block's forward, until the component's release."""
        unit = self._units[name]
        if not unit.loaded:
            self._load(name)
            unit.kept = True

    def block_in(self, name: str) -> None:
        """Before a block's forward."""
        unit = self._units[name]
        if not unit.loaded:
            self._load(name)
        if name not in self._eager:
            unit.kept = unit.kept or bool(self.plan.hold)
            unit.in_use += 1
            self._in_use.add(name)

    def block_out(self, name: str) -> None:
        """After a block's forward, also one that raised."""
        unit = self._units[name]
        unit.in_use = max(0, unit.in_use - 1)
        if unit.in_use == 0 and name in self._in_use:
            self._in_use.discard(name)
            if not unit.kept:
                unit.park(self._accelerator)

    def heal(self) -> None:
        """Between calls no block is in use; parks what an interrupted call left."""
        for name in tuple(self._in_use):
            self._units[name].in_use = 0
            self.block_out(name)

    def convert(self, change: Callable[[], T]) -> T:
        """Runs a change of dtype on host weights; a resident component is uploaded again after it."""
        if self.depth:
            return change()
        self._park_all()
        try:
            return change()
        finally:
            self.place()

    def _load(self, name: str) -> None:
        unit = self._units[name]
        try:
            unit.load(self._accelerator, self._keep_master)
        except BaseException:
            unit.park(self._accelerator)
            raise

    def _park_all(self) -> None:
        self.active = False
        self._in_use.clear()
        for unit in self._units.values():
            unit.park(self._accelerator)
        self._units = split_units(self.module, self.block_names)


def _plan_blocks(plan: ComponentPlan) -> tuple[str, ...]:
    # Only names and counts matter here; the plan keeps a stack's bytes as one sum.
    return block_names(tuple(Stack(name=stack.name, block_bytes=(0,) * stack.count) for stack in plan.stacks))


def _resident_names(plan: ComponentPlan, names: tuple[str, ...]) -> list[str]:
    if plan.resident_blocks is None or plan.resident_policy is None:
        return []
    return [names[index] for index in resident_indices(len(names), plan.resident_blocks, plan.resident_policy)]
