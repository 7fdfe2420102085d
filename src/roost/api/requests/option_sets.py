"""The options of plans, runs and benches, each declared once: for the command line and for Python.

A field is an option: its name and type are Python's, what stands beside them is the command line's. None is not given.
Start-up reads this file, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from roost.api.requests.declared import Option


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """The GPU, and the memory that is there. Sizes are bytes, or texts like ``24GiB``."""

    gpu: Annotated[
        str | None,
        Option(flags="--gpu", metavar="NAME", help="A card by name (roost gpus lists them), auto, or emulated."),
    ] = None
    vram: Annotated[str | int | None, Option(flags="--vram", metavar="SIZE", help="Free GPU memory, like 24GiB.")] = (
        None
    )
    ram: Annotated[str | int | None, Option(flags="--ram", metavar="SIZE", help="Available host memory.")] = None
    headroom: Annotated[
        str | int | None, Option(flags="--headroom", metavar="SIZE", help="GPU memory left free; 1GiB.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class MachineOptions(MemoryOptions):
    """All that may be said of the machine."""

    pinned_max: Annotated[
        str | int | None, Option(flags="--pinned-max", metavar="SIZE", help="Most host memory to pin.")
    ] = None
    num_gpus: Annotated[int, Option(flags="--num-gpus", help="GPUs to shard over.")] = 1
    platform: Annotated[
        str | None, Option(flags="--platform", metavar="P", help="cuda, rocm or cpu, whatever the card says.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class WorkloadOptions:
    """What is generated, where it isn't the family's usual workload. ``size`` is ``1280x720`` or a pair."""

    size: Annotated[str | tuple[int, int] | None, Option(flags="--size", metavar="WxH", help="Picture size.")] = None
    frames: Annotated[int | None, Option(flags="--frames", help="Frames of a video.")] = None
    steps: Annotated[int | None, Option(flags="--steps", help="Denoising steps.")] = None
    batch: Annotated[int, Option(flags="--batch", help="Outputs per prompt.")] = 1
    guidance: Annotated[float | None, Option(flags="--guidance", help="Guidance scale.")] = None
    strength: Annotated[
        float | None,
        Option(flags="--strength", metavar="X", help="How much an input changes: that share of the steps."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class PlacementOptions:
    """What is wished of the placement. ``set`` holds SELECTOR=STRATEGY[,key=value…] texts."""

    mode: Annotated[str, Option(flags="--mode", help="auto, memory, speed or manual.")] = "auto"
    set: Annotated[
        str | Sequence[str],
        Option(
            flags="--set",
            metavar="SELECTOR=STRATEGY[,key=value…]",
            help="Place a component or group; repeatable.",
        ),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Who decides, what is to be least, and what may be lost for it."""

    policy: Annotated[str, Option(flags="--policy", help="search or rules.")] = "search"
    generations: Annotated[int, Option(flags="--generations", metavar="N", help="Prompts to count seconds for.")] = 1
    objective: Annotated[str, Option(flags="--objective", metavar="O", help="seconds or memory.")] = "seconds"
    max_slowdown: Annotated[
        float, Option(flags="--max-slowdown", metavar="X", help="What --objective memory may cost.")
    ] = 1.2
    allow: Annotated[
        str | None,
        Option(flags="--allow", metavar="LIST", help="Choices that change bits: tiling, fp8.", joined=True),
    ] = None


def _cpu_offload(group: str) -> Option:
    return Option(
        flags=f"--{group}-cpu-offload/--no-{group}-cpu-offload",
        help=f"Keep the {group.replace('-', ' ')} group on the host between its stages.",
    )


