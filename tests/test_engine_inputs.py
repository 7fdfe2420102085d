"""Pipelines that take a picture or video, or have a second denoiser: exact under a pairwise cover that is dealt out.

ControlNet alternates with the UNet in every step; what starts from a picture or a video begins with the VAE's encode.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import pytest
import torch
from diffusers import (
    CogVideoXVideoToVideoPipeline,
    ControlNetModel,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    LTXImageToVideoPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVideoToVideoPipeline,
)
from PIL import Image

from dealing import dealt
from engine_cases import Case, pairwise_cases, plan_of, rest_of_cases
from live_pipelines import STRATEGIES, own_pipeline
from plans import GIB, plan_for
from random_weights import fill_with_random_weights
from roost.plan import PlanDocument
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import hold
from roost.residency.run.generate import tensor_digest
from tiny_models import default_call
from tiny_video_inputs import wan_vace_parts


def controlnet() -> Any:
    parts = own_pipeline("sdxl").components
    control = ControlNetModel.from_unet(parts["unet"], conditioning_channels=3)
    fill_with_random_weights({"controlnet": control})
    return StableDiffusionXLControlNetPipeline(**parts, controlnet=control)


def wan_image_to_video() -> Any:
    """Both experts take the picture's latents and a mask beside the noise, as in Wan 2.2."""
    parts = own_pipeline("wan2.2").components
    channels = parts["vae"].config.z_dim
    for name in ("transformer", "transformer_2"):
        config = {**parts[name].config, "in_channels": 2 * channels + 4}
        parts[name] = WanTransformer3DModel.from_config(config)
    fill_with_random_weights({name: parts[name] for name in ("transformer", "transformer_2")})
    return WanImageToVideoPipeline(**parts, image_encoder=None, image_processor=None, boundary_ratio=0.875)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How a pipeline is made, the family whose small call it takes, what else it is told, and its inputs."""

    make: Callable[[], Any]
    family: str
    more: Any
    inputs: tuple[str, ...] = ("image",)


SOURCES = {
    "sdxl controlnet": Source(make=controlnet, family="sdxl", more={}),
    "sdxl image to image": Source(
        make=lambda: StableDiffusionXLImg2ImgPipeline(**own_pipeline("sdxl").components),
        family="sdxl", more={"strength": 0.9, "height": None, "width": None, "num_inference_steps": 3},
    ),
    "flux image to image": Source(
        make=lambda: FluxImg2ImgPipeline(**own_pipeline("flux").components),
        family="flux", more={"strength": 0.9, "num_inference_steps": 3},
    ),
    "ltx image to video": Source(
        make=lambda: LTXImageToVideoPipeline(**own_pipeline("ltx").components), family="ltx", more={}
    ),
    "flux inpainting": Source(
        make=lambda: FluxInpaintPipeline(**own_pipeline("flux").components),
        family="flux", more={"strength": 0.9, "num_inference_steps": 3}, inputs=("image", "mask_image"),
    ),
    "wan image to video": Source(make=wan_image_to_video, family="wan2.2", more={}),
    "wan video to video": Source(
        make=lambda: WanVideoToVideoPipeline(**parts_of("wan2.1", WanVideoToVideoPipeline)),
        family="wan2.1", more={"strength": 0.7, "num_inference_steps": 3, "num_frames": None}, inputs=("video",),
    ),
    "wan vace": Source(
        make=lambda: WanVACEPipeline(**wan_vace_parts()), family="wan2.1", more={}, inputs=("video", "mask"),
    ),
    "cogvideox video to video": Source(
        make=lambda: CogVideoXVideoToVideoPipeline(**own_pipeline("cogvideox").components),
        family="cogvideox",
        more={"strength": 0.7, "num_inference_steps": 3, "num_frames": None}, inputs=("video",),
    ),
}  # fmt: skip


def parts_of(family: str, wanted: type) -> dict[str, Any]:
    """The family's components that a pipeline class has."""
    return {
        name: each for name, each in own_pipeline(family).components.items() if name in signature(wanted).parameters
    }


WHOLE = [each for each in STRATEGIES if not each.startswith("layerwise")]


@functools.cache
def made(name: str) -> Any:
    pipeline = SOURCES[name].make()
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generated(name: str) -> str:
    source = SOURCES[name]
    call = {name: each for name, each in {**default_call(source.family), **source.more}.items() if each is not None}
    gray = Image.linear_gradient("L").resize((64, 64))
    given = {"image": gray.convert("RGB"), "mask_image": gray, "mask": [gray] * 9}
    given["video"] = [gray.rotate(10 * index).convert("RGB") for index in range(9)]
    inputs = {name: given[name] for name in source.inputs}
    generator = torch.Generator("cpu").manual_seed(0)
    result = made(name)(**call, **inputs, generator=generator, output_type="pt", return_dict=False)[0]
    return tensor_digest(result if isinstance(result, torch.Tensor) else torch.stack(list(result)))


@functools.cache
def bare(name: str) -> str:
    return generated(name)


def check(name: str, plan: PlanDocument) -> None:
    expected = bare(name)
    with EmulatedDevice(plan.budget.budget_bytes) as device:
        with hold(made(name), plan, device):
            assert [generated(name) for _ in range(2)] == [expected] * 2
        assert (device.used_bytes, device.pinned_bytes) == (0, 0)


@pytest.mark.dealt(3)
@pytest.mark.parametrize(("name", "case"), dealt(SOURCES, pairwise_cases(), every=4))
def test_streaming_is_exact(name: str, case: Case) -> None:
    check(name, plan_of(made(name), case))


@pytest.mark.slow
@pytest.mark.parametrize("case", rest_of_cases(), ids=str)
@pytest.mark.parametrize("name", SOURCES)
def test_the_rest_of_the_product_is_exact(name: str, case: Case) -> None:
    check(name, plan_of(made(name), case))


@pytest.mark.dealt(3)
@pytest.mark.parametrize(("name", "strategy"), dealt(SOURCES, WHOLE, every=3))
def test_moving_whole_components_is_exact(name: str, strategy: str) -> None:
    check(name, plan_for(made(name), STRATEGIES[strategy], budget_bytes=GIB))
