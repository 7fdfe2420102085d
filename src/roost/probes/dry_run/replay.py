"""Runs a submodule's call once and replays it wherever an equal one comes: same structure, same inputs, same result.

A video VAE decodes chunk after chunk and tile after tile, and a transformer's blocks are twins. A replay adds the
recorded work and peaks and makes the outputs anew, also those left in lists that were handed in (a causal VAE's
caches). A call that can't be described completely simply runs again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from roost.probes.dry_run.call_values import Handed, Indescribable, ResultBuilder, Results, fill, read_results
from roost.probes.dry_run.recorder import Frame, Recorder
from roost.probes.dry_run.world import FakeWorld


@dataclass(frozen=True, slots=True)
class _Recording:
    frame: Frame
    results: Results


class Replays:
    """The recordings of one use. Calls are equal when their ``structure`` and the description of their inputs are."""

    def __init__(self, world: FakeWorld, recorder: Recorder) -> None:
        self._world = world
        self._recorder = recorder
        self._recordings: dict[Any, _Recording | None] = {}  # None: runs anew each time

    def call(self, structure: object, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What ``call(*args, **kwargs)`` returns, run or replayed."""
        handed = Handed()
        try:
            with torch._C.DisableTorchFunction():
                key = (structure, handed.describe((args, tuple(kwargs.items()))))
        except Indescribable:
            return call(*args, **kwargs)
        recording = self._recordings.get(key)
        if recording is not None:
            return self._replay(recording, handed)
        if key in self._recordings:
            return call(*args, **kwargs)
        return self._record(key, handed, lambda: call(*args, **kwargs))

    def _record(self, key: object, handed: Handed, call: Callable[[], Any]) -> Any:
        reads = self._world.value_reads
        with self._recorder.frame(handed.alive()) as frame:
            out = call()
            self._recordings[key] = None
            if not frame.read_foreign and self._world.value_reads == reads:
                with contextlib.suppress(Indescribable):
                    results = read_results(out, handed, self._recorder.liveness, frame.births)
                    self._recordings[key] = _Recording(frame, results)
        return out

    def _replay(self, recording: _Recording, handed: Handed) -> Any:
        liveness, results = self._recorder.liveness, recording.results
        self._recorder.include(recording.frame, liveness.live_bytes)
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            build = ResultBuilder(self._world.fake_ops, liveness, results, handed)
            for position, _ in results.contents:
                fill(handed.containers[position], [])  # what the caches held dies before what they get is born
            for position, content in results.contents:
                fill(handed.containers[position], build(content))
            return build(results.returned)