@dataclass(frozen=True, kw_only=True)
class RuleOptions:
    """The flags that the rules know; None leaves it to them."""

    layerwise_offload_components: Annotated[
        str | None,
        Option(
            flags="--layerwise-offload-components",
            metavar="LIST",
            help="Stream exactly these: components, groups, default, all or none.",
            joined=True,
        ),
    ] = None
    dit_layerwise_offload: Annotated[
        bool | None, Option(flags="--dit-layerwise-offload/--no-dit-layerwise-offload", help="Stream the DiTs.")
    ] = None
    dit_cpu_offload: Annotated[bool | None, _cpu_offload("dit")] = None
    text_encoder_cpu_offload: Annotated[bool | None, _cpu_offload("text-encoder")] = None
    image_encoder_cpu_offload: Annotated[bool | None, _cpu_offload("image-encoder")] = None
    vae_cpu_offload: Annotated[bool | None, _cpu_offload("vae")] = None
    dit_offload_prefetch_size: Annotated[
        float | None,
        Option(
            flags="--dit-offload-prefetch-size", metavar="N", help="DiT blocks ahead; below 1, that fraction of them."
        ),
    ] = None
    fsdp: Annotated[bool | None, Option(flags="--fsdp/--no-fsdp", help="Shard the DiTs with FSDP.")] = None
    cache_dit: Annotated[bool, Option(flags="--cache-dit", help="The run will cache DiT blocks.")] = False
    dmd_steps: Annotated[int | None, Option(flags="--dmd-steps", help="The run is distilled to these steps.")] = None
    role: Annotated[
        str, Option(flags="--role", help="monolithic, encoder, denoiser or decoder: plan what that role loads.")
    ] = "monolithic"


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """Which of a model's weights are loaded, and as what."""

    variant: Annotated[str | None, Option(flags="--variant", metavar="V", help="Weight variant, like fp16.")] = None
    dtype: Annotated[
        str | None, Option(flags="--dtype", metavar="T", help="Load dtype: bfloat16, float16 or float32.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class MeasuredOptions:
    """What counts of what this machine has measured."""

    measured: Annotated[
        bool, Option(flags="--measured/--no-measured", help="Use what was measured on this machine (roost profiles).")
    ] = True


# A dataclass has the fields of the last base first: these bases are listed from the last option to the first.


@dataclass(frozen=True, kw_only=True)
class PlanOptions(
    MeasuredOptions, WeightsOptions, RuleOptions, SearchOptions, PlacementOptions, WorkloadOptions, MachineOptions
):
    """All options of a plan."""


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """How long the trials of ``plan --tune`` may take."""

    tune_seconds: Annotated[float, Option(flags="--tune-seconds", help="Time for the trials.")] = 180.0


@dataclass(frozen=True, kw_only=True)
class TunedPlanOptions(TuneOptions, PlanOptions):
    """All options of a plan that trials decide."""


@dataclass(frozen=True, kw_only=True)
class RaceOptions:
    """Who is raced, and how much is measured."""

    strategies: Annotated[
        str,
        Option(
            flags="--strategies",
            metavar="all|LIST",
            help="resident, component-offload, snapshot-offload, layerwise-offload, rules, search.",
            joined=True,
        ),
    ] = "all"
    rounds: Annotated[int, Option(flags="--rounds", help="How often each one left in the race is timed.")] = 3
    trial_steps: Annotated[int, Option(flags="--trial-steps", help="Denoising steps of a trial.")] = 5
    max_seconds: Annotated[float, Option(flags="--max-seconds", help="Time for all of it.")] = 300.0
    against: Annotated[
        str | None,
        Option(flags="--against", metavar="diffusers", help="Also time diffusers' own offload modes."),
    ] = None
    fresh: Annotated[bool, Option(flags="--fresh", help="Measure anew what an interrupted bench has measured.")] = False


@dataclass(frozen=True, kw_only=True)
class BenchOptions(WeightsOptions, WorkloadOptions, MemoryOptions, RaceOptions):
    """All options of a bench."""

    link_speed: Annotated[
        str | None,
        Option(flags="--link-speed", metavar="SPEED", help="Of an emulated GPU's copies, like 2GB/s."),
    ] = None
    model: Annotated[str | None, Option(flags="--model", metavar="DIR", help="Where a plan's model is now.")] = None


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """What a run makes of its plan, beside the workload."""

    prompt: Annotated[str | None, Option(flags="--prompt", help="What to paint.")] = None
    prompts: Annotated[
        str | None,
        Option(flags="--prompts", metavar="FILE", help="A file of prompts, one a line; # starts a comment."),
    ] = None
    output: Annotated[
        Path | None,
        Option(flags="-o --output", metavar="OUT", help="A .png, .mp4, .wav or .safetensors file."),
    ] = None
    negative_prompt: Annotated[str | None, Option(flags="--negative-prompt", help="What to avoid.")] = None
    seed: Annotated[
        Sequence[int], Option(flags="--seed", metavar="N", help="Seed of the noise, 0 if not given; repeatable.")
    ] = ()
    image: Annotated[
        Sequence[str],
        Option(
            flags="--image",
            metavar="[ARG=]PATH",
            help="A picture, video or folder of frames to start from; repeatable.",
        ),
    ] = ()
    lora: Annotated[
        Sequence[str],
        Option(
            flags="--lora",
            metavar="[COMPONENT=]PATH[:scale]",
            help="A LoRA to fuse; needs peft; repeatable.",
        ),
    ] = ()
    output_type: Annotated[
        str,
        Option(flags="--output-type", metavar="T", help="decoded, or latent: a .safetensors file, and no VAE."),
    ] = "decoded"
