"""Intercepts every component entry of a pipeline: traces each kind of call once, and writes down their order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from roost.pipelines.entries import wrap_entries
from roost.probes.dry_run.entry_calls import EntryCall, TracedComponent
from roost.probes.dry_run.one_use import TracedUse, trace_use
from roost.probes.dry_run.world import FakeWorld
from roost.trace import UseTrace, VaeSetting, VaeVariant

# A call whose inputs' values matter (masks, token ids) is traced anew for other values, this often, and then no more.
_MAX_VALUES = 8
_SWITCHES: dict[VaeSetting, str] = {"tiled": "tiling", "sliced": "slicing"}


class UseLog:
    """What a pipeline used: distinct ``uses``, their run-length ``sequence``, and the VAE's ``variants``."""

    def __init__(self, world: FakeWorld, *, replaying: bool = True) -> None:
        self.uses: list[UseTrace] = []
        self.sequence: list[tuple[int, int]] = []
        self.variants: list[VaeVariant] = []
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
            known[values] = trace_use(call, self._world, replaying=self._replaying)
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
        """The use again with tiling, and with slicing, where the module has them and they are off."""
        module: Any = call.component.module
        for setting, switch in _SWITCHES.items():
            if getattr(module, f"use_{switch}", True):
                continue
            if setting == "sliced" and all(each.shape[:1] == (1,) for each in call.inputs()):
                yield VaeVariant(use=index, setting=setting, trace=self.uses[index])  # slices are single samples
                continue
            getattr(module, f"enable_{switch}")()
            try:
                use = trace_use(call, self._world, replaying=self._replaying).use
            finally:
                getattr(module, f"disable_{switch}")()
            yield VaeVariant(use=index, setting=setting, trace=use)
