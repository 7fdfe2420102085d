"""The options of runs and benches beside those of plans, each declared once. Start-up reads this file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from roost.api.requests.declared import Option
from roost.api.requests.option_sets import DecidingOptions, MachineOptions, WorkloadOptions


@dataclass(frozen=True, kw_only=True)
class RaceOptions:
    """Who is raced, and how much is measured."""

    strategies: Annotated[
        str,
        Option(
            "--strategies",
            "resident, component-offload, snapshot-offload, layerwise-offload, rules, search.",
            metavar="all|LIST",
            joined=True,
        ),
    ] = "all"
    rounds: Annotated[int, Option("--rounds", "How often each one left in the race is timed.")] = 3
    trial_steps: Annotated[int, Option("--trial-steps", "Denoising steps of a trial.")] = 5
    max_seconds: Annotated[float, Option("--max-seconds", "Time for all of it.")] = 300.0
    against: Annotated[
        str | None, Option("--against", "Also time diffusers' own offload modes.", metavar="diffusers")
    ] = None
    fresh: Annotated[bool, Option("--fresh", "Measure anew what an interrupted bench has measured.")] = False


@dataclass(frozen=True, kw_only=True)
class PlaceOptions:
    """Where a plan's model lies, when it isn't where it was planned."""

    model: Annotated[str | None, Option("--model", "Where the plan's model is now.", metavar="DIR")] = None


@dataclass(frozen=True, kw_only=True)
class BaseOptions(PlaceOptions):
    """Where what a run loads is; a model known by its name lacks tokenizers beside the files of its weights."""

    tokenizers: Annotated[
        str | None,
        Option("--tokenizers", "Tokenizers of a model by name whose weights are all files.", metavar="DIR"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class BenchOptions(PlaceOptions, DecidingOptions, WorkloadOptions, MachineOptions, RaceOptions):
    """All options of a bench."""

    link_speed: Annotated[
        str | None, Option("--link-speed", "Of an emulated GPU's copies, like 2GB/s.", metavar="SPEED")
    ] = None


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """What a run makes of its plan, beside the workload."""

    prompt: Annotated[str | None, Option("--prompt", "What to paint.")] = None
    prompts: Annotated[
        str | None, Option("--prompts", "A file of prompts, one a line; # starts a comment.", metavar="FILE")
    ] = None
    output: Annotated[Path | None, Option("-o --output", "A .png, .mp4, .wav or .safetensors file.", metavar="OUT")] = (
        None
    )
    negative_prompt: Annotated[str | None, Option("--negative-prompt", "What to avoid.")] = None
    seed: Annotated[Sequence[int], Option("--seed", "Seed of the noise, 0 if not given; repeatable.", metavar="N")] = ()
    image: Annotated[
        Sequence[str],
        Option("--image", "A picture, video or folder of frames to start from; repeatable.", metavar="[ARG=]PATH"),
    ] = ()
    output_type: Annotated[
        str, Option("--output-type", "decoded, or latent: a .safetensors file, and no VAE.", metavar="T")
    ] = "decoded"
    resume: Annotated[
        bool, Option("--resume/--no-resume", "Go on from what an interrupted run kept beside its output.")
    ] = True
    rehearse: Annotated[
        bool,
        Option("--rehearse/--no-rehearse", "Before a long run, or one that may not fit, try its least certain stage."),
    ] = True
