"""Which videos a pipeline class's call takes as lists of frames, and can't do without, from its signature and name."""

from __future__ import annotations

import inspect
import re

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
