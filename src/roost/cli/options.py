"""Options of the commands, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A model directory, a hub id in the local cache, or a name (roost models)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Variant = Annotated[str | None, typer.Option("--variant", metavar="V", help="Weight variant, like fp16.")]
Dtype = Annotated[str | None, typer.Option("--dtype", metavar="T", help="Load dtype: bfloat16, float16 or float32.")]

Size = Annotated[str | None, typer.Option("--size", metavar="WxH", help="Picture size.")]
Frames = Annotated[int | None, typer.Option("--frames", help="Frames of a video.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Denoising steps.")]
Batch = Annotated[int, typer.Option("--batch", help="Outputs per prompt.")]
Strength = Annotated[
    float | None, typer.Option("--strength", metavar="X", help="How much an input changes: that share of the steps.")
]
Guidance = Annotated[float | None, typer.Option("--guidance", help="Guidance scale.")]

Gpu = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        metavar="NAME",
        help="A card by name (roost gpus lists them), auto, or emulated.",
    ),
]
Vram = Annotated[
    str | None,
    typer.Option("--vram", metavar="SIZE", help="Free GPU memory, like 24GiB."),
]
Ram = Annotated[
    str | None,
    typer.Option("--ram", metavar="SIZE", help="Available host memory."),
]
Headroom = Annotated[
    str | None,
    typer.Option("--headroom", metavar="SIZE", help="GPU memory left free; 1GiB."),
]
PinnedMax = Annotated[
    str | None,
    typer.Option("--pinned-max", metavar="SIZE", help="Most host memory to pin."),
]
NumGpus = Annotated[int, typer.Option("--num-gpus", help="GPUs to shard over.")]
Platform = Annotated[
    str | None,
    typer.Option("--platform", metavar="P", help="cuda, rocm or cpu, whatever the card says."),
]

Mode = Annotated[str, typer.Option("--mode", help="auto, memory, speed or manual.")]
Policy = Annotated[str, typer.Option("--policy", help="search or rules.")]
Generations = Annotated[int, typer.Option("--generations", metavar="N", help="Prompts to count seconds for.")]
Objective = Annotated[str, typer.Option("--objective", metavar="O", help="seconds or memory.")]
MaxSlowdown = Annotated[
    float,
    typer.Option("--max-slowdown", metavar="X", help="What --objective memory may cost."),
]
Allow = Annotated[
    str | None,
    typer.Option("--allow", metavar="LIST", help="Choices that change bits: tiling, fp8."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SELECTOR=STRATEGY[,key=value…]",
        help="Place a component or group; repeatable.",
    ),
]
LayerwiseComponents = Annotated[
    str | None,
    typer.Option(
        "--layerwise-offload-components",
        metavar="LIST",
        help="Stream exactly these: components, groups, default, all or none.",
    ),
]
DitLayerwise = Annotated[
    bool | None,
    typer.Option("--dit-layerwise-offload/--no-dit-layerwise-offload", help="Stream the DiTs."),
]


def _cpu_offload(group: str) -> object:
    return typer.Option(
        f"--{group}-cpu-offload/--no-{group}-cpu-offload",
        help=f"Keep the {group.replace('-', ' ')} group on the host between its stages.",
    )


DitCpuOffload = Annotated[bool | None, _cpu_offload("dit")]
TextEncoderCpuOffload = Annotated[bool | None, _cpu_offload("text-encoder")]
ImageEncoderCpuOffload = Annotated[bool | None, _cpu_offload("image-encoder")]
VaeCpuOffload = Annotated[bool | None, _cpu_offload("vae")]
Prefetch = Annotated[
    float | None,
    typer.Option(
        "--dit-offload-prefetch-size",
        metavar="N",
        help="DiT blocks ahead; below 1, that fraction of them.",
    ),
]
Fsdp = Annotated[bool | None, typer.Option("--fsdp/--no-fsdp", help="Shard the DiTs with FSDP.")]
CacheDit = Annotated[bool, typer.Option("--cache-dit", help="The run will cache DiT blocks.")]
DmdSteps = Annotated[int | None, typer.Option("--dmd-steps", help="The run is distilled to these steps.")]
Role = Annotated[
    str,
    typer.Option(
        "--role",
        help="monolithic, encoder, denoiser or decoder: plan what that role loads.",
    ),
]
Measured = Annotated[
    bool,
    typer.Option("--measured/--no-measured", help="Use what was measured on this machine (roost profiles)."),
]


# Options of ``roost run`` alone.


Target = Annotated[str, typer.Argument(metavar="PLAN|MODEL", help="A plan's YAML file, or a model to plan first.")]
Prompt = Annotated[str | None, typer.Option("--prompt", help="What to paint.")]
Prompts = Annotated[
    str | None, typer.Option("--prompts", metavar="FILE", help="A file of prompts, one a line; # starts a comment.")
]
NegativePrompt = Annotated[str | None, typer.Option("--negative-prompt", help="What to avoid.")]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="OUT", help="A .png, .mp4, .wav or .safetensors file.")
]
Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image", metavar="[ARG=]PATH", help="A picture, video or folder of frames to start from; repeatable."
    ),
]
Loras = Annotated[
    list[str] | None,
    typer.Option("--lora", metavar="[COMPONENT=]PATH[:scale]", help="A LoRA to fuse; needs peft; repeatable."),
]
OutputType = Annotated[
    str, typer.Option("--output-type", metavar="T", help="decoded, or latent: a .safetensors file, and no VAE.")
]
Seeds = Annotated[
    list[int] | None, typer.Option("--seed", metavar="N", help="Seed of the noise, 0 if not given; repeatable.")
]
Device = Annotated[
    str | None, typer.Option("--device", metavar="D", help="emulated tries any plan on the CPU; cuda insists on it.")
]
Model = Annotated[str | None, typer.Option("--model", metavar="DIR", help="Where the plan's model is now.")]
Force = Annotated[bool, typer.Option("--force", help="Run on another model or GPU than planned.")]
UpdatePlan = Annotated[
    bool, typer.Option("--update-plan", help="Write what memory did not allow back into the plan's file.")
]
TraceOut = Annotated[
    Path | None,
    typer.Option("--trace-out", metavar="FILE", help="Write the measured timeline as a .json trace for Perfetto."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and load nothing.")]
