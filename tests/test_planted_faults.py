"""Faults planted in the engine are caught: by the checker where a wait is missing, else by the wrong result.

What the checker finds that results don't show is why it exists.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine_toys import play
from roost.residency import component as components
from roost.residency.emulated import EmulatedDevice, HappensBeforeError
from roost.residency.slots import Slot, SlotRing
from roost.residency.transfers import Transfers
from roost.residency.units import Unit
from toy_worlds import World

Patch = pytest.MonkeyPatch


def missing_ready_wait(patch: Patch) -> None:
    def enter(self: SlotRing, unit: Unit) -> None:
        unit.bind(unit.slot.views(unit))
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
        unit.bind(next((slot for slot in self.slots if slot is not unit.slot), unit.slot).views(unit))

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

    original_load, original_new_slot = components.load, SlotRing.new_slot
    patch.setattr(components, "load", load)
    patch.setattr(SlotRing, "new_slot", new_slot)


def missing_release_wait(patch: Patch) -> None:
    patch.setattr(Transfers, "outlast", lambda self, ready: None)


RACES = [missing_ready_wait, missing_free_wait, missing_acquire_fence, missing_release_wait]
STREAMING = [seed for seed in range(1000, 1100) if any(plan.slots and not plan.hold for plan in World(seed).plans)]
WORLDS = STREAMING[:12]


def verdicts(**device: Any) -> Counter[str]:
    """How often the worlds end in a race found, a wrong result, or as they should."""
    found: Counter[str] = Counter()
    for seed in WORLDS:
        world = World(seed)
        expected = world.expected()
        with EmulatedDevice(2**30, delays=seed, **device) as emulated:
            try:
                same = torch.equal(play(world, emulated), expected)
                found["right" if same else "wrong"] += 1
            except HappensBeforeError:
                found["race"] += 1
    return found


def test_the_engine_as_it_is_has_no_fault() -> None:
    assert verdicts(asynchronous_compute=True) == {"right": len(WORLDS)}


@pytest.mark.parametrize("fault", RACES, ids=lambda fault: fault.__name__)
def test_the_checker_finds_a_missing_wait(fault: Callable[[Patch], None], monkeypatch: Patch) -> None:
    fault(monkeypatch)
    assert verdicts(asynchronous_compute=True)["race"] > 0


@pytest.mark.parametrize("fault", RACES, ids=lambda fault: fault.__name__)
def test_the_checker_finds_it_where_compute_never_runs_late(fault: Callable[[Patch], None], monkeypatch: Patch) -> None:
    fault(monkeypatch)
    assert verdicts()["race"] > 0


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
