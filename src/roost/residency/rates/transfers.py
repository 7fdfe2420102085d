"""Copies over the link, pinning and casting, timed by the roads that runs take."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from roost.errors import RoostError
from roost.facts.rates import RateKey
from roost.residency.device.interface import Device
from roost.residency.rates.kernels import half_dtype
from roost.residency.rates.timing import SAMPLES, Reading, reading_of, timed_on_device, timed_on_host
from roost.residency.weights.host_masters import host_memory
from roost.residency.weights.staging import Stager
from roost.residency.weights.unpinned_sources import PageableBlock
from roost.units import MiB

_LARGE_BYTES, _SMALL_BYTES = 256 * MiB, 32 * MiB  # of one copy; a CPU's are slower


def transfer_points(device: Device) -> dict[RateKey, Callable[[], Reading]]:
    """How to measure each rate of a copy, of pinning and of casting."""
    size = _LARGE_BYTES if device.kind == "cuda" else _SMALL_BYTES
    return {
        RateKey.PINNED_H2D: partial(_pinned, device, size, up=True),
        RateKey.PINNED_D2H: partial(_pinned, device, size, up=False),
        RateKey.PAGEABLE_H2D: partial(_staged, device, size),
        RateKey.PAGEABLE_D2H: partial(_back, device, size),
        RateKey.PIN: partial(_pinning, device, size),
        RateKey.CAST: partial(_cast, device, size),
    }


def _pinned(device: Device, size: int, *, up: bool) -> Reading:
    host = _filled(size)
    if not device.register(host):
        raise RoostError("the system refused to pin memory")
    try:
        remote = device.allocate(size)
        try:
            target, source = (remote, host) if up else (host, remote)
            if not up:
                device.copy(remote, host, "compute")
            return timed_on_device(device, lambda: device.copy(target, source, "compute"), size)
        finally:
            device.synchronize()
            device.free(remote)
    finally:
        device.unregister(host)


def _staged(device: Device, size: int) -> Reading:
    """As streamed blocks come: a thread fills small pinned buffers, and these are copied."""
    stager, remote = Stager(device), device.allocate(size)
    block = PageableBlock(_filled(size))

    def copy() -> None:
        stager.copy(remote, block)
        stager.wait_host(stager.record("copy"))

    try:
        return timed_on_host(device, copy, size)
    finally:
        stager.close()
        device.synchronize()
        device.free(remote)


def _back(device: Device, size: int) -> Reading:
    """As component-offload copies weights back."""
    remote, host = device.allocate(size), _filled(size)
    try:
        device.copy(remote, host, "compute")
        return timed_on_host(device, lambda: device.copy(host, remote, "compute"), size)
    finally:
        device.synchronize()
        device.free(remote)


def _pinning(device: Device, size: int) -> Reading:
    """Memory that nothing has touched yet, written and registered."""
    rates = []
    for _ in range(SAMPLES + 1):
        memory = host_memory(size)
        began_s = time.perf_counter()
        memory.zero_()
        pinned = device.register(memory)
        seconds = time.perf_counter() - began_s
        if not pinned:
            raise RoostError("the system refused to pin memory")
        device.unregister(memory)
        rates.append(size / seconds)
    return reading_of(rates[1:])


def _cast(device: Device, size: int) -> Reading:
    """Stored float32 as 16 bits, on the host; the rate is of stored bytes."""
    stored = torch.randn(size // 4)
    target = torch.empty(size // 4, dtype=half_dtype(device))
    return timed_on_host(device, lambda: target.copy_(stored), size)


def _filled(size: int) -> torch.Tensor:
    memory = host_memory(size)
    piece = torch.randint(256, (MiB,), dtype=torch.uint8)  # pages that nobody wrote are all the same one
    for start in range(0, size, MiB):
        memory[start : start + MiB] = piece
    return memory
