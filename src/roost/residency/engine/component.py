"""One component under its strategy: which of its units are on the device, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from roost.blocks import TRUNK
from roost.errors import RoostError
from roost.option_spelling import option
from roost.plan import ComponentPlan
from roost.residency.device.failures import ran_out
from roost.residency.engine.buffers import copy_back, drop, settle
from roost.residency.engine.on_device import RunningBlocks, acquiring, registered_order, set_kinds
from roost.residency.engine.predictor import Predictor
from roost.residency.engine.slots import SlotRing
from roost.residency.weights.foreign import casts_weights
from roost.residency.weights.mapped_masters import Checkpoint
from roost.residency.weights.packing import Packer
from roost.residency.weights.rungs import Rungs
from roost.residency.weights.shared.component import SharedComponent
from roost.residency.weights.transfers import Transfers

T = TypeVar("T")


class HeldComponent:
    """A component's weights between host masters and the device, as its plan says.

    ``acquire`` makes it ready for use, ``release`` empties the device of it. In between, streamed blocks pass through
    slots with their forward. A resident component is ready from ``place`` to ``restore``.
    """

    def __init__(
        self,
        name: str,
        module: torch.nn.Module,
        plan: ComponentPlan,
        transfers: Transfers,
        checkpoint: Checkpoint | None = None,
        share: SharedComponent | None = None,
    ) -> None:
        self.name, self.module, self.plan = name, module, plan
        self.planned = plan  # ``plan`` may become less in a run that is short of memory
        self.depth = 0  # running calls into the component, nested ones included
        self.active = False
        self._find_parts()
        self.rungs = Rungs(plan)
        self.predictor = Predictor(self.rungs.use_order or registered_order(module, self.rungs.names), cuts=True)
        self._transfers, self._device = transfers, transfers.device
        self._packer = Packer(name, module, plan, transfers, checkpoint, share)
        self.late = checkpoint is not None and checkpoint.late  # its masters are still to be made
        self.gone = False  # its weights were given back, for good
        self.units = self._packer.units
        self._ring = SlotRing(transfers, self.predictor, self.units)
        self._acquiring: Iterator[bool] | None = None
        self.running = RunningBlocks(self.units, self._ring, self.predictor, transfers)
        self._converting = False
        self._rested = False  # a generation has ended since the weights were looked at
        self.place_again: Callable[[HeldComponent], None] = HeldComponent.place  # after a change of dtype
        self.casts = casts_weights(self.attributes)  # before the plan came
        self.all_ahead = False  # nothing of it is left that could come before its time
        self.quiet = False  # in use, and the copy lane has nothing to do for it any more
        self._watch()

    @property
    def resident(self) -> bool:
        return self.plan.strategy == "resident"

    @property
    def present(self) -> bool:
        """Whether any of it is on the device."""
        return self.active or self._acquiring is not None

    @property
    def device_bytes(self) -> int:
        """What it holds on the device now."""
        own = sum(unit.bytes for unit in self.units.values() if unit.loaded)
        return own + sum(slot.buffer.nbytes for slot in self._ring.slots)

    @property
    def block_bytes(self) -> list[int]:
        return [self.units[name].bytes for name in self.rungs.names]

    @property
    def trunk_bytes(self) -> int:
        return self.units[TRUNK].bytes

    @property
    def stage_bytes(self) -> int:
        """What it would hold during its stage, trunk, resident blocks and slots, if nothing were short."""
        return self.trunk_bytes + self.rungs.most_bytes(self.block_bytes)

    @property
    def misses(self) -> int:
        """Streamed blocks that nobody foresaw, since the start."""
        return self._ring.misses

    @property
    def largest_bytes(self) -> int:
        """The most that one step of ``acquire`` may take."""
        return max(unit.bytes for unit in self.units.values())

    def place(self) -> None:
        """Puts a resident component onto the device for good; the others wait for their first use."""
        if self.resident:
            self.acquire()

    def fit(self, free_bytes: int) -> int:
        """Keeps as many blocks resident as planned and as fit into ``free_bytes``; says how many."""
        if not self.present:
            self.rungs.fit(self.block_bytes, free_bytes - self.trunk_bytes)
        return self.rungs.resident_blocks

    def acquire(self) -> None:
        """Allocates all there is to be, and starts the first copies; nothing is left of them if that fails."""
        if self.active:
            return
        try:
            for first in self._acquiring or self._acquisition():
                if not first:
                    break
            self._activate()
        except BaseException:
            self.drop()
            raise

    def acquire_ahead(self) -> None:
        """Does one unit of ``acquire`` before its time; where memory is short for it, none of it stays."""
        if self.active:
            return
        if self._acquiring is None:
            self.refresh()
        self._acquiring = self._acquiring or self._acquisition()
        try:
            self.all_ahead = next(self._acquiring, None) is None
        except RuntimeError as error:
            if not ran_out(error):
                raise
            self._device.notice(error)
            self.drop()

    def release(self) -> None:
        """Empties the device of the component, unless it is resident."""
        if self.present and not self.resident:
            if self.active and self.plan.strategy == "component-offload":
                for unit in self.units.values():
                    if unit.writable is not None and not unit.lent:  # never to what someone edited
                        copy_back(unit, self._transfers)
            self.drop()

    def make_masters(self) -> None:
        """Makes the masters that the plan has come late."""
        self._unwatch()
        self._packer.make_masters()
        self._watch()
        self.late = False

    def give_back(self) -> None:
        """Leaves its weights nowhere; only their shapes remain."""
        self.drop()
        self._unwatch()
        self._packer.give_back()
        self.gone = True

    def replan(self, plan: ComponentPlan) -> None:
        """Follows ``plan`` from now on; empties the device of the component, which comes in for its stages."""
        self.plan, self.rungs = plan, Rungs(plan)
        self.drop()

    def restore(self) -> None:
        """Binds every weight to plain host memory, whatever the strategy."""
        self.drop()
        self._unwatch()
        self._packer.unpin()

    def drop(self) -> None:
        """Leaves nothing on the device; what has no master is copied back first."""
        self.active = self.quiet = self.all_ahead = False
        self._acquiring = None
        self.running.heal()
        for unit in self.units.values():
            if unit.master is None:
                copy_back(unit, self._transfers)
        self._ring.drop()
        for unit in self.units.values():
            drop(unit, self._transfers)

    def begin(self, entry: str) -> None:
        """An outermost call starts, with the component acquired."""
        self.predictor.begin(entry)
        self.running.enter(TRUNK)

    def end(self, *, whole: bool) -> None:
        """An outermost call is over; it ran ``whole`` unless it raised."""
        self.running.end(whole=whole)
        edited, self.running.edited = self.running.edited, None
        if whole and edited is not None:
            raise RoostError(
                f"{self.name} changes weights of its own while it runs ({edited or 'outside its blocks'}), and under a "
                f"Roost plan that would be lost; detach the plan first, or plan it with"
                f" {option('set', f'{self.name}=resident')}."
            )
        if whole and not self.quiet:
            waiting = any(unit.loaded and not unit.settled for unit in self.units.values())
            streamed = sum(unit.kind == "streamed" for unit in self.units.values())
            self.quiet = streamed <= len(self._ring.slots) and not waiting

    def rest(self) -> None:
        """A generation is over: until the next one people change weights, and modules."""
        self._rested = True

    def refresh(self) -> None:
        """Before a use: leaves the device where it may hold other weights than the module has, to come in anew."""
        if self.resident:
            return
        if self._rested:
            self._rested = False
            # Memory that was lent once can be written to without a word.
            lent = any(unit.lent for unit in self.units.values())
            self.running.stale = self.running.stale or lent or not self._packer.is_fresh()
        if self.running.stale:
            self.release()
            self.running.stale = False

    def step_down(self) -> str | None:
        """Gives up resident blocks, then slots, a rung at a time, and leaves the device; says what, None at the end."""
        said = self.rungs.step_down(self.block_bytes)
        if said is None:
            return None
        self.release()
        return f"{self.name}: {said}"

    def convert(self, change: Callable[[], T]) -> T:
        """Runs a change of dtype on host weights; a resident component is uploaded again after it."""
        if self.depth or self._converting:
            return change()
        with self._changing():
            self._packer.suspect()
            return change()

    def recast(self, dtype: torch.dtype, change: Callable[[], object]) -> None:
        """Changes the dtype of all weights, by ``change`` unless they are kept in ``dtype`` already."""
        if self.depth or self._converting:
            change()
            return
        with self._changing():
            self._packer.recast(dtype, change)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        if self.late:
            self.make_masters()
        self.drop()
        self._unwatch()
        self._converting = True
        try:
            yield
        finally:
            self._converting = False
            self.place_again(self)

    def _acquisition(self) -> Iterator[bool]:
        if not self._packer.is_fresh():
            self._unwatch()
            self._packer.renew()
        self._find_parts()
        self._watch()
        set_kinds(self.units, self.rungs, self.running.outside)
        order = list(dict.fromkeys((*self.predictor.upcoming(), *self.rungs.names)))
        return acquiring(self.units, order, self.rungs.slots, self._ring, self._transfers)

    def _watch(self) -> None:
        """What a plan keeps on the device is there for everybody to see; of all else only copies are."""
        for unit in self.units.values():
            if self.resident:
                unit.unwatch()
            else:
                unit.watch(self.running)

    def _unwatch(self) -> None:
        for unit in self.units.values():
            unit.unwatch()

    def _find_parts(self) -> None:
        self.parts = tuple(self.module.modules())
        self.attributes = [vars(part) for part in self.parts]

    def _activate(self) -> None:
        self._acquiring, self.active = None, True
        settle(self.units[TRUNK], self._transfers)
        if self.resident:
            for name in self.rungs.names:
                settle(self.units[name], self._transfers)
            # The masters are the copies' sources until those are done.
            self._device.wait_host(self._device.record("copy"))
            self._packer.forget()
