"""What the calls of diffusers' pipeline classes take and make, read from their signatures and their own code."""

from __future__ import annotations

import inspect
import re

from roost.pipelines.signatures import needed_pictures, needed_videos, needs_picture_or_video

# An output class's first field says what a call makes: images=, frames=, videos=, audios=, prediction= and so on.
FIRST_FIELD = re.compile(r"Output\(\s*(\w+)=")
VIDEO_FIELDS = ("frames", "videos", "video")
AUDIO_FIELDS = ("audios", "audio")
FRAMES_PARAMETERS = ("num_frames", "video_length", "frames")
# The call's parameters whose defaults are a workload.
DEFAULTS = {"width": "width", "height": "height", "num_inference_steps": "steps"}


def pipeline_facts() -> dict[str, dict[str, object]]:
    """Facts by class name, for every pipeline class that diffusers offers; what is usual is left out."""
    import diffusers

    names = {each for names in diffusers._import_structure.values() for each in names if each.endswith("Pipeline")}
    found = {name: pipeline_class(diffusers, name) for name in sorted(names)}
    return {name: facts_of(each) for name, each in found.items() if each is not None}


def pipeline_class(library: object, name: str) -> type | None:
    from diffusers import DiffusionPipeline

    try:
        found = getattr(library, name)
    except Exception:  # a lazy import that fails for want of another package
        return None
    a_pipeline = isinstance(found, type) and issubclass(found, DiffusionPipeline)
    return found if a_pipeline and inspect.isfunction(found.__call__) else None


def facts_of(found: type) -> dict[str, object]:
    parameters = inspect.signature(found.__call__).parameters
    fields = FIRST_FIELD.findall(inspect.getsource(inspect.unwrap(found.__call__)))
    first = fields[0] if fields else ""
    frames = next((each for each in FRAMES_PARAMETERS if each in parameters), None)
    facts: dict[str, object] = {}
    if first in AUDIO_FIELDS:
        facts["makes"] = "audio"
    elif first in VIDEO_FIELDS or frames is not None:
        facts["makes"] = "video"
    if "prompt" not in parameters:
        facts["prompt"] = False
    defaults = {fact: parameters[name].default for name, fact in DEFAULTS.items() if name in parameters}
    if frames is not None:
        defaults["frames"] = parameters[frames].default
    facts |= {name: each for name, each in defaults.items() if type(each) is int}
    # Beside a denoise_strength it is something else: how much a given frame is kept.
    if "strength" in parameters and "denoise_strength" not in parameters:
        facts["strength"] = parameters["strength"].default
    needs = [*needed_pictures(found), *needed_videos(found)]
    if needs or needs_picture_or_video(found):
        facts["needs"] = needs or ["image"]
    return facts
