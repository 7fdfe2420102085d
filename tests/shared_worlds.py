"""Pipelines that processes of one host share, as one of them holds them, and weights that nobody can read any more."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from engine_cases import digest_of, with_pinned
from live_pipelines import STRATEGIES
from plans import GIB, plan_for
from roost.pipelines.quiet import quiet_libraries
from roost.plan import PlanDocument
from roost.profiles.class_facts import load_class_facts
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import Held
from roost.residency.run.loader import Source, load_held
from roost.residency.weights.shared.masters import SharedMasters


def plan_of(directory: Path, strategy: Any, dtype: torch.dtype | None = None) -> PlanDocument:
    with quiet_libraries():
        pipeline = DiffusionPipeline.from_pretrained(directory, torch_dtype=dtype)
    return with_pinned(plan_for(pipeline, strategy))


@contextlib.contextmanager
def held(
    plan: PlanDocument, directory: Path, folder: Path | None, nodes: Sequence[int] = (), **source: Any
) -> Iterator[Held]:
    """As one of the processes that meet in ``folder``, or by itself; masters lie on ``nodes``, if these are several."""
    shared = None if folder is None else SharedMasters(folder, nodes)
    source = {"class_facts": load_class_facts(), "shared": shared, **source}
    with EmulatedDevice(GIB) as device, load_held(plan, directory, device, source=Source(**source)) as made:
        yield made


def kinds(made: Held, component: str | None = None) -> set[str]:
    """The classes of masters."""
    return {
        type(unit.master).__name__
        for name, each in made.runtime.components.items()
        for unit in each.units.values()
        if component in (None, name) and unit.bytes
    }


@functools.cache
def digest_alone(strategy: str, name: str, directory: Path) -> str:
    with held(plan_of(directory, STRATEGIES[strategy]), directory, None) as made:
        return digest_of(made, name)


def without_weights(directory: Path, copy: Path) -> Path:
    """A copy whose weights a test may ``wipe``."""
    return Path(shutil.copytree(directory, copy))


def wipe(directory: Path) -> None:
    """Makes all weights zeros, in files that look the same: whoever reads one from now on has other bits."""
    for path in directory.rglob("*.safetensors"):
        status = path.stat()
        start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
        with path.open("r+b") as file:
            file.seek(start)
            file.write(bytes(status.st_size - start))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def copied_bytes() -> int:
    """Of pages of shared masters that this process wrote to, and has copies of."""
    gc.collect()  # what tests before left behind
    maps = Path("/proc/self/smaps").read_text(encoding="utf-8")
    found = re.findall(r"/memfd:roost .*?^Anonymous: +(\d+) kB", maps, re.DOTALL | re.MULTILINE)
    return 1024 * sum(map(int, found))
