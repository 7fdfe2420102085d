"""Fleets of tiny models run on Ray by the command line, in this process, beside the run of one process."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roost.api.fleets.server import PipelineServer
from roost.cli.app import run
from roost.errors import NothingFits
from roost.fleet.pool import failure
from roost.fleet.tasks import Task
from roost.residency.engine.stages import StageEvent
from tiny_models import build

CARD = ("--vram", "64MiB", "--ram", "16GiB", "--headroom", "0")
SMALL = ("--size", "64x64", "--steps", "2")
DEATHS = {7: "text_encode", 8: "denoise", 9: "decode"}  # the phase, by a request's seed
REFUSED = "a refused fox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A tiny model with its plan for one emulated device and one for a fleet of such."""

    model: Path
    alone: Path
    fleet: Path


def planned(
    folder: Path, family: str, layout: str, fleet: str = "3 x emulated", sizes: Sequence[str] = SMALL
) -> Planned:
    found = Planned(model=folder / "model", alone=folder / "alone.yaml", fleet=folder / "fleet.yaml")
    build(family, found.model)
    alone = ("--gpu", "emulated", *CARD, "--policy", "rules", *sizes, "-o", str(found.alone))
    assert run(["plan", str(found.model), *alone]) == 0
    several = ("--fleet", fleet, "--layout", layout, *CARD, *sizes, "-o", str(found.fleet))
    assert run(["plan", str(found.model), *several]) == 0
    return found


def ran(capfd: Any, *words: str) -> dict[str, Any]:
    """The record of a run, which is all that stands on stdout."""
    capfd.readouterr()
    assert run(["run", *words, "--json"]) == 0, capfd.readouterr().err
    return json.loads(capfd.readouterr().out)


def digests(record: dict[str, Any]) -> list[str]:
    return [each["digest"] for each in record["generations"]]


class DyingServer(PipelineServer):
    """A worker's server whose process is killed once at each of ``DEATHS``."""

    by = signal.SIGKILL
    _folder, _seed = Path(), -1

    def boot(self, spec: str) -> bytes:
        self._folder = Path(json.loads(spec)["folder"])
        return super().boot(spec)

    def visit(self, task: bytes) -> bytes:
        self._seed = Task.unpack(task).call.seed
        return super().visit(task)

    def _on_event(self, event: StageEvent) -> None:
        super()._on_event(event)
        marker = self._folder / f"died in {event.phase}"
        if DEATHS[self._seed] == event.phase and not marker.exists():
            marker.write_text("")
            os.kill(os.getpid(), self.by)


class StoppingServer(DyingServer):
    """One that is stopped there."""

    by = signal.SIGSTOP


class RefusingServer(PipelineServer):
    """A worker's server that fails one prompt's request."""

    def visit(self, task: bytes) -> bytes:
        if REFUSED.encode() in task:
            return failure(NothingFits("it doesn't fit."))
        return super().visit(task)
