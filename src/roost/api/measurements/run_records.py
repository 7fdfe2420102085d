"""What a run did, in the words of ``roost run --json``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from roost.api.requests.inputs import InputRecord
from roost.facts.machine import DeviceKind
from roost.facts.step_cache import StepCache

if TYPE_CHECKING:
    from roost.facts.stage import Phase
    from roost.residency.engine.stages import StageRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumedRecord:
    """What a generation went on from: after which of its steps; None where the pipeline doesn't count them."""

    output: str
    stage: Literal["decode", "denoise"]
    step: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRecord:
    """One generation. One that an earlier run had finished is ``skipped``: only its digests are known.

    ``batch_of`` generations shared its call. Of several, ``seconds`` is its share, ``latent_digest`` is of all that was
    decoded, and the first that was saved has the call's ``stages``.
    """

    prompt: str
    seed: int
    output: list[str]
    digest: str
    latent_digest: str | None
    seconds: float | None
    stages: tuple[StageRecord, ...]
    peak_bytes: int | None
    skipped: bool
    has_nan: bool = False  # what was generated
    nan_components: tuple[str, ...] = ()  # the denoisers and VAEs that gave it
    resumed_from: ResumedRecord | None = None
    batch_of: int = 1

    @property
    def call_s(self) -> float | None:
        """Seconds of the call that made it; None where an earlier run or another record has them."""
        if self.skipped or self.seconds is None or (self.batch_of > 1 and not self.stages):
            return None
        return self.seconds * self.batch_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TextsRecord:
    """Whether the texts of several generations were encoded before the first one, how long that took, or why not."""

    encoded_ahead: bool
    seconds: float
    why_not: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsedRecord:
    """A stage that was tried with made-up inputs before the first generation: its peaks, without process's context."""

    stage: str
    predicted_bytes: int
    measured_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraRecord:
    """A LoRA, and the components that it went into; ``beside`` which of them it was computed, as which ``adapter``."""

    path: str
    sha256: str
    scale: float
    components: tuple[str, ...]
    beside: tuple[str, ...] = ()
    adapter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRunRecord:
    """What one worker of a fleet did. ``files_read`` are those of the model that it opened, relative to it; the peaks
    are of its device, and of its process in host memory; ``requests`` counts the visits that it served."""

    name: str
    host: str
    role: str
    components: tuple[str, ...]
    files_read: tuple[str, ...]
    peak_bytes: int
    host_peak_bytes: int
    requests: int
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What one run did; its fields are what ``roost run --json`` prints.

    ``digest`` and ``latent_digest`` are those of the one generation, or one hash over those of all. ``seconds`` and
    ``stages`` add up what this run did, texts included, without the load. ``texts`` is None where a single generation
    was made. ``disturbances`` are what slowed the GPU down meanwhile, ``warnings`` what to think of the result.
    ``attention`` is the denoiser's backend, None for the library's default, ``cache`` its cache over steps, which
    changes what is generated, ``tiling`` the components that decode in tiles. ``compared`` has the plan's prediction
    beside what was measured; None for a plan without one, and where nothing was made. Stages are the runtime's
    ``StageRecord``. ``latents`` are kept files of unfinished work that are still there, ``resumed_from`` what the first
    generation that didn't begin at its start went on from, ``rehearsed`` the stages that were tried before. ``workers``
    are a fleet's. Of a fleet, and of ranks that each make their own, ``seconds`` are those that passed; of such ranks
    ``texts`` are the first's.
    """

    schema: int = 1
    output: list[str]
    digest: str
    latent_digest: str | None
    device_kind: DeviceKind
    load_s: float
    seconds: float
    stages: tuple[StageRecord, ...]
    peak_bytes: int
    changes: list[str]
    disturbances: tuple[str, ...]
    generations: tuple[GenerationRecord, ...]
    texts: TextsRecord | None
    pictures: tuple[InputRecord, ...]
    loras: tuple[LoraRecord, ...]
    attention: str | None = None
    cache: StepCache | None = None
    tiling: tuple[str, ...] = ()
    compared: dict[str, object] | None = None
    warnings: tuple[str, ...] = ()
    latents: list[str] = field(default_factory=list)
    resumed_from: ResumedRecord | None = None
    rehearsed: tuple[RehearsedRecord, ...] = ()
    workers: tuple[WorkerRunRecord, ...] = ()


def joined_digest(digests: Sequence[str | None]) -> str | None:
    """The digest of one, one hash over several in their order, None when one is unknown."""
    known = [each for each in digests if each is not None]
    if not known or len(known) < len(digests):
        return None
    return known[0] if len(known) == 1 else hashlib.sha256("|".join(known).encode()).hexdigest()


def summed_stages(stages: Iterable[StageRecord]) -> tuple[StageRecord, ...]:
    """One record for each stage and component, in the order of their first: seconds added, the highest peak."""
    summed: dict[tuple[str, Phase], StageRecord] = {}
    for each in stages:
        key = (each.component, each.phase)
        before = summed.get(key)
        summed[key] = each if before is None else before.with_more(each)
    return tuple(summed.values())
