"""The pipeline classes that are planned and run tiny by the command line, and how each is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusers import DiffusionPipeline

import tiny_flux_pipelines as flux
import tiny_more_image_pipelines as image
import tiny_more_video_pipelines as video
import tiny_unet_pipelines as unet
import tiny_unusual_pipelines as unusual


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How to make a pipeline, and its small call; ``pictures`` are the arguments that get one.

    ``frames`` are under the name that the call has for them, ``sized`` is whether it takes a size (pictures get the
    plan's all the same); ``slow`` cases show nothing that another doesn't.
    """

    make: Callable[[], DiffusionPipeline]
    prompt: str | None = "a fox"
    side: int = 64
    sized: bool = True
    frames: Mapping[str, int] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    suffix: str = ".png"
    slow: bool = True

    @property
    def planned(self) -> list[str]:
        """The words that ``roost plan`` gets for this call."""
        return [
            "--size",
            f"{self.side}x{self.side}",
            *(word for count in self.frames.values() for word in ("--frames", str(count))),
        ]

    @property
    def arguments(self) -> dict[str, Any]:
        """The same call's arguments in Python, without pictures."""
        size = {"width": self.side, "height": self.side} if self.sized else {}
        return {**size, **self.frames, **({"prompt": self.prompt} if self.prompt else {})}


def _video(make: Callable[[], DiffusionPipeline], frames: int, **more: Any) -> Case:
    return Case(make=make, frames={"num_frames": frames}, suffix=".mp4", **more)


CASES: dict[str, Case] = {
    "AnimateDiffPipeline": _video(unet.animatediff, 4, slow=False),
    "AuraFlowPipeline": Case(make=image.auraflow),
    "BriaPipeline": Case(make=flux.bria),
    "ChromaPipeline": Case(make=flux.chroma),
    "CogView3PlusPipeline": Case(make=image.cogview3),
    "DDPMPipeline": Case(make=unusual.ddpm, prompt=None, sized=False, slow=False),
    "Flux2KleinPipeline": Case(make=flux.flux2_klein),
    "FluxControlPipeline": Case(make=flux.flux_control, pictures=("control_image",)),
    "FluxFillPipeline": Case(make=flux.flux_fill, pictures=("image", "mask_image")),
    "FluxKontextPipeline": Case(make=flux.flux_kontext, pictures=("image",)),
    "HunyuanDiTPipeline": Case(make=image.hunyuan_dit),
    "HunyuanVideo15Pipeline": _video(video.hunyuan_video_1_5, 9),
    "IFPipeline": Case(make=unet.deepfloyd),
    "Kandinsky3Pipeline": Case(make=unet.kandinsky_3),
    "KandinskyV22CombinedPipeline": Case(make=unet.kandinsky_2_2, slow=False),
    "LatentConsistencyModelPipeline": Case(make=unet.latent_consistency),
    "LattePipeline": Case(make=unusual.latte, frames={"video_length": 4}, suffix=".mp4", slow=False),
    "Lumina2Pipeline": Case(make=image.lumina2),
    "MarigoldDepthPipeline": Case(
        make=unusual.marigold_depth, prompt=None, sized=False, pictures=("image",), slow=False
    ),
    "MochiPipeline": _video(video.mochi, 7),
    "OvisImagePipeline": Case(make=flux.ovis_image),
    "PixArtSigmaPipeline": Case(make=unusual.pixart, side=256, slow=False),
    "SanaPipeline": Case(make=image.sana),
    "SkyReelsV2DiffusionForcingPipeline": _video(video.skyreels_forcing, 9),
    "SkyReelsV2Pipeline": _video(video.skyreels, 9),
    "StableAudioPipeline": Case(make=unusual.stable_audio, sized=False, suffix=".wav", slow=False),
    "StableDiffusionAdapterPipeline": Case(make=unet.adapter, pictures=("image",)),
    "StableDiffusionPipeline": Case(make=unet.stable_diffusion, slow=False),
    "StableVideoDiffusionPipeline": _video(
        unusual.stable_video_diffusion, 3, prompt=None, pictures=("image",), slow=False
    ),
    "WanVACEPipeline": _video(video.wan_vace, 9),
}
