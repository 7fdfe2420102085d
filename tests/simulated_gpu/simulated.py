"""The simulated GPU as its tests see it: counters, refusals, virtual time, violations and who calls what."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

OUT_OF_MEMORY = 2
_WATCHER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, ctypes.c_double)
_PASSED_ON = (
    "roost/residency/device/cuda.py",
    "contextlib.py",
    "simulated_gpu/simulated.py",
    "simulated_gpu/true_values.py",
)
_listeners: list[Callable[[int], None]] = []
_DOUBLES = {"sim_now": (), "sim_host": (ctypes.c_double,), "sim_cost": (ctypes.c_double,)}


@cache
def runtime() -> Any:
    """The simulated CUDA runtime that this process's PyTorch uses."""
    import torch  # loads it

    assert torch.cuda.is_available()
    library = ctypes.CDLL("libcudart.so.13")
    for name, arguments in _DOUBLES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, ctypes.c_double
    library.sim_counter_names.restype = library.sim_violation.restype = ctypes.c_char_p
    library.sim_alias.argtypes, library.sim_alias.restype = (ctypes.c_size_t,), ctypes.c_void_p
    library.sim_settle.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    library.sim_kernel.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    library.sim_violation_count.restype = library.sim_registered.restype = ctypes.c_long
    library.sim_refuse.argtypes = (ctypes.c_char_p, ctypes.c_long, ctypes.c_int)
    return library


def counters(device: int = 0) -> dict[str, float]:
    """What was counted since ``count_anew``; bytes and seconds (virtual) by the ends of their names."""
    names = runtime().sim_counter_names().decode().split()
    values = (ctypes.c_double * len(names))()
    runtime().sim_counters(device, values)
    return dict(zip(names, values, strict=True))


def count_anew() -> None:
    runtime().sim_count_anew()


def now_s() -> float:
    """The virtual host clock."""
    return float(runtime().sim_now())


def violations() -> list[str]:
    """What calls did that CUDA leaves undefined, or that gives memory to two at a time; the first 64."""
    found = runtime().sim_violation_count()
    texts = [runtime().sim_violation(index).decode() for index in range(min(found, 64))]
    return texts + [f"and {found - 64} more"] * (found > 64)


def forget_violations() -> None:
    runtime().sim_forget_violations()


def last_addresses() -> list[int]:
    """The addresses on devices that the last launch was given, in order of its parameters."""
    into = (ctypes.c_void_p * 64)()
    return [int(into[index] or 0) for index in range(runtime().sim_last_addresses(into, 64))]


@contextmanager
def refusing(call: str, nth: int, code: int = OUT_OF_MEMORY) -> Iterator[None]:
    """The ``nth`` such call inside the context fails; a negative number refuses all from that one on."""
    runtime().sim_refuse(call.encode(), nth, code)
    try:
        yield
    finally:
        runtime().sim_refuse(call.encode(), 0, code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that costs, and the innermost line of Python that led to it, outside of torch and Roost's CUDA device."""

    name: str
    device: int
    bytes: int
    at: str

    @property
    def by_roost(self) -> bool:
        return self.at.startswith("roost/")


@contextmanager
def watched() -> Iterator[list[Call]]:
    """What costs inside the context, in order: host synchronisations, blocking and pageable copies, allocations and
    registrations with CUDA, and as "allocation" whatever PyTorch's allocator hands out.
    """
    calls: list[Call] = []

    def told(name: bytes, device: int, size: float) -> None:
        calls.append(Call(name=name.decode(), device=device, bytes=int(size), at=_caller(sys._getframe(1))))

    def handed_out(_address: int) -> None:
        calls.append(Call(name="allocation", device=-1, bytes=0, at=_caller(sys._getframe(1))))

    watcher = _WATCHER(told)
    runtime().sim_watch(watcher)
    try:
        with _told_of_allocations(handed_out):
            yield calls
    finally:
        runtime().sim_watch(_WATCHER())


@contextmanager
def _told_of_allocations(callback: Callable[[int], None]) -> Iterator[None]:
    """PyTorch forgets no callback, so one is registered, once, which asks who listens now."""
    if not _listeners:
        import torch
        from torch.cuda import _gpu_trace as trace

        torch._C._activate_gpu_trace()
        trace.register_callback_for_memory_allocation(_tell)
        _listeners.append(lambda _: None)
    _listeners.append(callback)
    try:
        yield
    finally:
        _listeners.remove(callback)


def _tell(address: int) -> None:
    for each in _listeners:
        each(address)


def _caller(frame: FrameType | None) -> str:
    """``roost/residency/engine/slots.py:61``, for instance."""
    while frame is not None:
        file = frame.f_code.co_filename
        parts = Path(file).parts
        if "torch" not in parts and not file.startswith("<frozen") and not file.endswith(_PASSED_ON):
            return f"{'/'.join(_under(parts))}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


def _under(parts: tuple[str, ...]) -> tuple[str, ...]:
    for folder in ("site-packages", "src"):
        if folder in parts:
            return parts[len(parts) - parts[::-1].index(folder) :]
    return parts[-1:]


def priced(seconds: float, launch: Callable[[], object]) -> None:
    """Launches with the given virtual cost on its first kernel."""
    runtime().sim_cost(seconds)
    launch()
    runtime().sim_cost(-1.0)
