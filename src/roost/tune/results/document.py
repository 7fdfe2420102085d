"""A bench's results as the JSON object that other people's scripts rely on: written, and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from roost.errors import InvalidFile
from roost.facts.limits import Bytes
from roost.plan.earlier import FROM_FILE
from roost.plan.results import ResultRow, Shortage, Standing, Steps, TrialResult
from roost.shell_quoting import command, shown_path
from roost.tune.results.disturbances import timing_warnings
from roost.tune.results.records import BenchResults, Row

_MAX_BYTES = 32 * 1024**2
_SHOWN_PROBLEMS = 3


def results_document(results: BenchResults) -> dict[str, object]:
    """Schema 1: bytes as integers, seconds as floats, null for unknown."""
    machine = results.machine
    return {
        "schema": 1,
        "model": results.model,
        "workload": asdict(results.workload),
        "machine": {**asdict(machine), "budget_bytes": machine.budget_bytes},
        "device_kind": results.device_kind,
        "trial_steps": results.trial_steps,
        "candidates": [row_document(row) for row in results.rows],
        "winner": results.winner,
        "reference": results.reference,
        "standings": [asdict(each) for each in results.standings],
        "samples": {name: [list(each) for each in rounds] for name, rounds in results.samples.items()},
        "shortage": None if results.shortage is None else asdict(results.shortage),
        "versions": dict(results.versions),
        "warnings": [*results.notes, *timing_warnings(results.samples)],
    }


def row_document(row: Row) -> dict[str, Any]:
    """One candidate as JSON; a line of the journal is the same of one trial, and a few keys more."""
    candidate, result = row.candidate, row.result
    record = ResultRow(
        **{each.name: getattr(result, each.name) for each in fields(TrialResult)},
        name=candidate.name,
        strategy=candidate.strategy,
        params=dict(candidate.params),
        rounds=row.rounds,
        step_s=Steps.of(result.step_seconds),
    )
    predicted = None if candidate.predicted is None else candidate.predicted.model_dump(mode="json")
    return {**_rows().dump_python(record, mode="json"), "predicted": predicted}


def result_of(document: Mapping[str, Any]) -> TrialResult | None:
    """The trial that a journal line records; None for one that no version wrote. Keys of newer ones are left out."""
    try:
        return _trials().validate_python(document, context=FROM_FILE)
    except ValidationError:
        return None


@cache
def _rows() -> TypeAdapter[ResultRow]:
    return TypeAdapter(ResultRow)


@cache
def _trials() -> TypeAdapter[TrialResult]:
    return TypeAdapter(TrialResult)


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


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


class Results(_Lenient):
    """A bench's results read back, whoever wrote them; keys that are not known are left out.

    ``trial_steps`` of the workload's steps were measured; None when all were.
    """

    schema_version: Literal[1] = Field(alias="schema")
    model: str
    workload: ResultWorkload
    machine: ResultMachine
    device_kind: Literal["cuda", "emulated"]
    candidates: tuple[ResultRow, ...]
    winner: str | None
    trial_steps: Annotated[int, Field(ge=1)] | None = None
    standings: tuple[Standing, ...] = ()
    shortage: Shortage | None = None
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
        return Results.model_validate(json.loads(raw.decode("utf-8")), context=FROM_FILE)
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
