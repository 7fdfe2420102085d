"""Faults that only CUDA has, planted one by one into Roost's runtime: each is noticed, and without one nothing is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from generations import ends_of_steps
from simulated import count_anew, counters, forget_violations, runtime, violations, watched
from true_values import TrueValues

from engine_cases import with_pinned
from engine_toys import call, streaming
from live_pipelines import own_pipeline, request_for
from plans import GIB, LAYERWISE, plan_for
from roost.residency.device import cuda
from roost.residency.device.cuda import CudaDevice
from roost.residency.engine.slots import SlotRing
from roost.residency.hold.attach import hold
from roost.residency.run.generate import generate
from roost.residency.weights.transfers import Transfers

Patch = pytest.MonkeyPatch


def noticed(device: int = 0, *, pinned: bool = True) -> list[str]:
    """What the checks say of two generations that stream every component of FLUX, from pinned or pageable memory."""
    pipeline = own_pipeline("flux")
    plan = plan_for(pipeline, LAYERWISE)
    plan = with_pinned(plan) if pinned else plan
    forget_violations()
    count_anew()
    registered = runtime().sim_registered()
    with TrueValues(), watched() as calls:
        with CudaDevice(GIB) as gpu, hold(pipeline, plan, gpu) as held:
            ends = ends_of_steps(pipeline, calls)
            for _ in range(2):
                ends.clear()
                generate(held, request_for("flux", num_inference_steps=3))
            steady = [each for each in calls[ends[0] : ends[-1]] if each.by_roost]
        torch.cuda.synchronize()
    found = [*violations(), *(f"in a steady step: {each.name} at {each.at}" for each in steady)]
    left = runtime().sim_registered() - registered
    found += [f"{left} ranges stay registered"] * (left > 0)
    found += [f"a context on device {other}" for other in range(8) if other != device and counters(other)["contexts"]]
    return found


# ---- the faults: each changes one thing of the runtime ----


def missing_wait(patch: Patch) -> None:
    """Compute does not wait for the copies it reads."""
    wait = CudaDevice.wait
    patch.setattr(CudaDevice, "wait", lambda self, lane, event: None if lane == "compute" else wait(self, lane, event))


def pageable_source(patch: Patch) -> None:
    """Masters count as pinned and are not."""
    patch.setattr(CudaDevice, "register", lambda self, buffer: True)
    patch.setattr(CudaDevice, "unregister", lambda self, buffer: None)


def sync_in_steady_state(patch: Patch) -> None:
    """The host waits after each block."""
    leave = SlotRing.leave

    def waiting(self: SlotRing, unit: Any) -> None:
        leave(self, unit)
        self._device.synchronize()

    patch.setattr(SlotRing, "leave", waiting)


def double_register(patch: Patch) -> None:
    """The same pages are registered again."""
    register = CudaDevice.register

    def twice(self: CudaDevice, buffer: torch.Tensor) -> bool:
        done = register(self, buffer)
        cuda._cudart().cudaHostRegister(buffer.data_ptr(), buffer.nbytes, 0)
        self._clear_error()
        return done

    patch.setattr(CudaDevice, "register", twice)


def unbalanced_unregister(patch: Patch) -> None:
    """Pages stay registered when their memory is freed."""
    patch.setattr(CudaDevice, "unregister", lambda self, buffer: self._pinned.pop(buffer.data_ptr(), None))


def allocation_in_steady_state(patch: Patch) -> None:
    """Each block gets a little memory of its own."""
    enter = SlotRing.enter

    def allocating(self: SlotRing, unit: Any) -> None:
        self.new_slot(512)
        self._device.free(self.slots.pop().buffer)
        enter(self, unit)

    patch.setattr(SlotRing, "enter", allocating)


def event_reuse(patch: Patch) -> None:
    """The copy lane's first event serves all its copies, and is not recorded again."""
    record, kept = CudaDevice.record, {}

    def reusing(self: CudaDevice, lane: Any) -> torch.cuda.Event:
        if lane == "compute":
            return record(self, lane)
        return kept.setdefault(id(self), record(self, lane))

    patch.setattr(CudaDevice, "record", reusing)


