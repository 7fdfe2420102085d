"""What goes to a worker for one request, and what comes back, as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from roost.fleet.answers import Answer, Asked
from roost.fleet.codec import packed, unpacked
from roost.pipelines.calls import GenerationRequest
from roost.residency.engine.stages import StageRecord
from roost.residency.run.kept.files import KeptStage

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A request as it stands: what to generate, the ``answers`` to its calls so far, and the latents that it has.

    ``latents`` is the content of a kept file of the generation ``key``, which people know as ``shown``. ``through`` has
    components elsewhere called from where the request is. ``outputs`` are the names of its files, None for none.
    """

    call: GenerationRequest
    key: str
    shown: str
    outputs: Sequence[str | None]
    answers: Sequence[Answer] = ()
    latents: bytes = b""
    through: bool = False

    def pack(self) -> bytes:
        return packed({**_fields(self), "call": _fields(self.call), "answers": _packed_answers(self.answers)})

    @classmethod
    def unpack(cls, raw: bytes) -> Task:
        found = unpacked(raw, _CPU)
        call = GenerationRequest(**found["call"])
        return cls(**{**found, "call": call, "answers": _unpacked_answers(found["answers"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Onward:
    """The request goes on where ``component`` is, of VAEs one that ``decodes`` where it is to.

    With ``through`` it needs that in the middle of what it denoises, and must call it from where it is.
    """

    component: str
    decodes: bool
    through: bool
    answers: Sequence[Answer]
    latents: bytes
    stages: Sequence[StageRecord]
    nan_components: Sequence[str]

    def pack(self) -> bytes:
        stages = [_fields(each) for each in self.stages]
        return packed({**_fields(self), "answers": _packed_answers(self.answers), "stages": stages})

    @classmethod
    def unpack(cls, raw: bytes) -> Onward:
        found = unpacked(raw, _CPU)
        stages = [StageRecord(**each) for each in found["stages"]]
        return cls(**{**found, "answers": _unpacked_answers(found["answers"]), "stages": stages})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a call that came from another worker gave, as ``Answer`` has it, and what it took here."""

    payload: bytes
    stages: Sequence[StageRecord]
    nan_components: Sequence[str]

    def pack(self) -> bytes:
        return packed({**_fields(self), "stages": [_fields(each) for each in self.stages]})

    @classmethod
    def unpack(cls, raw: bytes) -> Answered:
        found = unpacked(raw, _CPU)
        return cls(**{**found, "stages": [StageRecord(**each) for each in found["stages"]]})


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One output of a request, with the content of its files by name."""

    digest: str
    has_nan: bool
    files: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A request's last visit, of ``seconds``. ``resumed`` is the stage and step that it went on from."""

    parts: Sequence[Part]
    seconds: float
    latent_digest: str | None
    stages: Sequence[StageRecord]
    nan_components: Sequence[str]
    resumed: tuple[KeptStage, int | None] | None

    def pack(self) -> bytes:
        stages = [_fields(each) for each in self.stages]
        return packed({**_fields(self), "parts": [_fields(each) for each in self.parts], "stages": stages})

    @classmethod
    def unpack(cls, raw: bytes) -> Done:
        found = unpacked(raw, _CPU)
        stages, parts = (
            [kind(**each) for each in found[name]] for name, kind in (("stages", StageRecord), ("parts", Part))
        )
        return cls(**{**found, "parts": parts, "stages": stages})


def _fields(record: object) -> dict[str, object]:
    return {each.name: getattr(record, each.name) for each in fields(record)}  # type: ignore[arg-type]


def _packed_answers(answers: Sequence[Answer]) -> list[object]:
    return [[each.asked.part, each.asked.method, each.asked.digest, each.payload] for each in answers]


def _unpacked_answers(found: Sequence[Sequence[Any]]) -> list[Answer]:
    return [
        Answer(Asked(str(part), str(method), str(digest)), bytes(payload)) for part, method, digest, payload in found
    ]
