"""Recording a run: its measured timeline beside the predicted one, as a trace for Perfetto."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from roost.api.plans.timeline import replay_plan
from roost.api.requests.request import workload_text
from roost.api.runs.ready import ReadyPlan
from roost.errors import RoostError
from roost.facts.request import Workload
from roost.facts.stage import stage_text
from roost.plan import write_text_atomically
from roost.timeline import TimelineRecord, perfetto_document

if TYPE_CHECKING:
    from roost.residency.hold.attach import Held
    from roost.residency.run.recording import Recording


@contextmanager
def recorded(ready: ReadyPlan, held: Held, workload: Workload, path: Path | None) -> Iterator[None]:
    """Records what ``held`` does inside the context into the file at ``path``, also when it ends with an exception.

    Nothing is recorded without a path. Raises UsageError for a place that can't hold the file.
    """
    if path is None:
        yield
        return
    from roost.residency.run.recording import Recording  # imported here: it brings torch

    recording = Recording(held)
    try:
        with recording:
            yield
    except BaseException:
        with suppress(Exception):  # what went wrong first is what must be told
            _write(path, ready, recording, workload)
        raise
    _write(path, ready, recording, workload)


def _write(path: Path, ready: ReadyPlan, recording: Recording, workload: Workload) -> None:
    slices, passes, memory = recording.read()
    plan = ready.plan
    kinds = {name: each.kind for name, each in plan.components.items()}
    gpu = plan.machine.gpu.name if ready.device_kind == "cuda" else "the emulated GPU (the CPU)"
    measured = TimelineRecord(
        kind="measured",
        model=plan.model.family or plan.model.pipeline,
        workload=workload_text(workload) + ("" if recording.complete else ", its beginning only"),
        device=gpu,
        budget_bytes=ready.budget_bytes,
        slices=slices,
        passes=passes,
        memory=memory,
        stage_texts={
            each: stage_text(each.phase, each.component, kinds=kinds) for one in passes for each in one.stages
        },
    )
    document = perfetto_document([measured, *_predicted(ready)])
    write_text_atomically(path, json.dumps(document, separators=(",", ":")))


def _predicted(ready: ReadyPlan) -> Iterator[TimelineRecord]:
    """The plan's own timeline, where its trace is kept: a run does not wait for a dry run."""
    with suppress(RoostError):
        yield replay_plan(ready.plan, str(ready.model_dir), only_kept=True).record
