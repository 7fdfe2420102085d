"""The generations of one run: every prompt with every seed, and the file that each is saved to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from roost.api.requests import RunRequest

NO_PROMPT = ("",)  # for a pipeline that takes none


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGeneration:
    """One generation of a run; ``number`` is its prompt's place in the list, from 1, and None for a single prompt."""

    prompt: str
    number: int | None
    seed: int
    output: Path | None


def generations_of(request: RunRequest) -> list[PlannedGeneration]:
    """Every prompt with every seed, a prompt's seeds after one another.

    ``fox.png`` becomes ``fox-0003.png`` for the third of listed prompts and ``fox-seed7.png`` where there are several
    seeds; both give ``fox-0003-seed7.png``.
    """
    return [
        PlannedGeneration(prompt=prompt, number=number, seed=seed, output=_output(request, number, seed))
        for number, prompt in _numbered(request)
        for seed in request.seeds
    ]


def _numbered(request: RunRequest) -> list[tuple[int | None, str]]:
    if not request.listed:
        return [(None, prompt) for prompt in request.prompts or NO_PROMPT]
    return list(enumerate(request.prompts, start=1))


def _output(request: RunRequest, number: int | None, seed: int) -> Path | None:
    path = request.output
    if path is None:
        return None
    # A fixed width: a list that grows must not rename what is finished.
    place = "" if number is None else f"-{number:04d}"
    which_seed = f"-seed{seed}" if len(request.seeds) > 1 else ""
    return path.with_name(f"{path.stem}{place}{which_seed}{path.suffix}")
