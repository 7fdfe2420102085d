"""What a run made: a call's outputs one by one, their records, and the record of the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from roost.api.measurements.run_records import (
    GenerationRecord,
    LoraRecord,
    RehearsedRecord,
    ResumedRecord,
    RunRecord,
    TextsRecord,
    joined_digest,
    summed_stages,
)
from roost.api.requests.request import PlannedCall, PlannedGeneration
from roost.api.runs.call import CheckedCall
from roost.api.runs.ready import ReadyPlan
from roost.errors import RoostError
from roost.facts.step_cache import StepCache
from roost.option_spelling import option

if TYPE_CHECKING:
    from roost.residency.engine.stages import StageRecord
    from roost.residency.run.generate import Generation
    from roost.residency.run.loras import AppliedLora


@dataclass(slots=True)
class Made:
    """What was generated, and what beside the generations themselves is to be recorded.

    ``passed_s`` is the time in which all of it was made, where several were at once.
    """

    records: dict[PlannedGeneration, GenerationRecord] = field(default_factory=dict)
    load_s: float = 0.0
    passed_s: float | None = None
    texts: TextsRecord | None = None
    text_stages: tuple[StageRecord, ...] = ()
    disturbances: tuple[str, ...] = ()
    changes: list[str] = field(default_factory=list)
    demotions: dict[str, dict[str, object]] = field(default_factory=dict)
    loras: list[AppliedLora] = field(default_factory=list)
    latents: list[str] = field(default_factory=list)
    rehearsed: list[RehearsedRecord] = field(default_factory=list)

    @property
    def tiled(self) -> list[str]:
        """The components that decoded in tiles though the plan had them whole."""
        return [name for name, fields in self.demotions.items() if fields.get("tiling")]


def parts_of(generation: Generation, wanted: PlannedCall, pipeline: str) -> Sequence[Generation]:
    """What each of the ``wanted`` has of their call: of several one output each, with its own digest.

    Raises RoostError where the ``pipeline`` made another number.
    """
    from roost.residency.engine.nan_outputs import has_nan  # imported here: these bring torch
    from roost.residency.run.generate import tensor_digest

    if len(wanted) == 1:
        return (generation,)
    if len(generation.output) != len(wanted):
        raise RoostError(
            f"{pipeline} made {len(generation.output)} outputs of {len(wanted)} prompts; leave {option('batch')} out."
        )
    outputs = [generation.output[index : index + 1] for index in range(len(wanted))]
    return [
        replace(
            generation,
            output=each,
            digest=tensor_digest(each),
            has_nan=has_nan(each),
            seconds=generation.seconds / len(wanted),
        )
        for each in outputs
    ]


def generation_record(
    wanted: PlannedGeneration,
    made: Generation,
    saved: list[str],
    stages: tuple[StageRecord, ...],
    resumed: ResumedRecord | None,
) -> GenerationRecord:
    return GenerationRecord(
        prompt=wanted.prompt,
        seed=wanted.seed,
        output=saved,
        digest=made.digest,
        latent_digest=made.latent_digest,
        seconds=made.seconds,
        stages=stages,
        peak_bytes=made.peak_bytes,
        skipped=False,
        has_nan=made.has_nan,
        nan_components=made.nan_components,
        resumed_from=resumed,
        batch_of=wanted.batch_of,
    )


def record_of(ready: ReadyPlan, checked: CheckedCall, generations: list[GenerationRecord], made: Made) -> RunRecord:
    """The run's record, of ``generations`` that it made or found."""
    digest = joined_digest([each.digest for each in generations])
    assert digest is not None, "a run makes one generation at least, and each has a digest"
    stages = [*made.text_stages, *(stage for each in generations for stage in each.stages)]
    text_s = made.texts.seconds if made.texts is not None else 0.0
    return RunRecord(
        output=[path for each in generations for path in each.output],
        digest=digest,
        latent_digest=joined_digest([each.latent_digest for each in generations]),
        device_kind=ready.device_kind,
        attention=ready.plan.attention,
        cache=ready.plan.cache,
        tiling=tuple(name for name, each in ready.plan.components.items() if each.tiling or name in made.tiled),
        load_s=made.load_s,
        seconds=text_s + sum(each.call_s or 0.0 for each in generations) if made.passed_s is None else made.passed_s,
        stages=tuple(stages) if len(generations) == 1 else summed_stages(stages),
        peak_bytes=max((each.peak_bytes for each in stages), default=0),
        changes=[*ready.changes, *made.changes],
        disturbances=made.disturbances,
        generations=tuple(generations),
        texts=made.texts,
        pictures=checked.pictures,
        loras=tuple(
            LoraRecord(
                path=str(each.file.path),
                sha256=each.file.sha256,
                scale=each.file.scale,
                components=each.components,
                beside=each.beside,
                adapter=each.adapter if each.beside else None,
            )
            for each in made.loras
        ),
        warnings=(
            *_cache_warnings(ready.plan.cache),
            *_tiled_warnings(made.tiled),
            *_nan_warnings(generations),
            *group_warnings(generations),
        ),
        latents=made.latents,
        resumed_from=next((each.resumed_from for each in generations if each.resumed_from is not None), None),
        rehearsed=tuple(made.rehearsed),
    )


def _cache_warnings(cache: StepCache | None) -> Iterator[str]:
    if cache is not None:
        yield f"made with {option('cache', cache.text)}: steps skipped {cache.skips}, which changes what is generated."


def _tiled_warnings(tiled: Sequence[str]) -> Iterator[str]:
    if tiled:
        yield (
            f"memory ran out, so {', '.join(tiled)} decoded in tiles: the output's bits are not those of an untiled"
            f" decode; {option('forbid', 'tiling')} for the plan stops there instead."
        )


def _nan_warnings(generations: Sequence[GenerationRecord]) -> Iterator[str]:
    for each in generations:
        gave = ", ".join(each.nan_components)
        found = [*(["the result contains NaN"] if each.has_nan else []), *([f"{gave} gave NaN"] if gave else [])]
        if found:
            yield (
                f"seed {each.seed}: {' and '.join(found)}; plan with another --dtype, such as bf16 or fp32, or check "
                "the model's weights."
            )


def group_warnings(generations: Iterable[GenerationRecord | PlannedGeneration]) -> Iterator[str]:
    """That outputs have other bits than they would alone, where calls were shared."""
    size = max(each.batch_of for each in generations)
    if size > 1:
        yield f"prompts run in groups of {size}: kernels differ by batch, so bits differ from single runs"
