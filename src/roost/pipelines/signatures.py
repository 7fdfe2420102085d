"""What a pipeline's call takes, from its signature and name: pictures, videos, frames; and the rate of its sound."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

FRAMES = ("num_frames", "video_length", "frames")
BATCH = ("num_images_per_prompt", "num_videos_per_prompt", "num_waveforms_per_prompt")


def call_parameters(pipeline: type) -> Mapping[str, inspect.Parameter]:
    """The parameters of the pipeline class's call."""
    return inspect.signature(pipeline.__call__).parameters


def name_among(names: Sequence[str], parameters: Mapping[str, inspect.Parameter]) -> str | None:
    """The first of ``names`` that the call has."""
    return next((name for name in names if name in parameters), None)


def takes_list(parameters: Mapping[str, inspect.Parameter], name: str) -> bool:
    """Whether the parameter is annotated as one that may be a list; True where the annotation says nothing."""
    found = parameters.get(name)
    if found is None:
        return False
    return found.annotation is found.empty or "list" in str(found.annotation).lower()


def needed_parameters(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """Those without a default, which a caller must give by name."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        name
        for name, each in parameters.items()
        if each.default is each.empty and each.kind in by_name and name != "self"
    ]


# Which pictures a pipeline class's call takes and can't do without, from its signature and its name.


# What is a picture on its own; ip_adapter_image needs weights that no model directory has.
ARGUMENTS = (
    "image",
    "last_image",
    "mask_image",
    "control_image",
    "image_reference",
    "ref_image",
    "reference_image",
    "cond_image",
    "reference_images",
)
MASK, _LIST = "mask_image", "reference_images"

# Signatures say None by default where the code then fails, so the names of the classes tell.
_STARTS_FROM = re.compile(
    r"(Img|Depth)2Img|Image2Image|Image(To|2)(Video|Image)|(?<!T)I2[VI]|Inpaint|Edit|Fill|Upscale|SuperResolution|Refiner"
    r"|Pix2Pix|Adapter|ImageVariation|StableVideoDiffusion|QwenImageLayered"
)
_LOOKS_AT = re.compile(r"Edit|Kontext|^Flux2|GlmImage|Omni|QwenImageLayered")
# Most runs of these have a text alone.
_TEXT_FIRST = re.compile(r"^(Flux2(Klein(KV)?)?|GlmImage|QwenImage21|BriaFibo2|DreamLite(Mobile)?)Pipeline$")
_SEVERAL = re.compile(r"^(Flux2(Klein(KV)?)?|QwenImageEditPlus|GlmImage|ZImageOmni)Pipeline$")


def picture_arguments(found: type) -> tuple[str, ...]:
    """The pictures that the class's call has parameters for."""
    parameters = inspect.signature(found.__call__).parameters
    return tuple(name for name in ARGUMENTS if name in parameters)


def needed_pictures(found: type) -> tuple[str, ...]:
    """Those without which the call fails."""
    parameters, name = inspect.signature(found.__call__).parameters, found.__name__
    control = "Control" in name
    by_name = {
        "image": _STARTS_FROM.search(name) is not None or (control and "control_image" not in parameters),
        MASK: "Inpaint" in name or "Fill" in name,
        "control_image": control,
    }
    return tuple(
        each
        for each in picture_arguments(found)
        if parameters[each].default is inspect.Parameter.empty or by_name.get(each, False)
    )


def is_text_first(found: type) -> bool:
    """Whether the class's pictures are an extra beside its text, which most runs do without."""
    return _TEXT_FIRST.match(found.__name__) is not None


def takes_several(found: type, argument: str = "image") -> bool:
    """Whether the argument may be a list of pictures for one output, and not one picture for each."""
    return argument == _LIST or (argument == "image" and _SEVERAL.match(found.__name__) is not None)


def keeps_shape(found: type, argument: str = "image") -> bool:
    """Whether the class looks at pictures of any shape, instead of starting from one of the output's size."""
    return argument == _LIST or (argument == "image" and _LOOKS_AT.search(found.__name__) is not None)


def picture_siblings(found: type) -> list[str]:
    """Names of diffusers' classes of the same family that start from a picture or a video."""
    import diffusers

    base = found.__name__.removesuffix("Pipeline")
    names = (
        f"{base}{kind}Pipeline" for kind in ("Img2Img", "ImageToVideo", "Image2Video", "VideoToVideo", "Edit", "I2V")
    )
    return [name for name in names if hasattr(diffusers, name)]


# Which videos a pipeline class's call takes as lists of frames, and can't do without, from its signature and name.


MASKS = ("mask", "mask_video")
KEEPS_SHAPE = ("face_video",)  # the pipeline brings it to a size of its own
_ARGUMENTS = (
    "video",
    "control_video",
    "conditioning_frames",
    "pose_video",
    "face_video",
    "background_video",
    *MASKS,
)
# Others want a tensor, each of a shape of its own.
_TAKES_FRAMES = re.compile(r"Image|PIL|ndarray")

# Signatures say None by default where the code then fails, so the names of the classes tell.
_NEEDED = {
    "video": re.compile(r"VideoToVideo|Video2Video|V2V|Upsample"),
    "control_video": re.compile("Control"),
    "conditioning_frames": re.compile("Control"),
}
_ONE_OF_BOTH = re.compile(r"VideoToWorld")
_BEGINS_WITH = re.compile(r"Condition|VideoToWorld|PredictBase|Omni|DiffusionForcing|Helios|FAR")


def video_arguments(found: type) -> tuple[str, ...]:
    """The videos that the class's call takes as lists of pictures; a mask only beside what it masks."""
    parameters = inspect.signature(found.__call__).parameters
    return tuple(
        name
        for name in _ARGUMENTS
        if name in parameters
        and (name != "mask" or "video" in parameters)
        and _TAKES_FRAMES.search(str(parameters[name].annotation))
    )


def needed_videos(found: type) -> tuple[str, ...]:
    """Those without which the call fails."""
    parameters = inspect.signature(found.__call__).parameters
    return tuple(
        name
        for name in video_arguments(found)
        if parameters[name].default is inspect.Parameter.empty
        or (name in _NEEDED and _NEEDED[name].search(found.__name__))
    )


def needs_picture_or_video(found: type) -> bool:
    """Whether the call fails without a picture or a video, either of them."""
    return _ONE_OF_BOTH.search(found.__name__) is not None


def begins_with_video(found: type) -> bool:
    """Whether a video is what the output begins with or is held to, and not what it has frame by frame."""
    return _BEGINS_WITH.search(found.__name__) is not None


# How fast the sound of a pipeline is to be played, as its components' configs say.


# What makes the waveform goes first.
_COMPONENTS = ("vocoder", "audio_vae", "vae", "unet", "feature_extractor")
_NAMES = ("output_sampling_rate", "sampling_rate", "sample_rate")


def samples_per_s(pipeline: Any) -> int | None:
    """Samples a second; None where nothing says it."""
    for component in _COMPONENTS:
        part = getattr(pipeline, component, None)
        for place in (getattr(part, "config", None), part):
            for name in _NAMES:
                rate = getattr(place, name, None)
                if type(rate) is int and rate > 0:
                    return rate
    return None
