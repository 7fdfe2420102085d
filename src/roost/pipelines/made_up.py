"""Pictures and videos made up for a pipeline's call, where only its work counts: gray, at the output's size."""

from __future__ import annotations

from typing import Any

from PIL import Image

from roost.pipelines.signatures import (
    MASK,
    MASKS,
    begins_with_video,
    is_text_first,
    needed_pictures,
    needed_videos,
    picture_arguments,
    video_arguments,
)

# What a run is most often given, unless text comes first; others count where the call fails without them.
_PICTURES = ("image", "control_image", MASK)
_VIDEOS = ("video", "mask", "control_video", "conditioning_frames")


def made_up_inputs(found: type, width: int, height: int, frames: int | None) -> dict[str, Any]:
    """An input for each argument that a run of the class may be planned for, by name.

    All frames of a video are one and the same picture. Where a call takes a picture or a video to begin with, it gets
    the video, which is more work.
    """
    picture, mask = Image.new("RGB", (width, height), (127, 127, 127)), Image.new("L", (width, height), 255)
    videos = {
        name: [mask if name in MASKS else picture] * (frames or 1)
        for name in video_arguments(found)
        if name in _VIDEOS or name in needed_videos(found)
    }
    usual = () if is_text_first(found) else _PICTURES
    pictures = {
        name: mask if name == MASK else picture
        for name in picture_arguments(found)
        if name in usual or name in needed_pictures(found)
    }
    if "video" in videos and begins_with_video(found):
        pictures.pop("image", None)
    return {**pictures, **videos}
