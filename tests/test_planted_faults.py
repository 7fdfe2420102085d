"""Faults planted in the engine are caught: by the checker where a wait is missing, else by the wrong result.

What the checker finds that results don't show is why it exists.
"""

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine_toys import play
from roost.residency.device.emulated import EmulatedDevice, HappensBeforeError
from roost.residency.engine import on_device
from roost.residency.engine.slots import Slot, SlotRing
from roost.residency.weights.host_masters import HostCopy
from roost.residency.weights.transfers import Transfers
from roost.residency.weights.units import Unit
from toy_worlds import World

Patch = pytest.MonkeyPatch


def missing_ready_wait(patch: Patch) -> None:
    def enter(self: SlotRing, unit: Unit) -> None:
        unit.enter(unit.slot.stand_ins(unit))
        self._device.begin_use(unit.slot.buffer)

    patch.setattr(SlotRing, "enter", enter)


def missing_free_wait(patch: Patch) -> None:
    def leave(self: SlotRing, unit: Unit) -> None:
        slot, stale = unit.slot, unit.slot.free
        original(self, unit)
        slot.free = stale

    original = SlotRing.leave
    patch.setattr(SlotRing, "leave", leave)


def wrong_slot(patch: Patch) -> None:
    def enter(self: SlotRing, unit: Unit) -> None:
        original(self, unit)
        unit.enter(next((slot for slot in self.slots if slot is not unit.slot), unit.slot).stand_ins(unit))

    original = SlotRing.enter
    patch.setattr(SlotRing, "enter", enter)


def stale_slot(patch: Patch) -> None:
    def issue(self: SlotRing, unit: Unit, slot: Slot) -> None:
        before = slot.unit
        if before is None:
            original(self, unit, slot)
            return
        before.slot, unit.slot, slot.unit = None, slot, unit

    original = SlotRing.issue
    patch.setattr(SlotRing, "issue", issue)


def missing_acquire_fence(patch: Patch) -> None:
    def load(unit: Unit, transfers: Transfers) -> None:
        device: Any = transfers.device
        device.wait = lambda *_: None
        try:
            original_load(unit, transfers)
        finally:
            del device.wait

    def new_slot(self: SlotRing, count: int) -> Slot:
        early = self._device.record("compute")
        slot = original_new_slot(self, count)
        slot.free = early
        return slot

    original_load, original_new_slot = on_device.load, SlotRing.new_slot
    for user in (on_device, on_device):
        patch.setattr(user, "load", load)
    patch.setattr(SlotRing, "new_slot", new_slot)


def missing_release_wait(patch: Patch) -> None:
    patch.setattr(Transfers, "outlast", lambda self, ready: None)


STREAMING = [seed for seed in range(1000, 1100) if any(plan.slots and not plan.hold for plan in World(seed).plans)]
WORLDS = STREAMING[:12]


def verdict_of(seed: int, **device: Any) -> str:
    """Whether the world ends in a race found, a wrong result, or as it should."""
    world = World(seed)
    expected = world.expected()
    with EmulatedDevice(2**30, delays=seed, **device) as emulated:
        try:
            return "right" if torch.equal(play(world, emulated), expected) else "wrong"
        except HappensBeforeError:
            return "race"


def verdicts(**device: Any) -> Counter[str]:
    """How often the worlds end in a race found, a wrong result, or as they should."""
    return Counter(verdict_of(seed, **device) for seed in WORLDS)


def worlds_that(happens: Callable[[Patch, Callable[[], None]], None]) -> set[int]:
    """The worlds in which the sound engine does what ``happens`` notes."""
    found: set[int] = set()
    for seed in WORLDS:
        with pytest.MonkeyPatch.context() as patch:
            happens(patch, functools.partial(found.add, seed))
            assert verdict_of(seed) == "right"
    return found


def reads_a_slot(patch: Patch, note: Callable[[], None]) -> None:
    def enter(self: SlotRing, unit: Unit) -> None:
        note()
        original(self, unit)

    original = SlotRing.enter
    patch.setattr(SlotRing, "enter", enter)


def refills_a_slot_that_was_read(patch: Patch, note: Callable[[], None]) -> None:
    def leave(self: SlotRing, unit: Unit) -> None:
        read.add(unit.slot)
        original_leave(self, unit)

    def issue(self: SlotRing, unit: Unit, slot: Slot) -> None:
        if slot in read:
            note()
        original_issue(self, unit, slot)

    read: set[Slot] = set()
    original_leave, original_issue = SlotRing.leave, SlotRing.issue
    patch.setattr(SlotRing, "leave", leave)
    patch.setattr(SlotRing, "issue", issue)


def loads_anything(patch: Patch, note: Callable[[], None]) -> None:
    def upload(self: Transfers, target: torch.Tensor, master: HostCopy) -> Any:
        note()
        return original(self, target, master)

    original = Transfers.upload
    patch.setattr(Transfers, "upload", upload)


def test_the_engine_as_it_is_has_no_fault() -> None:
    assert verdicts(asynchronous_compute=True) == {"right": len(WORLDS)}


@pytest.mark.dealt(3)
@pytest.mark.parametrize("asynchronous", [True, False], ids=["late compute", "prompt compute"])
@pytest.mark.parametrize(
    ("fault", "where"),
    [
        (missing_ready_wait, reads_a_slot),
        (missing_free_wait, refills_a_slot_that_was_read),
        (missing_acquire_fence, loads_anything),
    ],
    ids=["ready wait", "free wait", "acquire fence"],
)
def test_the_checker_finds_a_missing_wait_in_every_world_that_needs_it(
    fault: Callable[[Patch], None], where: Any, asynchronous: bool, monkeypatch: Patch
) -> None:
    needed = worlds_that(where)
    assert needed
    fault(monkeypatch)
    assert {seed for seed in WORLDS if verdict_of(seed, asynchronous_compute=asynchronous) == "race"} == needed


@pytest.mark.parametrize("asynchronous", [True, False], ids=["late compute", "prompt compute"])
def test_the_checker_finds_a_missing_release_wait(asynchronous: bool, monkeypatch: Patch) -> None:
    """Only where a copy is not yet waited for at a release, which depends on the lanes' delays."""
    missing_release_wait(monkeypatch)
    assert verdicts(asynchronous_compute=asynchronous)["race"] > 0


@pytest.mark.parametrize("fault", [wrong_slot, stale_slot], ids=lambda fault: fault.__name__)
def test_wrong_content_shows_in_the_result(fault: Callable[[Patch], None], monkeypatch: Patch) -> None:
    fault(monkeypatch)
    assert verdicts(asynchronous_compute=True, check=False)["wrong"] > 0


@pytest.mark.parametrize("fault", [missing_ready_wait, missing_free_wait], ids=lambda fault: fault.__name__)
def test_late_lanes_and_poison_show_a_race_in_the_result(fault: Callable[[Patch], None], monkeypatch: Patch) -> None:
    fault(monkeypatch)
    assert verdicts(asynchronous_compute=True, check=False)["wrong"] > 0


def test_without_the_checker_a_missing_release_wait_goes_unnoticed(monkeypatch: Patch) -> None:
    missing_release_wait(monkeypatch)
    assert verdicts(asynchronous_compute=True, check=False) == {"right": len(WORLDS)}


def test_without_the_checker_a_missing_free_wait_goes_unnoticed_by_prompt_compute(monkeypatch: Patch) -> None:
    missing_free_wait(monkeypatch)
    assert verdicts(check=False) == {"right": len(WORLDS)}
