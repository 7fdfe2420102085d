"""Smaller workloads of the same kind: a smaller batch, a smaller picture of the same aspect, fewer frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from roost.facts.request import Workload

Amount = Literal["batch", "size", "frames"]

AMOUNTS: tuple[Amount, ...] = ("batch", "size", "frames")
# A side may be this much off the aspect, and a picture no smaller than this share of the asked one.
_ASPECT_ERROR, _SMALLEST_SHARE = 0.04, 1 / 16
# Video VAEs take 4k + 1 or 8k + 1 frames, one takes 6k + 1; what a family's default workload is, it takes.
_FRAME_STEPS = (8, 6, 4)


Sizes = Sequence[tuple[int, int]]


def smaller(workload: Workload, what: Amount, share: float, default: Workload, sizes: Sizes = ()) -> Workload | None:
    """The largest workload with at most ``share`` of the amount, as the family of the ``default`` one takes it.

    ``sizes`` are those that it was trained at, where they are known; below the least of them any size is taken.
    """
    trained = _trained_size(workload, share, sizes) if what == "size" else None
    return trained or _SHRINKING[what](workload, share, default)


def _trained_size(workload: Workload, share: float, sizes: Sizes) -> Workload | None:
    """A size that the family was trained at, upright where the asked one is."""
    most, upright = share * amount(workload, "size"), workload.height > workload.width
    smaller_ones = [each for each in sizes if each[0] * each[1] < amount(workload, "size")]
    fitting = [each for each in smaller_ones if each[0] * each[1] <= most]
    # A line through one point is no law: where none is small enough by it, the smallest is still worth a look.
    found = max(fitting, key=_area, default=min(smaller_ones, key=_area, default=None))
    if found is None:
        return None
    long, short = max(found), min(found)
    width, height = (short, long) if upright else (long, short)
    return replace(workload, width=width, height=height)


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def amount(workload: Workload, what: Amount) -> int:
    """How much of it the workload has: pictures, pixels or frames."""
    return {
        "batch": workload.batch,
        "size": workload.width * workload.height,
        "frames": workload.frames or 1,
    }[what]


def option(workload: Workload, what: Amount) -> tuple[str, str]:
    """The option that asks for the workload's amount, and its value."""
    return {
        "batch": ("--batch", str(workload.batch)),
        "size": ("--size", f"{workload.width}x{workload.height}"),
        "frames": ("--frames", str(workload.frames)),
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
