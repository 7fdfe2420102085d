"""What a run is asked for, refused at once where it could only fail later; and its generations."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from roost.api.requests.given_files import lora_texts, read_prompts
from roost.api.requests.known_values import batch_of, is_auto
from roost.api.requests.option_sets import LoraOptions, WorkloadOptions
from roost.api.requests.outputs import check_output
from roost.api.requests.run_option_sets import GenerationOptions
from roost.errors import UsageError
from roost.facts.request import Workload
from roost.option_spelling import option
from roost.units import parse_size

OUTPUT_TYPES = ("decoded", "latent")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What to run: every prompt with every seed. None keeps the plan's value; ``output`` None writes nothing.

    No prompts are for a pipeline that takes none.

    ``listed`` prompts come from a list, and outputs are numbered by their places in it. ``output_type`` latent gives
    what the VAE would decode, as a .safetensors file. ``images`` are [ARGUMENT=]PATH texts of pictures and videos,
    ``loras`` [COMPONENT=]PATH[:scale] texts of LoRAs beside the plan's, ``fuse`` how all of them are had. With
    ``resume`` a generation goes on from what an earlier run kept of it; with ``rehearse`` the stage whose peak is least
    certain is tried first, where an hour could be lost.

    ``group`` is how many generations share a call, one output each; None makes one call for each, of ``batch`` outputs.
    A ``group_foreseen`` was predicted to fit, and may be larger than the plan's batch.

    Raises UsageError for a value that no run takes and for an output that can't be written.
    """

    prompts: tuple[str, ...]
    listed: bool = False
    negative_prompt: str | None = None
    output: Path | None = None
    seeds: tuple[int, ...] = (0,)
    size: tuple[int, int] | None = None
    frames: int | None = None
    steps: int | None = None
    batch: int | None = None
    guidance: float | None = None
    strength: float | None = None
    output_type: str = "decoded"
    images: tuple[str, ...] = ()
    loras: tuple[str, ...] = ()
    fuse: bool | None = None
    resume: bool = True
    rehearse: bool = True
    group: int | None = None
    group_foreseen: bool = False

    @property
    def count(self) -> int:
        """How many generations it is."""
        return max(1, len(self.prompts)) * len(self.seeds)

    def __post_init__(self) -> None:
        for seed in self.seeds:
            if not 0 <= seed < 2**63:
                raise UsageError(f"--seed {seed} is out of range; give a whole number from 0, below 2^63.")
            if self.seeds.count(seed) > 1:
                raise UsageError(f"--seed {seed} is given twice, and its output is the same; leave one out.")
        if self.guidance is not None and not math.isfinite(self.guidance):
            raise UsageError(f"--guidance {self.guidance} is not a number; give one like 4.0.")
        if self.strength is not None:
            check_strength(self.strength)
        if self.output_type not in OUTPUT_TYPES:
            known = ", ".join(OUTPUT_TYPES)
            raise UsageError(f"--output-type {self.output_type!r} is not known; choose one of {known}.")
        for prompt in self.prompts:
            _check_text(prompt, "--prompt")
        _check_text(self.negative_prompt or "", "--negative-prompt")
        if self.output is not None:
            check_output(self.output)


def run_request(
    generation: GenerationOptions, loras: LoraOptions, workload: WorkloadOptions, typed: Collection[str]
) -> RunRequest:
    """What was ``typed``, as a request; the plan's values stand where nothing was.

    Of listed prompts ``batch`` is the group, at most as many as there are; an ``auto`` one stays open.
    """
    prompts, listed = _prompts(generation.prompt, generation.prompts), generation.prompts is not None
    auto = listed and is_auto(workload.batch)
    batch = batch_of(workload.batch) if "batch" in typed and not auto else None
    request = RunRequest(
        prompts=prompts,
        listed=listed,
        negative_prompt=generation.negative_prompt,
        output=generation.output,
        seeds=tuple(generation.seed or (0,)),
        size=None if workload.size is None else parse_size(str(workload.size)),
        frames=workload.frames,
        steps=workload.steps,
        batch=None if listed else batch,
        guidance=workload.guidance,
        strength=workload.strength,
        output_type=generation.output_type,
        images=tuple(generation.image),
        loras=lora_texts(loras),
        fuse=loras.fuse,
        resume=generation.resume,
        rehearse=generation.rehearse,
    )
    return replace(request, group=min(batch, request.count)) if listed and batch is not None else request


