"""Runs a submodule's call once and replays it wherever an equal one comes: twins, same inputs, same result."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from roost.pipelines.internals.of_accelerate import HOOK
from roost.pipelines.internals.of_torch import buffers_of, children_of, parameters_of, without_functions, without_modes
from roost.probes.dry_run.call_values import CallResults, Handed, Indescribable, ResultBuilder, fill, read_call_results
from roost.probes.dry_run.recorder import Frame, Recorder
from roost.probes.dry_run.world import FakeWorld


@dataclass(frozen=True, slots=True)
class _Recording:
    frame: Frame
    results: CallResults


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
            with without_functions():
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
                    results = read_call_results(out, handed, self._recorder.liveness, frame.births)
                    self._recordings[key] = _Recording(frame, results)
        return out

    def _replay(self, recording: _Recording, handed: Handed) -> Any:
        liveness, results = self._recorder.liveness, recording.results
        self._recorder.include(recording.frame, liveness.live_bytes)
        with without_modes(), without_functions():
            build = ResultBuilder(self._world.fake_ops, liveness, results, handed)
            for position, _ in results.contents:
                fill(handed.containers[position], [])  # what the caches held dies before what they get is born
            for position, content in results.contents:
                fill(handed.containers[position], build(content))
            return build(results.returned)


# When two modules are twins: same classes, same plain attributes, same shapes and dtypes, all the way down.


# Where a layer stands in its stack; read only to find its own part of a key-value cache, which a replay never sees.
_POSITIONS = ("layer_idx",)
_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)
_COLLECTIONS = (list, tuple, dict, set, frozenset)
_CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type)
_BOOKKEEPING = frozenset((*vars(torch.nn.Module()), "forward", HOOK))


def structure_of(module: torch.nn.Module) -> tuple[Any, ...]:
    """A hashable description, equal for modules whose forward does the same operations on equal inputs."""
    tensors = [*parameters_of(module).items(), *buffers_of(module).items()]
    return (
        type(module),
        tuple((name, *_layout(each)) for name, each in tensors),
        tuple((name, _attribute(value)) for name, value in sorted(vars(module).items()) if _matters(name)),
        tuple((name, structure_of(each)) for name, each in children_of(module).items() if each is not None),
    )


def _matters(name: str) -> bool:
    return name not in _BOOKKEEPING and name not in _POSITIONS


def _layout(tensor: torch.Tensor | None) -> tuple[Any, ...]:
    return () if tensor is None else (tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _attribute(value: Any, depth: int = 0) -> Any:
    if isinstance(value, _PLAIN):
        return (type(value), value)
    if isinstance(value, torch.Tensor):
        return _layout(value)
    if isinstance(value, _COLLECTIONS):
        parts = value.items() if isinstance(value, dict) else value
        if isinstance(value, set | frozenset):
            parts = sorted(value, key=repr)
        return (type(value), *(_attribute(each, depth) for each in parts))
    if depth == 0 and hasattr(value, "__dict__") and not isinstance(value, _CODE):  # attention processors and the like
        return (type(value), *((name, _attribute(each, 1)) for name, each in sorted(vars(value).items())))
    return getattr(value, "__func__", value) if isinstance(value, _CODE) else id(value)
