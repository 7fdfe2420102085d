"""A device that only knows where tensors are: torch's Python backend under fake tensors; no mixture goes unseen.

Host weights stay real. What the engine allocates on the device is fake, and so is all that is computed there; an
operation on tensors of both places raises, as on CUDA. A parameter's data can't be bound across that border, so modules
hold device views in the place of their parameters, as streamed blocks do anyway.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from roost.facts.machine import Lane
from roost.residency.device.interface import Device
from roost.residency.engine import nan_outputs
from roost.residency.weights import packing, units
from roost.residency.weights.host_masters import Master
from roost.residency.weights.objects import parameter_tables
from roost.residency.weights.units import Unit

NAME = "emu"


@contextlib.contextmanager
def fake_accelerator() -> Iterator[FakeAccelerator]:
    """The device, with the engine's binding made to reach over to it."""
    if torch._C._get_privateuse1_backend_name() != NAME:
        _setup_privateuseone_for_python_backend(NAME)
    with pytest.MonkeyPatch.context() as patch:
        device = FakeAccelerator()
        _bind_by_replacing(device, patch)
        yield device


class FakeAccelerator(Device):
    """Memory without bytes and lanes without work."""

    def __init__(self) -> None:
        self.kind, self.device, self.budget_bytes = "cuda", torch.device(NAME, 0), 2**40
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.used = 0

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """What the pipeline's ``tensor.to(device)`` gives."""
        with self.mode:
            return self.mode.from_tensor(tensor).to(self.device)

    def leave(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor as it is when nobody moves it."""
        return self.mode.from_tensor(tensor)

    def counting_activations(self) -> contextlib.AbstractContextManager[object]:
        return self.mode

    def engine_work(self) -> contextlib.AbstractContextManager[object]:
        return _disable_current_modes()

    def allocate(self, count: int) -> torch.Tensor:
        self.used += count
        with self.mode:
            return torch.empty(count, dtype=torch.uint8, device=self.device)

    def free(self, buffer: torch.Tensor) -> None:
        self.used -= buffer.nbytes

    def copy(self, target: torch.Tensor, source: torch.Tensor, lane: Lane = "copy") -> None:
        assert {target.device.type, source.device.type} == {"cpu", NAME}

    def record(self, lane: Lane) -> Any:
        return lane

    def register(self, buffer: torch.Tensor) -> bool:
        return True

    def mark(self, lane: Lane = "compute") -> Any:
        return 0.0

    def reached(self, mark: Any) -> bool:
        return True

    def seconds_between(self, earlier: Any, later: Any) -> float:
        return 0.0

    def take_high_bytes(self) -> int:
        return self.used

    def _nothing(self, *_: Any) -> None:
        """Nothing runs here, so that nothing has to be waited for."""

    wait = wait_host = synchronize = unregister = trim = begin_use = end_use = reset_peak = close = _nothing  # type: ignore[assignment]

    @property
    def used_bytes(self) -> int:
        return self.used

    @property
    def peak_bytes(self) -> int:
        return self.used

    @property
    def free_bytes(self) -> int:
        return self.budget_bytes - self.used


def _bind_by_replacing(device: FakeAccelerator, patch: pytest.MonkeyPatch) -> None:
    holders: dict[
        int, list[tuple[dict[str, Any], str]]
    ] = {}  # of each tensor object, the modules' tables and its names
    find_tables = Unit.find_tables

    def note_holders(unit: Unit, module: torch.nn.Module, *rest: Any) -> None:
        find_tables(unit, module, *rest)
        objects = {id(each) for each in unit._objects}
        for part in module.modules():
            for table in (part._parameters, part._buffers):
                for name, each in table.items():
                    if id(each) in objects:
                        holders.setdefault(id(each), []).append((table, name))

    def bind_one(original: torch.Tensor, view: torch.Tensor) -> None:
        made: torch.Tensor = original
        if view.device.type == NAME:
            made = torch.nn.Parameter(view, False) if isinstance(original, torch.nn.Parameter) else view
        for table, name in holders.get(id(original), ()):  # parts of packed weights are in none
            table[name] = made

    def bind_home(unit: Unit) -> None:
        unit.bind(list(unit._objects))
        unit._own = None

    patch.setattr(nan_outputs.NanOutputs, "look", lambda *_: None)  # fake tensors have no values to look at
    patch.setattr(Unit, "find_tables", note_holders)
    patch.setattr(Unit, "bind_home", bind_home)
    patch.setattr(Unit, "is_intact", lambda unit: True)
    patch.setattr(packing.Packer, "is_fresh", lambda packer: True)
    for name in ("watch", "unwatch"):  # fake tensors know no class but their own and plain ones
        patch.setattr(units, name, lambda *_: None)
    patch.setattr(parameter_tables, "bind_one", bind_one)
    patch.setattr(Master, "source", property(lambda master: master.buffer))  # a staging thread can't share the mode
