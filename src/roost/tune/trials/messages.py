"""What a bench and a trial's process say to each other: one request, then messages of one line each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from roost.facts.machine import DeviceKind
from roost.plan import PlanDocument
from roost.plan.results import Status, TrialResult


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRequest:
    """What a trial loads, and the generation that it measures for each line on its stdin.

    ``call`` are the fields of ``GenerationRequest``, of which ``warm_up_steps`` steps run ahead, untimed; None runs
    nothing ahead. ``peer`` is diffusers' mode in place of the plan. ``budget_bytes`` and ``host_bytes`` None bind
    nothing but the machine itself.
    """

    plan: PlanDocument
    peer: str | None
    model_dir: Path
    device_kind: DeviceKind
    budget_bytes: int | None
    host_bytes: int | None
    link_bytes_per_s: float | None
    random_weights: bool
    call: Mapping[str, Any]
    warm_up_steps: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """It lives."""

    what: Literal["beat"] = "beat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What it does now, in words."""

    phase: str
    what: Literal["phase"] = "phase"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTook:
    """What a step took, by the host's clock; exact times come with the result."""

    seconds: float
    what: Literal["step"] = "step"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """It is ready to measure."""

    load_s: float
    what: Literal["loaded"] = "loaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One generation is over: the figures of a trial that ran to its end, whatever it says of memory."""

    result: TrialResult
    what: Literal["result"] = "result"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """It ends without a result."""

    status: Status
    reason: str
    what: Literal["failed"] = "failed"


Message = Beat | Phase | StepTook | Loaded | Timed | Failed
Answer = Loaded | Timed


def encode(message: Message) -> bytes:
    """The message's line."""
    return _messages().dump_json(message) + b"\n"


def decode(line: bytes) -> Message:
    """The message of a line; ValueError for anything else."""
    return _messages().validate_json(line)


def encode_request(request: TrialRequest) -> bytes:
    """The request as the text that the process gets."""
    return _requests().dump_json(request, by_alias=True)


def decode_request(text: bytes) -> TrialRequest:
    """The request of a text; ValueError for anything else."""
    return _requests().validate_json(text)


@cache
def _messages() -> TypeAdapter[Message]:
    return TypeAdapter(Annotated[Message, Field(discriminator="what")])


@cache
def _requests() -> TypeAdapter[TrialRequest]:
    return TypeAdapter(TrialRequest)
