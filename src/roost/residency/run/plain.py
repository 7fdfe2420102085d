"""A pipeline as diffusers alone runs it: what trials compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch

from roost.blocks import ALIGNMENT
from roost.facts.stage import stage_of
from roost.pipelines.attention import set_backend
from roost.pipelines.classes import pipeline_class
from roost.pipelines.entries import wrap_entries
from roost.pipelines.quiet import quiet_libraries
from roost.pipelines.step_caches import set_cache
from roost.plan import PlanDocument
from roost.residency.device.interface import Device
from roost.residency.engine.rerun import out_of_memory_in
from roost.residency.engine.stages import OnEvent, StageRecorder
from roost.residency.run.loader import OnComponent, Source, assemble
from roost.residency.weights.census import named_tensors

# Given a pipeline in host memory and the device to compute on, makes diffusers run it there in some way of its own.
Place = Callable[[Any, torch.device], None]


def move_whole(pipeline: Any, device: torch.device) -> None:
    """Diffusers without any offload: everything on the device."""
    pipeline.to(device)


class PlainPipeline:
    """A diffusers pipeline without Roost; only the entries of its components are timed."""

    def __init__(self, pipeline: Any, plan: PlanDocument, device: Device, on_event: OnEvent | None) -> None:
        self.pipeline, self.device = pipeline, device
        self.recorder = StageRecorder(device, on_event, {name: each.kind for name, each in plan.components.items()})
        self._plans = plan.components
        self.around_calls: Callable[[], AbstractContextManager[object]] = nullcontext  # each outermost call's own work
        self._depth = 0
        self._undo = ExitStack()
        self.watch()

    def watch(self) -> None:
        """Puts the timing on, anew for each generation: diffusers' model offload ends one by taking forwards back."""
        self._undo.close()
        for name in self._plans:
            self._undo.callback(wrap_entries(getattr(self.pipeline, name), self._around(name)))

    def close(self) -> None:
        """Takes the timing off."""
        self._undo.close()

    def _around(self, component: str) -> Callable[..., Any]:
        def around(method: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self._depth:  # a component calling another, or itself
                return call(*args, **kwargs)
            self._enter(component, method)
            self._depth += 1
            try:
                with self.around_calls():
                    return call(*args, **kwargs)
            finally:
                self._depth -= 1

        return around

    def _enter(self, component: str, method: str) -> None:
        stage = stage_of(component, self._plans[component].kind, method)
        if not self.recorder.is_open(stage):
            self.recorder.begin(stage)
            self.device.reset_peak()


def load_plain(
    plan: PlanDocument,
    model_dir: Path,
    device: Device,
    on_component: OnComponent | None = None,
    source: Source | None = None,
) -> Any:
    """The plan's pipeline from ``model_dir`` in host memory, with its dtypes and none of its placements.

    ``source`` says where components come from. Raises InvalidFile for a directory that can't be loaded.
    """
    source = source or Source()
    modules: dict[str, torch.nn.Module] = {}
    with quiet_libraries():
        for name in plan.load_order:
            if on_component is not None:
                on_component(name)
            modules[name] = source.load(name, plan.components[name], model_dir)
            if device.kind == "emulated":
                _align(modules[name])
            if plan.attention is not None and plan.components[name].kind == "dit":
                set_backend(modules[name], plan.attention)
        pipeline = assemble(pipeline_class(plan.model.pipeline), model_dir, modules)
        for name, module in modules.items():
            if plan.cache is not None and plan.components[name].kind == "dit":
                set_cache(module, plan.cache, pipeline)
    return pipeline


def place_plain(
    pipeline: Any, plan: PlanDocument, device: Device, place: Place, on_event: OnEvent | None = None
) -> PlainPipeline:
    """The pipeline as diffusers runs it on ``device``; raises OutOfMemory when ``place`` runs out of it."""
    with quiet_libraries(), out_of_memory_in("placing the pipeline", device):
        place(pipeline, device.device)
        if device.kind == "emulated" and place is move_whole:
            # The weights lie in host memory; untouched memory of their size stands for them in the budget.
            device.allocate(_weight_bytes(getattr(pipeline, name) for name in plan.load_order))
    return PlainPipeline(pipeline, plan, device, on_event)


def _weight_bytes(modules: Iterable[torch.nn.Module]) -> int:
    tensors = {each.data_ptr(): each.nbytes for module in modules for _, each in named_tensors(module)}
    return sum(tensors.values())


def _align(module: torch.nn.Module) -> None:
    """Copies weights out of the mapped file: where they lie there unaligned, kernels of the CPU round differently."""
    copies: dict[int, torch.Tensor] = {}
    for _, tensor in named_tensors(module):
        if tensor.data_ptr() % ALIGNMENT == 0:
            continue
        if tensor.data_ptr() not in copies:
            copies[tensor.data_ptr()] = tensor.detach().clone()
        copy = copies[tensor.data_ptr()]
        tensor.data = copy if copy.shape == tensor.shape else tensor.detach().clone()
