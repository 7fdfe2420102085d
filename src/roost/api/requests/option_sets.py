"""The options of plans, each declared once: for the command line and for Python.

A field is an option: its name and type are Python's, what stands beside them is the command line's. None is not given.
Start-up reads this file, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from roost.api.requests.declared import Option


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """The GPU, and the memory that is there. Sizes are bytes, or texts like ``24GiB``."""

    gpu: Annotated[
        str | None, Option("--gpu", "A card by name (roost gpus lists them), auto, or emulated.", metavar="NAME")
    ] = None
    vram: Annotated[str | int | None, Option("--vram", "Free GPU memory, like 24GiB.", metavar="SIZE")] = None
    ram: Annotated[
        str | int | None,
        Option("--ram", "The machine's memory; what its system and the run itself need is left out.", metavar="SIZE"),
    ] = None
    headroom: Annotated[
        str | int | None, Option("--headroom", "GPU memory beside the budget; 1GiB.", metavar="SIZE")
    ] = None


@dataclass(frozen=True, kw_only=True)
class MachineOptions(MemoryOptions):
    """All that may be said of the machine."""

    pinned_max: Annotated[str | int | None, Option("--pinned-max", "Most host memory to pin.", metavar="SIZE")] = None
    num_gpus: Annotated[int, Option("--num-gpus", "GPUs to shard over.")] = 1
    platform: Annotated[str | None, Option("--platform", "cuda, rocm or cpu, whatever the card says.", metavar="P")] = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class WorkloadOptions:
    """What is generated, where it isn't the family's usual workload. ``size`` is ``1280x720`` or a pair."""

    size: Annotated[str | tuple[int, int] | None, Option("--size", "Picture size.", metavar="WxH")] = None
    frames: Annotated[int | None, Option("--frames", "Frames of a video.")] = None
    steps: Annotated[int | None, Option("--steps", "Denoising steps.")] = None
    batch: Annotated[
        str | int,
        Option(
            "--batch", "Outputs per prompt; with run --prompts, prompts that share a call: N or auto.", metavar="N|auto"
        ),
    ] = 1
    guidance: Annotated[float | None, Option("--guidance", "Guidance scale.")] = None
    strength: Annotated[
        float | None, Option("--strength", "How much an input changes: that share of the steps.", metavar="X")
    ] = None


@dataclass(frozen=True, kw_only=True)
class PlacementOptions:
    """What is wished of the placement. ``set`` holds SELECTOR=STRATEGY[,key=value…] texts."""

    mode: Annotated[str, Option("--mode", "auto, memory, speed or manual.")] = "auto"
    set: Annotated[
        str | Sequence[str],
        Option("--set", "Place a component or group; repeatable.", metavar="SELECTOR=STRATEGY[,key=value…]"),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Who decides, what is to be least, and what may be lost for it."""

    policy: Annotated[str, Option("--policy", "search or rules.")] = "search"
    generations: Annotated[int, Option("--generations", "Prompts to count seconds for.", metavar="N")] = 1
    objective: Annotated[str, Option("--objective", "seconds or memory.", metavar="O")] = "seconds"
    max_slowdown: Annotated[float, Option("--max-slowdown", "What --objective memory may cost.", metavar="X")] = 1.2
    allow: Annotated[
        str | None, Option("--allow", "Choices that change bits: tiling, slicing, fp8.", metavar="LIST", joined=True)
    ] = None
    forbid: Annotated[
        str | None,
        Option(
            "--forbid", "What not to do though nothing else surely fits: tiling, slicing.", metavar="LIST", joined=True
        ),
    ] = None
    certainty: Annotated[
        str, Option("--certainty", "sure: what a plan needs at the most is there; or likely.", metavar="C")
    ] = "sure"
    max_premium: Annotated[float, Option("--max-premium", "What sureness may cost in seconds.", metavar="X")] = 1.05


def _cpu_offload(group: str) -> Option:
    return Option(
        f"--{group}-cpu-offload/--no-{group}-cpu-offload",
        f"Keep the {group.replace('-', ' ')} group on the host between its stages.",
    )


