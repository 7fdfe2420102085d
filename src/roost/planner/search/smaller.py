"""Smaller workloads of the same kind: a smaller batch, a smaller picture of the same aspect, fewer frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from roost.facts.request import Workload

Amount = Literal["batch", "size", "frames"]

AMOUNTS: tuple[Amount, ...] = ("batch", "size", "frames")
# A side may be this much off the aspect, and a picture no smaller than this share of the asked one.
_ASPECT_ERROR, _SMALLEST_SHARE = 0.04, 1 / 16
# Video VAEs take 4k + 1 or 8k + 1 frames, one takes 6k + 1; what a family's default workload is, it takes.
_FRAME_STEPS = (8, 6, 4)


def smaller(workload: Workload, what: Amount, share: float, default: Workload) -> Workload | None:
    """The largest workload with at most ``share`` of the amount, as the family of the ``default`` one takes it."""
    return _SHRINKING[what](workload, share, default)


def amount(workload: Workload, what: Amount) -> int:
    """How much of it the workload has: pictures, pixels or frames."""
    return {
        "batch": workload.batch,
        "size": workload.width * workload.height,
        "frames": workload.frames or 1,
    }[what]


def option(workload: Workload, what: Amount) -> str:
    """The option that asks for the workload's amount."""
    return {
        "batch": f"--batch {workload.batch}",
        "size": f"--size {workload.width}x{workload.height}",
        "frames": f"--frames {workload.frames}",
    }[what]


def _batch(workload: Workload, share: float, _: Workload) -> Workload | None:
    batch = min(int(workload.batch * share), workload.batch - 1)
    return replace(workload, batch=batch) if batch >= 1 else None


def _size(workload: Workload, share: float, default: Workload) -> Workload | None:
    """Sides are multiples of 32 where the family's own are, else of 16."""
    multiple = 16 if default.width % 32 or default.height % 32 else 32
    most = min(share * amount(workload, "size"), amount(workload, "size") - 1)
    for width in range(workload.width // multiple * multiple, 0, -multiple):
        exact = width * workload.height / workload.width
        height = max(1, round(exact / multiple)) * multiple
        if width * height <= most and abs(height / exact - 1) <= _ASPECT_ERROR:
            small = width * height < _SMALLEST_SHARE * amount(workload, "size")
            return None if small else replace(workload, width=width, height=height)
    return None


def _frames(workload: Workload, share: float, default: Workload) -> Workload | None:
    if workload.frames is None or default.frames is None:
        return None
    step = next((each for each in _FRAME_STEPS if default.frames % each == 1), 1)
    groups = int(min(workload.frames * share, workload.frames - 1) - 1) // step
    return replace(workload, frames=groups * step + 1) if groups >= 1 else None


_SHRINKING: Mapping[Amount, Callable[[Workload, float, Workload], Workload | None]] = {
    "batch": _batch,
    "size": _size,
    "frames": _frames,
}
