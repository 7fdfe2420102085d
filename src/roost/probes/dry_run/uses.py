"""Intercepts every component entry of a pipeline: traces each kind of call once, and writes down their order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from roost.pipelines.described_values import call_form
from roost.pipelines.entries import wrap_entries
from roost.pipelines.formats.packed_tensors import named_parts
from roost.pipelines.internals.of_torch import storage_key
from roost.probes.dry_run.entry_calls import EntryCall, TracedComponent, tensors_within, weights_bytes
from roost.probes.dry_run.liveness import CachingAllocator
from roost.probes.dry_run.recorder import Recorder
from roost.probes.dry_run.replay import Replays, structure_of
from roost.probes.dry_run.world import FakeWorld
from roost.trace import UseTrace, VaeSetting, VaeVariant

# A call whose inputs' values matter (masks, token ids) is traced anew for other values, this often, and then no more.
_MAX_VALUES = 8
_SWITCHES: dict[VaeSetting, tuple[str, ...]] = {
    "tiled": ("tiling",),
    "sliced": ("slicing",),
    "tiled slices": ("tiling", "slicing"),
}


class UseLog:
    """What a pipeline used: distinct ``uses``, their run-length ``sequence``, and the VAE's ``variants``."""

    def __init__(self, world: FakeWorld, *, replaying: bool = True) -> None:
        self.uses: list[UseTrace] = []
        self.sequence: list[tuple[int, int]] = []
        self.variants: list[VaeVariant] = []
        self.allocator = CachingAllocator()
        self._world = world
        self._replaying = replaying
        self._running = False
        self._traced: dict[tuple[Any, ...], dict[str, TracedUse]] = {}  # by signature, then by values if they matter

    @contextmanager
    def watch(self, components: Iterable[TracedComponent]) -> Iterator[None]:
        """Intercepts the components' entries while entered."""
        with ExitStack() as undo:
            for component in components:
                undo.callback(wrap_entries(component.module, functools.partial(self._entry, component)))
            yield

    def _entry(
        self, component: TracedComponent, method: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        if self._running:  # an entry that an entry calls belongs to it
            return call(*args, **kwargs)
        self._running = True
        try:
            entry = EntryCall(component=component, method=method, call=call, args=args, kwargs=kwargs)
            traced = self._find(entry)
            self._log(entry, traced)
        finally:
            self._running = False
        return traced.result

    def _find(self, call: EntryCall) -> TracedUse:
        known = self._traced.setdefault((call.component.kin, call.method, call.signature()), {})
        by_values = any(each.reads_values for each in known.values())
        if known and (not by_values or len(known) >= _MAX_VALUES):
            return next(reversed(known.values()))
        values = call.values()
        if values not in known:
            known[values] = trace_use(call, self._world, self.allocator, replaying=self._replaying)
        return known[values]

    def _log(self, call: EntryCall, traced: TracedUse) -> None:
        use = replace(traced.use, component=call.component.name)
        index = next((index for index, known in enumerate(self.uses) if known == use), len(self.uses))
        if index == len(self.uses):
            self.uses.append(use)
            self.variants += self._trace_variants(index, call)
        if self.sequence and self.sequence[-1][0] == index:
            self.sequence[-1] = (index, self.sequence[-1][1] + 1)
        else:
            self.sequence.append((index, 1))

    def _trace_variants(self, index: int, call: EntryCall) -> Iterator[VaeVariant]:
        """The use again with tiling, with slicing and with both, where the module has them and they are off."""
        module: Any = call.component.module
        single = all(each.shape[:1] == (1,) for each in call.inputs())  # slices are single samples
        for setting, switches in _SWITCHES.items():
            if any(getattr(module, f"use_{switch}", True) for switch in switches):
                continue
            if "slicing" in switches and single:
                if setting == "sliced":
                    yield VaeVariant(use=index, setting=setting, trace=self.uses[index])
                continue
            for switch in switches:
                getattr(module, f"enable_{switch}")()
            try:
                use = trace_use(call, self._world, CachingAllocator(), replaying=self._replaying).use
            finally:
                for switch in switches:
                    getattr(module, f"disable_{switch}")()
            yield VaeVariant(use=index, setting=setting, trace=use)


# Traces one use of a component.


AroundCall = Callable[[Callable[..., Any], Any, Any], Any]  # (call, args, kwargs)

# Methods by which tiled VAEs mix a tile's edge into the next one's, a line at a time.
_BLENDS = ("blend_t", "blend_v", "blend_h")


@dataclass(frozen=True, slots=True)
class TracedUse:
    """A use, what it returned, and whether the values of its inputs decided anything."""

    use: UseTrace
    result: Any
    reads_values: bool


def trace_use(call: EntryCall, world: FakeWorld, allocator: CachingAllocator, *, replaying: bool = True) -> TracedUse:
    """Runs ``call`` in ``world`` and records it; with ``replaying``, equal submodule calls run once."""
    module, inputs = call.component.module, call.inputs()
    weights = [part for _, part in named_parts(module)]
    recorder = Recorder(weights, inputs, allocator, between=call.component.leaves)
    reads, world.observer = world.value_reads, recorder
    try:
        with ExitStack() as undo:
            watch_blocks(call.component, recorder, undo, Replays(world, recorder) if replaying else None)
            result = call.run()
    finally:
        world.observer = None
        recorder.liveness.forget()
    return TracedUse(use_trace(call, recorder, inputs, result), result, world.value_reads > reads)


def use_trace(call: EntryCall, recorder: Recorder, inputs: Iterable[torch.Tensor], result: Any) -> UseTrace:
    """What ``recorder`` holds of a finished call."""
    work = recorder.frames[0].work
    return UseTrace(
        component=call.component.name,
        method=call.method,
        signature=call.signature(),
        totals=work.totals(),
        activation_bytes=recorder.activation_bytes(),
        input_bytes=_storage_bytes(inputs),
        output_bytes=_storage_bytes(tensors_within(result)),
        compute_dtype=work.main_dtype,
        blocks=recorder.block_traces(),
        recast_bytes=max(0, weights_bytes(call.component.module) - call.component.loaded_bytes),
        form=call_form(call.args, call.kwargs),
        attention=work.attention_works(),
    )


def watch_blocks(
    component: TracedComponent, recorder: Recorder, undo: ExitStack, replays: Replays | None = None
) -> None:
    """Reports every block's call to ``recorder``; with ``replays``, blocks and a VAE's repeated parts run once."""
    structures = {name: structure_of(component.module.get_submodule(name)) for name in component.blocks}
    if replays is not None and hasattr(component.module, "decode"):
        for name, half in component.module.named_children():
            if name not in structures:
                _wrap(half, "forward", functools.partial(_replayed, replays, structure_of(half)), undo)
        for name in _BLENDS:
            if hasattr(component.module, name):
                _wrap(component.module, name, functools.partial(_replayed, replays, name), undo)
    for name, structure in structures.items():
        inner: AroundCall = _plainly if replays is None else functools.partial(_replayed, replays, structure)
        around = functools.partial(_in_block, recorder, name, inner)
        _wrap(component.module.get_submodule(name), "forward", around, undo)


def _replayed(replays: Replays, structure: object, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return replays.call(structure, call, args, kwargs)


def _in_block(
    recorder: Recorder, name: str, inner: AroundCall, call: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    with recorder.block(name):
        return inner(call, args, kwargs)


def _plainly(call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return call(*args, **kwargs)


def _wrap(module: torch.nn.Module, method: str, around: AroundCall, undo: ExitStack) -> None:
    original, attributes = getattr(module, method), vars(module)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return around(original, args, kwargs)

    own = attributes.get(method)
    attributes[method] = wrapped
    undo.callback(lambda: attributes.pop(method) if own is None else attributes.update({method: own}))


def _storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage_key(storage): storage.nbytes() for storage in storages}.values())
