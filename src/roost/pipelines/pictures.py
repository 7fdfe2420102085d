"""Which pictures a pipeline class's call takes and can't do without, from its signature and its name."""

from __future__ import annotations

import inspect
import re

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
