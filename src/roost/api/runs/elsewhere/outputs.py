"""A call's outputs on their way: as what their files hold where they were made, and saved where the run's books are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from roost.api.measurements.run_records import GenerationRecord, ResumedRecord
from roost.api.requests.request import PlannedCall, PlannedGeneration
from roost.api.runs.finished import save_generation
from roost.api.runs.kept import Books
from roost.api.runs.made import parts_of
from roost.api.runs.ready import ReadyPlan
from roost.errors import RoostError
from roost.plan import write_bytes_atomically
from roost.temporary import temporary_folder

if TYPE_CHECKING:
    from roost.fleet.tasks import Done
    from roost.pipelines.calls import GenerationRequest
    from roost.residency.run.generate import Generation
    from roost.residency.run.kept.keeper import Resumed


def done_of(
    ready: ReadyPlan,
    call: GenerationRequest,
    wanted: PlannedCall,
    generation: Generation,
    resumed: Resumed | None = None,
) -> Done:
    """What is sent of a call: its outputs, each saved as its process would save it under its name, and its figures."""
    from roost.fleet.tasks import Done, Part  # imported here: it brings torch

    parts = []
    with temporary_folder() as folder:
        for each, part in zip(wanted, parts_of(generation, wanted, ready.plan.model.pipeline), strict=True):
            own = replace(call, prompt=each.prompt, seed=each.seed)
            path = None if each.output is None else folder / each.output.name
            saved = map(Path, save_generation(ready, own, part, path))
            files = [(found.name, found.read_bytes()) for found in saved]
            parts.append(Part(digest=part.digest, has_nan=part.has_nan, files=files))
    return Done(
        parts=parts,
        seconds=generation.seconds,
        latent_digest=generation.latent_digest,
        stages=generation.stages,
        nan_components=generation.nan_components,
        resumed=None if resumed is None else (resumed.stage, resumed.step),
    )


def save_done(
    books: Books, wanted: PlannedCall, done: Done, resumed: ResumedRecord | None = None
) -> dict[PlannedGeneration, GenerationRecord]:
    """Saves and notes those of a call's outputs that are not there yet; their records."""
    records: dict[PlannedGeneration, GenerationRecord] = {}
    for each, part in zip(wanted, done.parts, strict=True):
        if each in books.there:
            continue
        records[each] = GenerationRecord(
            prompt=each.prompt,
            seed=each.seed,
            output=[saved_file(each, name, content) for name, content in part.files],
            digest=part.digest,
            latent_digest=done.latent_digest,
            seconds=done.seconds / len(wanted),
            # Stages are the call's: where several records share one, the first has them.
            stages=() if records else tuple(done.stages),
            peak_bytes=max((stage.peak_bytes for stage in done.stages), default=0),
            skipped=False,
            has_nan=part.has_nan,
            nan_components=tuple(done.nan_components),
            resumed_from=None if records else resumed,
            batch_of=each.batch_of,
        )
        books.note(each, records[each])
    books.kept.finished(wanted[0])
    return records


def saved_file(wanted: PlannedGeneration, name: str, content: bytes) -> str:
    """Writes one file of an output where it was asked for; RoostError for a name that no output has."""
    assert wanted.output is not None, "what has no output has no files"
    output, path = wanted.output, wanted.output.with_name(Path(name).name)
    if path.suffix != output.suffix or not re.fullmatch(re.escape(output.stem) + r"(-\d+)?", path.stem):
        raise RoostError(f"a worker sent the file {name!r} for {output.name!r}; it is not written.")
    write_bytes_atomically(path, content)
    return str(path)
