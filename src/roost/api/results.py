"""A bench's results read back, whoever wrote them: schema 1, with keys that are not known left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from roost.errors import InvalidFile
from roost.shell import command, shown_path

_MAX_BYTES = 32 * 1024**2
_SHOWN_PROBLEMS = 3

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0, lt=2**63)]


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Steps(_Lenient):
    """Steady steps; None where a candidate never got to them."""

    mean: Seconds | None = None
    sd: Seconds | None = None
    n: Annotated[int, Field(ge=0)] = 0


class Middle(_Lenient):
    """The middle of a predicted interval."""

    mid: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class StageSeconds(_Lenient):
    name: str
    component: str
    seconds: Seconds


class PredictedFigures(_Lenient):
    """``first_s`` is one generation without loading."""

    peak_bytes: Middle
    step_s: Middle
    first_s: Middle | None = None
    stages: tuple[StageSeconds, ...] = ()


class ResultRow(_Lenient):
    """One candidate. ``total_s`` is a whole generation; ``stages`` are those of one trial."""

    name: str | None = None
    strategy: str
    params: dict[str, object] = Field(default_factory=dict)
    status: Literal["ok", "oom", "crashed", "hung", "wrong", "skipped", "eliminated"]
    reason: str | None = None
    load_s: Seconds | None = None
    step_s: Steps = Steps()
    total_s: Seconds | None = None
    peak_bytes: Bytes | None = None
    host_peak_bytes: Bytes | None = None
    predicted: PredictedFigures | None = None
    stages: tuple[StageSeconds, ...] = ()

    @property
    def title(self) -> str:
        """The candidate's name, or its strategy with the parameters."""
        return self.name or " ".join([self.strategy, *(f"{key}={value}" for key, value in self.params.items())])


class ResultWorkload(_Lenient):
    width: int
    height: int
    frames: int | None = None
    steps: Annotated[int, Field(ge=1)]
    batch: int = 1
    strength: Annotated[float, Field(gt=0, le=1)] | None = None

    @property
    def steps_run(self) -> int:
        """As ``facts.Workload`` has it."""
        return max(1, self.steps if self.strength is None else int(self.steps * self.strength))


class ResultGpu(_Lenient):
    name: str


class ResultMachine(_Lenient):
    gpu: ResultGpu
    budget_bytes: Bytes | None = None


class ResultStanding(_Lenient):
    """What the race made of a candidate; ``ratio`` is its time over the winner's, with one standard error."""

    name: str
    ratio: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    ratio_error: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class Results(_Lenient):
    """A whole bench. ``trial_steps`` of the workload's steps were measured; None when all were."""

    schema_version: Literal[1] = Field(alias="schema")
    model: str
    workload: ResultWorkload
    machine: ResultMachine
    device_kind: Literal["cuda", "emulated"]
    candidates: tuple[ResultRow, ...]
    winner: str | None
    trial_steps: Annotated[int, Field(ge=1)] | None = None
    standings: tuple[ResultStanding, ...] = ()
    warnings: tuple[str, ...] = ()


def read_results(path: Path) -> Results:
    """The results in the file at ``path``; raises InvalidFile, in one line, for anything else."""
    try:
        if not path.is_file():
            raise InvalidFile(f"results {shown_path(path)} are not a file; make one with: {_benching(path)}")
        with path.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidFile(f"results {shown_path(path)} can't be read: {reason}; check the path.") from None
    if len(raw) > _MAX_BYTES:
        raise _invalid(path, "they are larger than 32 MiB")
    try:
        return Results.model_validate(json.loads(raw.decode("utf-8")))
    except ValidationError as error:
        raise _invalid(path, _problems(error)) from None
    except (ValueError, RecursionError) as error:
        problem = "it nests too deeply" if isinstance(error, RecursionError) else f"it is not JSON ({error})"
        raise _invalid(path, problem) from None


def _invalid(path: Path, problem: str) -> InvalidFile:
    line = " ".join(problem.split())[:400]
    return InvalidFile(f"results {shown_path(path)} are not valid: {line}; measure again with: {_benching(path)}")


def _benching(path: Path) -> str:
    return command("roost", "bench", "MODEL", "-o", path)


def _problems(error: ValidationError) -> str:
    shown = [f"{'.'.join(map(str, each['loc'])) or 'all of it'}: {each['msg']}" for each in error.errors()]
    more = len(shown) - _SHOWN_PROBLEMS
    return "; ".join(shown[:_SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
