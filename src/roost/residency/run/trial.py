"""One candidate of a trial, loaded and measured: a plan, or diffusers alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from roost.facts.machine import DeviceKind
from roost.pipelines.calls import GenerationRequest
from roost.pipelines.classes import component_class, pipeline_class
from roost.pipelines.made_up import made_up_inputs
from roost.pipelines.quiet import quiet_libraries
from roost.plan import PlanDocument
from roost.plan.results import StageTime, TrialResult
from roost.residency.device.choice import open_device
from roost.residency.device.interface import Device
from roost.residency.engine.stages import OnEvent, StageRecord, greatest
from roost.residency.hold.attach import Held
from roost.residency.run.generate import Generation, generate, generate_with
from roost.residency.run.loader import OnComponent, Source, load_held
from roost.residency.run.plain import Place, PlainPipeline, load_plain, move_whole, place_plain


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSetup:
    """What a trial loads. With ``place`` diffusers runs the plan's model its own way, without the plan.

    ``link_bytes_per_s`` throttles an emulated device. ``budget_bytes`` None binds nothing but the device itself.
    """

    plan: PlanDocument
    model_dir: Path
    device_kind: DeviceKind
    budget_bytes: int | None
    place: Place | None = None
    link_bytes_per_s: float | None = None
    source: Source = field(default_factory=Source)


class Trial:
    """A loaded candidate; each ``measure`` is one generation. ``load_s`` is what loading took, imports left out.

    Of a plan with turns there is one generation, and no warm-up. Seconds in which its masters come late are in their
    stages alone, as a later generation of other plans has none; what it peaks at on an emulated device is unknown.
    """

    def __init__(self, subject: Held | PlainPipeline, device: Device, load_s: float, *, whole: bool = False) -> None:
        self.load_s = load_s
        self._whole, self._warmed = whole, False
        self._subject, self._device = subject, device
        self._warm_reserved_bytes = 0
        self._first_peaks: dict[tuple[str, str], int] | None = None  # of the first generation's stages
        self._runner = subject.runtime if isinstance(subject, Held) else subject
        self._runner.around_calls = nullcontext
        if isinstance(subject, Held):
            subject.runtime.tile = None  # its bits are compared: where memory runs out, the trial is over

    def warm_up(self, request: GenerationRequest) -> None:
        """A generation that isn't timed. On an emulated device activations count in this one only: that takes time."""
        runner = self._runner
        runner.around_calls = self._device.counting_activations
        try:
            generation = self._generate(_with_inputs(request, self._subject.pipeline))
        finally:
            runner.around_calls = nullcontext
        self._warmed = True
        self._note_first(generation)
        self._warm_reserved_bytes = greatest(*(each.reserved_bytes for each in generation.stages)) or 0

    def measure(self, request: GenerationRequest) -> TrialResult:
        """What one generation took; raises what ``generate`` does."""
        held = self._subject if isinstance(self._subject, Held) else None
        copied_bytes = held.transfers.uploaded_bytes if held else 0
        if held:
            self._device.watch_stalls()
        generation = self._generate(_with_inputs(request, self._subject.pipeline))
        self._note_first(generation)
        reserved_bytes = greatest(*(each.reserved_bytes for each in generation.stages))
        return TrialResult(
            status="ok",
            load_s=self.load_s,
            generation_s=generation.seconds - (held.runtime.host_turns.late_s if held else 0.0),
            step_seconds=generation.step_seconds,
            stages=self._with_first_peaks(generation.stages),
            digest=generation.digest,
            peak_bytes=self._known(max((self._first_peaks or {}).values(), default=0)),
            later_peak_bytes=None if self._device.kind == "emulated" else generation.peak_bytes,
            reserved_bytes=None if reserved_bytes is None else max(reserved_bytes, self._warm_reserved_bytes),
            pinned_bytes=held.transfers.pinned_bytes if held else None,
            bytes_copied=held.transfers.uploaded_bytes - copied_bytes if held else None,
            stall_s=self._device.stall_s if held else None,
            demotions=held.demotions if held else {},
        )

    def _generate(self, request: GenerationRequest) -> Generation:
        if isinstance(self._subject, Held):
            return generate(self._subject, request)
        plain = self._subject
        plain.watch()
        return generate_with(plain.pipeline, plain.recorder, plain.device, plain.recorder.finish, request)

    def _note_first(self, generation: Generation) -> None:
        if self._first_peaks is None:
            self._first_peaks = {(each.component, each.phase): each.peak_bytes for each in generation.stages}

    def _with_first_peaks(self, stages: tuple[StageRecord, ...]) -> tuple[StageTime, ...]:
        first = self._first_peaks or {}
        uncounted = self._device.kind == "emulated" and isinstance(self._subject, Held) and not self._warmed
        return tuple(
            StageTime(
                name=each.name,
                component=each.component,
                phase=each.phase,
                seconds=each.seconds,
                peak_bytes=None if uncounted else first.get((each.component, each.phase), each.peak_bytes),
            )
            for each in stages
        )

    def _known(self, peak_bytes: int) -> int | None:
        # Where diffusers keeps its weights, an emulated device knows only of those that stay on it.
        if self._device.kind != "emulated":
            return peak_bytes
        known = self._warmed if isinstance(self._subject, Held) else self._whole
        return peak_bytes if known else None


@contextmanager
def open_trial(
    setup: TrialSetup, on_component: OnComponent | None = None, on_event: OnEvent | None = None
) -> Iterator[Trial]:
    """The loaded candidate; raises what loading raises."""
    with ExitStack() as afterwards:
        budget_bytes = 2**62 if setup.budget_bytes is None else setup.budget_bytes
        headroom_bytes = setup.plan.budget.headroom_bytes
        device = afterwards.enter_context(
            open_device(setup.device_kind, budget_bytes, headroom_bytes, setup.link_bytes_per_s)
        )
        _import_classes(setup.plan)
        began_s = time.perf_counter()
        if setup.place is None:
            held = load_held(setup.plan, setup.model_dir, device, on_component, on_event, setup.source)
            afterwards.callback(held.abandon)  # the process ends with the trial: nothing has to come back
            yield Trial(held, device, time.perf_counter() - began_s)
            return
        pipeline = load_plain(setup.plan, setup.model_dir, device, on_component, setup.source)
        plain = place_plain(pipeline, setup.plan, device, setup.place, on_event)
        afterwards.callback(plain.close)
        device.synchronize()
        yield Trial(plain, device, time.perf_counter() - began_s, whole=setup.place is move_whole)


def _import_classes(plan: PlanDocument) -> None:
    """Has the libraries import what the pipeline needs: that takes seconds, once, and is no loading of weights."""
    with quiet_libraries():
        pipeline_class(plan.model.pipeline)
        for each in plan.components.values():
            component_class(each.library, each.class_name)


def _with_inputs(request: GenerationRequest, pipeline: object) -> GenerationRequest:
    """The request with made-up pictures and videos, where the pipeline takes some."""
    if request.width is None or request.height is None:
        return request
    made_up = made_up_inputs(type(pipeline), request.width, request.height, request.frames)
    return replace(request, more={**request.more, **made_up})
