"""Input videos: read at the workload's size, and cut to one length that the model takes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from roost.api.requests.given_files import sha256_of
from roost.errors import UsageError
from roost.facts.request import Workload
from roost.probes.files.safe_files import open_regular
from roost.shell_quoting import shown_path

if TYPE_CHECKING:
    from PIL.Image import Image

_HEAD_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadVideo:
    """The frames of one file or folder. The hash of a folder is over those of the files that were read."""

    argument: str
    path: str
    sha256: str
    frames: tuple[Image, ...]


def moves(path: str) -> bool:
    """Whether the path is that of a video file or of a folder of frames; InvalidFile for what can't be read."""
    from roost.residency.media.inputs import is_clip  # imported here: beside it lies torch

    return os.path.isdir(path) or is_clip(_head_of(path))


def read_video(argument: str, path: str, workload: Workload, *, keeps_shape: bool) -> ReadVideo:
    """The first frames, as many as the workload has, at its size; a picture is a video of one frame.

    Raises InvalidFile and UsageError for what is neither.
    """
    from roost.pipelines.signatures import MASKS  # imported here: beside these lies torch
    from roost.residency.media.inputs import clip_frames, frame_files, is_clip, resized, shrunk

    def fit(frame: Image) -> Image:
        made = (shrunk if keeps_shape else resized)(frame, workload.width, workload.height)
        return made.convert("L") if argument in MASKS else made

    most = workload.frames or 1
    if os.path.isdir(path):
        files = frame_files(path)[:most]
        hashes = [sha256_of(Path(each)) for each in files]
        frames, sha256 = [_still(each, fit) for each in files], hashlib.sha256("".join(hashes).encode()).hexdigest()
    else:
        head, sha256 = _head_of(path), sha256_of(Path(path))
        frames = clip_frames(path, head, most, fit) if is_clip(head) else [_still(path, fit)]
    return ReadVideo(argument=argument, path=path, sha256=sha256, frames=tuple(frames))


def _still(path: str, fit: Callable[[Image], Image]) -> Image:
    from roost.residency.media.inputs import VIDEO_KINDS, decode_picture

    with open_regular(path, path) as file:
        return fit(decode_picture(file.read_at(0, file.bytes), path, also=VIDEO_KINDS))


def _head_of(path: str) -> bytes:
    with open_regular(path, path) as file:
        return file.read_at(0, min(_HEAD_BYTES, file.bytes))


def of_one_length(videos: Sequence[ReadVideo], chunk: int, wanted: int | None) -> tuple[list[ReadVideo], int]:
    """The videos, each cut to the length of the shortest in whole chunks and one frame more, and that length.

    A mask of one frame stands for all frames. Several of one argument follow one another. With ``wanted`` frames,
    UsageError for a video that is too short for them.
    """
    from roost.pipelines.signatures import MASKS

    lengths: dict[str, int] = {}
    for each in videos:
        lengths[each.argument] = lengths.get(each.argument, 0) + len(each.frames)
    stills = {name for name, length in lengths.items() if name in MASKS and length == 1}
    shortest = min(lengths.keys() - stills or lengths, key=lambda name: lengths[name])
    length = in_chunks(lengths[shortest], chunk)
    if wanted is not None and length < in_chunks(wanted, chunk):
        path = next(each.path for each in videos if each.argument == shortest)
        raise UsageError(
            f"--image {shown_path(path)} has {lengths[shortest]} frames, and {wanted} are wanted; give --frames"
            f" {length} or a longer video."
        )
    widened = [replace(each, frames=each.frames * length) if each.argument in stills else each for each in videos]
    return list(_cut(widened, length)), length


def in_chunks(frames: int, chunk: int) -> int:
    """The most frames up to ``frames`` that are whole chunks and one more."""
    return (frames - 1) // chunk * chunk + 1


def _cut(videos: Sequence[ReadVideo], length: int) -> Iterator[ReadVideo]:
    left: dict[str, int] = {}
    for each in videos:
        room = left.get(each.argument, length)
        yield replace(each, frames=each.frames[:room])
        left[each.argument] = max(0, room - len(each.frames))