def _prompts(prompt: str | None, file: str | None) -> tuple[str, ...]:
    if prompt is not None and file is not None:
        raise UsageError("give either --prompt TEXT or --prompts FILE, a file with one prompt a line.")
    if file is not None:
        return read_prompts(file)
    return () if prompt is None else (prompt,)


def _check_text(text: str, option: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of the command line that aren't UTF-8
        raise UsageError(f"{option} {text!r} is not UTF-8 text; check the terminal's encoding.") from None


# The generations of one run: every prompt with every seed, and the file that each is saved to.


NO_PROMPT = ("",)  # for a pipeline that takes none


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGeneration:
    """One generation of a run; ``number`` is its prompt's place in the list, from 1, and None for a single prompt.

    ``group`` has prompt and seed of every generation that shares its call; none where nothing does.
    """

    prompt: str
    number: int | None
    seed: int
    output: Path | None
    group: tuple[tuple[str, int], ...] = ()

    @property
    def batch_of(self) -> int:
        """How many generations its call makes."""
        return len(self.group) or 1


PlannedCall = tuple[PlannedGeneration, ...]  # those that one call makes


def generations_of(request: RunRequest) -> list[PlannedGeneration]:
    """Every prompt with every seed, a prompt's seeds after one another.

    ``fox.png`` becomes ``fox-0003.png`` for the third of listed prompts and ``fox-seed7.png`` where there are several
    seeds; both give ``fox-0003-seed7.png``.
    """
    return [each for call in calls_of(request) for each in call]


ONE_CALL = RunRequest(prompts=())  # whatever it asks for


def calls_of(request: RunRequest) -> list[PlannedCall]:
    """The generations by the call that makes them. Groups go by place, whatever of them is already there."""
    single = [
        PlannedGeneration(prompt=prompt, number=number, seed=seed, output=_output(request, number, seed))
        for number, prompt in _numbered(request)
        for seed in request.seeds
    ]
    size = request.group or 1
    return [_grouped(single[first : first + size]) for first in range(0, len(single), size)]


def _grouped(generations: list[PlannedGeneration]) -> PlannedCall:
    if len(generations) == 1:
        return (generations[0],)
    group = tuple((each.prompt, each.seed) for each in generations)
    return tuple(replace(each, group=group) for each in generations)


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


# How strongly an input is changed, and what that does to the steps that run.


def check_strength(strength: float) -> None:
    """UsageError for a strength that no pipeline takes."""
    if not 0 < strength <= 1:
        raise UsageError(f"{option('strength', strength)} is out of range; give a number above 0, up to 1.")


def check_steps_run(workload: Workload) -> None:
    """UsageError for a strength that leaves no step to run."""
    if workload.steps_run < 1:
        raise UsageError(
            f"{option('strength', workload.strength)} of {workload.steps} steps leaves none to run;"
            " give more of either."
        )


def steps_text(workload: Workload) -> str:
    """For people: ``40 steps``, or ``24 of 40 steps (strength 0.6)``."""
    if workload.strength is None:
        return f"{workload.steps} steps"
    return f"{workload.steps_run} of {workload.steps} steps (strength {workload.strength:g})"


def workload_text(workload: Workload) -> str:
    """For people: ``1280×720 × 81 frames, 40 steps, batch 1``."""
    frames = f" × {workload.frames} frames" if workload.frames else ""
    return f"{workload.width}×{workload.height}{frames}, {steps_text(workload)}, batch {workload.batch}"
