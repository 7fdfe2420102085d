"""Options that several commands share, each declared once."""

from __future__ import annotations

from typing import Annotated

import typer

_WORKLOAD = "Workload"
_HARDWARE = "Hardware"
_PLACEMENT = "Placement"

ModelArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A model directory, a hub id in the local cache, or a name (roost models)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Variant = Annotated[str | None, typer.Option("--variant", metavar="V", help="Weight variant, like fp16.")]
Dtype = Annotated[str | None, typer.Option("--dtype", metavar="T", help="Load dtype: bfloat16, float16 or float32.")]

Size = Annotated[str | None, typer.Option("--size", metavar="WxH", help="Picture size.", rich_help_panel=_WORKLOAD)]
Frames = Annotated[int | None, typer.Option("--frames", help="Frames of a video.", rich_help_panel=_WORKLOAD)]
Steps = Annotated[int | None, typer.Option("--steps", help="Denoising steps.", rich_help_panel=_WORKLOAD)]
Batch = Annotated[int, typer.Option("--batch", help="Outputs per prompt.", rich_help_panel=_WORKLOAD)]
Guidance = Annotated[float | None, typer.Option("--guidance", help="Guidance scale.", rich_help_panel=_WORKLOAD)]

Gpu = Annotated[
    str | None,
    typer.Option(
        "--gpu", metavar="NAME", help="A card by name (roost gpus lists them), auto, or emulated.",
        rich_help_panel=_HARDWARE,
    ),
]  # fmt: skip
Vram = Annotated[
    str | None,
    typer.Option("--vram", metavar="SIZE", help="Free GPU memory, like 24GiB.", rich_help_panel=_HARDWARE),
]
Ram = Annotated[
    str | None,
    typer.Option("--ram", metavar="SIZE", help="Available host memory.", rich_help_panel=_HARDWARE),
]
Headroom = Annotated[
    str | None,
    typer.Option("--headroom", metavar="SIZE", help="GPU memory left free; 1GiB.", rich_help_panel=_HARDWARE),
]
PinnedMax = Annotated[
    str | None,
    typer.Option("--pinned-max", metavar="SIZE", help="Most host memory to pin.", rich_help_panel=_HARDWARE),
]
NumGpus = Annotated[int, typer.Option("--num-gpus", help="GPUs to shard over.", rich_help_panel=_HARDWARE)]
Platform = Annotated[
    str | None,
    typer.Option(
        "--platform", metavar="P", help="cuda, rocm or cpu, whatever the card says.", rich_help_panel=_HARDWARE
    ),
]

Mode = Annotated[str, typer.Option("--mode", help="auto, memory, speed or manual.", rich_help_panel=_PLACEMENT)]
Policy = Annotated[str, typer.Option("--policy", help="search or rules.", rich_help_panel=_PLACEMENT)]
Generations = Annotated[
    int, typer.Option("--generations", metavar="N", help="Prompts to count seconds for.", rich_help_panel=_PLACEMENT)
]
Objective = Annotated[
    str, typer.Option("--objective", metavar="O", help="seconds or memory.", rich_help_panel=_PLACEMENT)
]
MaxSlowdown = Annotated[
    float,
    typer.Option("--max-slowdown", metavar="X", help="What --objective memory may cost.", rich_help_panel=_PLACEMENT),
]
Allow = Annotated[
    str | None,
    typer.Option("--allow", metavar="LIST", help="Choices that change bits: tiling, fp8.", rich_help_panel=_PLACEMENT),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SELECTOR=STRATEGY[,key=value…]",
        help="Place a component or group; repeatable.",
        rich_help_panel=_PLACEMENT,
    ),
]
LayerwiseComponents = Annotated[
    str | None,
    typer.Option(
        "--layerwise-offload-components",
        metavar="LIST",
        help="Stream exactly these: components, groups, default, all or none.",
        rich_help_panel=_PLACEMENT,
    ),
]
DitLayerwise = Annotated[
    bool | None,
    typer.Option(
        "--dit-layerwise-offload/--no-dit-layerwise-offload", help="Stream the DiTs.", rich_help_panel=_PLACEMENT
    ),
]


def _cpu_offload(group: str) -> object:
    return typer.Option(
        f"--{group}-cpu-offload/--no-{group}-cpu-offload",
        help=f"Keep the {group.replace('-', ' ')} group on the host between its stages.",
        rich_help_panel=_PLACEMENT,
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
        rich_help_panel=_PLACEMENT,
    ),
]
Fsdp = Annotated[
    bool | None, typer.Option("--fsdp/--no-fsdp", help="Shard the DiTs with FSDP.", rich_help_panel=_PLACEMENT)
]
CacheDit = Annotated[
    bool, typer.Option("--cache-dit", help="The run will cache DiT blocks.", rich_help_panel=_PLACEMENT)
]
DmdSteps = Annotated[
    int | None, typer.Option("--dmd-steps", help="The run is distilled to these steps.", rich_help_panel=_PLACEMENT)
]
Role = Annotated[
    str,
    typer.Option(
        "--role", help="monolithic, encoder, denoiser or decoder: plan what that role loads.",
        rich_help_panel=_PLACEMENT,
    ),
]  # fmt: skip