def straddled_pinned_range(patch: Patch) -> None:
    """Only the first page of a master is registered."""

    def first_page(self: CudaDevice, buffer: torch.Tensor) -> bool:
        self._pinned[buffer.data_ptr()] = buffer
        return int(cuda._cudart().cudaHostRegister(buffer.data_ptr(), 4096, 0)) == 0

    patch.setattr(CudaDevice, "register", first_page)


FAULTS: dict[Callable[[Patch], None], str] = {
    missing_wait: "is not ordered behind copy to the device",
    pageable_source: "in a steady step: pageable copy at roost/",
    sync_in_steady_state: "in a steady step: cudaDeviceSynchronize at roost/residency/",
    double_register: "part of them is registered already",
    unbalanced_unregister: "ranges stay registered",
    allocation_in_steady_state: "in a steady step: allocation at",
    event_reuse: "is not ordered behind",
    straddled_pinned_range: "goes beyond the page-locked range",
}


def test_without_a_fault_nothing_is_noticed() -> None:
    assert noticed() == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_noticed(fault: Callable[[Patch], None], monkeypatch: Patch, found: list[str]) -> None:
    found.append("")  # whatever else comes of it
    fault(monkeypatch)
    words = noticed()
    monkeypatch.undo()
    runtime().sim_forget_registered()  # what a fault left behind is not for the next test
    runtime().cudaGetLastError()
    assert any(FAULTS[fault] in each for each in words), words[:5]


# ---- memory that is given away while a late copy still writes to it: seen when somebody gets it soon enough ----


def next_owner_of_slots() -> list[str]:
    """A component leaves with copies under way, and kernels take its memory at once."""
    with CudaDevice(GIB) as device:
        component, use = streaming(device)
        state = torch.zeros(4, dtype=torch.int64, device="cuda")
        component.acquire()
        for _ in range(2):
            call(component, use, state, device)
        component.release()
        owners = [torch.empty(2, 256, dtype=torch.uint8, device="cuda").t().zero_() for _ in range(1000)]
        assert owners
        component.restore()
        component._transfers.close()
    return violations()


def test_a_component_that_leaves_waits_for_its_late_copies() -> None:
    assert next_owner_of_slots() == []


def test_an_early_free_is_noticed(monkeypatch: Patch, found: list[str]) -> None:
    found.append("is not ordered behind copy to the device")
    monkeypatch.setattr(Transfers, "outlast", lambda self, ready: None)
    assert next_owner_of_slots()


# ---- the wrong device: where there are two, in a process of its own ----

ON_THE_SECOND = """
import torch, pytest
import test_planted_cuda_faults as here
torch.cuda.set_device(1)
{plant}
print(here.noticed(device=1, pinned={pinned}))
"""
WRONG_DEVICE = """
made = here.CudaDevice.__init__
def wrong(self, *memory):
    made(self, *memory)
    self._copy_stream = torch.cuda.Stream(0)
here.CudaDevice.__init__ = wrong
"""


def on_the_second(plant: str, *, pinned: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ON_THE_SECOND.format(plant=plant, pinned=pinned)],
        env={**os.environ, "SIM_DEVICES": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or done.stderr


def test_a_copy_stream_of_the_wrong_device_is_noticed() -> None:
    words = on_the_second(WRONG_DEVICE)
    assert "on device 0" in words or "invalid resource handle" in words, words


def test_on_the_second_device_nothing_is_noticed() -> None:
    assert on_the_second("") == "[]"


def test_on_the_second_device_staging_makes_no_context_on_the_first() -> None:
    assert "a context on device 0" not in on_the_second("", pinned=False)
