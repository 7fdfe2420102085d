"""Options of ``roost run`` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