@dataclass(frozen=True, kw_only=True)
class RuleOptions:
    """Flags for groups of components; where None is given, rules or search decide."""

    layerwise_offload_components: Annotated[
        str | None,
        Option(
            "--layerwise-offload-components",
            "Stream exactly these: components, groups, default, all or none.",
            metavar="LIST",
            joined=True,
        ),
    ] = None
    dit_layerwise_offload: Annotated[
        bool | None, Option("--dit-layerwise-offload/--no-dit-layerwise-offload", "Stream the DiTs.")
    ] = None
    dit_cpu_offload: Annotated[bool | None, _cpu_offload("dit")] = None
    text_encoder_cpu_offload: Annotated[bool | None, _cpu_offload("text-encoder")] = None
    image_encoder_cpu_offload: Annotated[bool | None, _cpu_offload("image-encoder")] = None
    vae_cpu_offload: Annotated[bool | None, _cpu_offload("vae")] = None
    dit_offload_prefetch_size: Annotated[
        float | None,
        Option("--dit-offload-prefetch-size", "DiT blocks ahead; below 1, that fraction of them.", metavar="N"),
    ] = None
    fsdp: Annotated[bool | None, Option("--fsdp/--no-fsdp", "Shard the DiTs with FSDP.")] = None
    cache_dit: Annotated[bool, Option("--cache-dit", "The run will cache DiT blocks.")] = False
    dmd_steps: Annotated[int | None, Option("--dmd-steps", "The run is distilled to these steps.")] = None
    role: Annotated[
        str,
        Option("--role", "monolithic, encoder, denoiser, decoder or encoder-decoder: plan what that role loads."),
    ] = "monolithic"


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """Which of a model's weights are loaded, and as what."""

    variant: Annotated[str | None, Option("--variant", "Weight variant, like fp16.", metavar="V")] = None
    dtype: Annotated[str | None, Option("--dtype", "Load dtype: bfloat16, float16 or float32.", metavar="T")] = None


def _same_as_file(component: str) -> Option:
    flag = component.replace("_", "-")
    return Option(f"--{flag}", f"The same as --file {component}=PATH.", metavar="PATH", hidden=True)


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Files whose weights stand in place of a component's own; in Python ``files={"transformer": path}``."""

    files: Annotated[
        Mapping[str, str] | Sequence[str],
        Option(
            "--file",
            "A component's weights from a .gguf or .safetensors file (or --transformer PATH and so on); repeatable.",
            metavar="COMPONENT=PATH",
        ),
    ] = ()
    transformer: Annotated[str | None, _same_as_file("transformer")] = None
    transformer_2: Annotated[str | None, _same_as_file("transformer_2")] = None
    unet: Annotated[str | None, _same_as_file("unet")] = None
    vae: Annotated[str | None, _same_as_file("vae")] = None
    text_encoder: Annotated[str | None, _same_as_file("text_encoder")] = None
    text_encoder_2: Annotated[str | None, _same_as_file("text_encoder_2")] = None
    text_encoder_3: Annotated[str | None, _same_as_file("text_encoder_3")] = None


@dataclass(frozen=True, kw_only=True)
class AttentionOptions:
    """How the denoiser computes attention; where None is given, as the library does by default."""

    attention: Annotated[
        str | None, Option("--attention", "diffusers' attention backend of the denoiser, like native.", metavar="NAME")
    ] = None


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """What of the denoiser's steps is skipped, which changes what is generated; where None is given, nothing."""

    cache: Annotated[
        str | None,
        Option(
            "--cache",
            "Skip parts of steps: first-block, mag, pab, taylorseer or taylorseer-lite. Changes results.",
            metavar="NAME[=X]",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """LoRAs, and where ``fuse`` is given how all of them are had; else plain weights have them fused in."""

    lora: Annotated[
        str | Sequence[str], Option("--lora", "A LoRA; needs peft; repeatable.", metavar="[COMPONENT=]PATH[:scale]")
    ] = ()
    fuse: Annotated[
        bool | None,
        Option("--fuse/--no-fuse", "Fuse LoRAs into weights, or compute them beside; by default into plain weights."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class MeasuredOptions:
    """Without ``measured``, nothing that was measured on this machine is used."""

    measured: Annotated[
        bool, Option("--measured/--no-measured", "Use what was measured on this machine (roost profiles).")
    ] = True


# A dataclass has the fields of the last base first: these bases are listed from the last option to the first.


@dataclass(frozen=True, kw_only=True)
class DecidingOptions(
    MeasuredOptions,
    CacheOptions,
    AttentionOptions,
    FileOptions,
    WeightsOptions,
    RuleOptions,
    SearchOptions,
    PlacementOptions,
):
    """All that decides a placement beside the workload and the machine."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions(LoraOptions, DecidingOptions, WorkloadOptions, MachineOptions):
    """All options of a plan, named as on the command line."""


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """How long the trials of ``plan --tune`` may take."""

    tune_seconds: Annotated[float, Option("--tune-seconds", "Time for the trials.")] = 180.0


@dataclass(frozen=True, kw_only=True)
class TunedPlanOptions(TuneOptions, PlanOptions):
    """All options of a plan that trials decide."""
