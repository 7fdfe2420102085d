"""Input pictures and videos as typed, ``[ARGUMENT=]PATH``, for the pipeline class that they go to."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from roost.api.requests.video_inputs import moves, of_one_length, read_video
from roost.errors import UsageError
from roost.facts.request import Workload
from roost.probes.files.safe_files import open_regular
from roost.shell_quoting import shown_path
from roost.units import format_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

_NAMED = re.compile(r"([A-Za-z_]\w*)=(.+)", re.DOTALL)
_MOST_BYTES = 256 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRecord:
    """A file or folder that a run was given, and the argument of the pipeline's call that it became.

    ``frames`` is how many of its frames are used; None for a picture. The hash of a folder is over those of its files.
    """

    argument: str
    path: str
    sha256: str
    frames: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The inputs by argument. ``workload`` has as many frames as the videos; ``beyond`` is what no plan counts."""

    arguments: Mapping[str, Any]
    records: tuple[InputRecord, ...]
    workload: Workload
    beyond: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputQuestion:
    """What inputs are for: the pipeline class, the workload, whether its frames were typed, and the VAE's chunk."""

    found: type
    workload: Workload
    frames_typed: bool
    frame_chunk: int


def read_inputs(texts: Sequence[str], asked: InputQuestion) -> Inputs:
    """The pictures and videos at the workload's size; videos at its length, or as long as they are.

    Raises UsageError for a pipeline that takes no such input, lacks one or gets one too many, InvalidFile and
    UsageError for files that hold none.
    """
    from roost.pipelines.signatures import video_arguments  # beside it lies torch

    named = [_parsed(text, asked.found) for text in texts]
    _check_needed(asked.found, {argument for argument, _ in named})
    of_videos = video_arguments(asked.found)
    pictures = _read_pictures([each for each in named if each[0] not in of_videos], asked)
    videos = _read_videos([each for each in named if each[0] in of_videos], asked)
    return Inputs(
        arguments={**pictures.arguments, **videos.arguments},
        records=(*pictures.records, *videos.records),
        workload=videos.workload,
        beyond=pictures.beyond,
    )


def _parsed(text: str, found: type) -> tuple[str, str]:
    """Argument and path. A file of the very name goes first: paths may hold ``=``."""
    from roost.pipelines.signatures import picture_arguments, picture_siblings, video_arguments

    pictures, videos = picture_arguments(found), video_arguments(found)
    taken = (*pictures, *videos)
    if not taken:
        siblings = picture_siblings(found)
        instead = f", or run a model whose model_index.json names {' or '.join(siblings)}" if siblings else ""
        raise UsageError(f"--image: {found.__name__} takes no picture or video; leave --image out{instead}.")
    match = None if os.path.exists(text) else _NAMED.fullmatch(text)
    argument, path = (match[1], match[2]) if match else (None, text)
    if argument is not None and argument not in taken:
        raise UsageError(
            f"--image {shown_path(text)}: {found.__name__} has no {argument!r}; it takes {', '.join(taken)}."
        )
    moving = (argument is None or argument in pictures) and moves(path)
    if argument is None:
        argument = videos[0] if videos and (moving or not pictures) else taken[0]
    if moving and argument in pictures:
        raise UsageError(
            f"--image {shown_path(path)} is a video, and {found.__name__} takes a picture as {argument!r}; give one."
        )
    return argument, path


def _check_needed(found: type, given: Container[str]) -> None:
    """UsageError for the first call that can't do without what is not given."""
    from roost.pipelines.signatures import needed_pictures, needed_videos, needs_picture_or_video, video_arguments

    needed = (*needed_pictures(found), *needed_videos(found))
    missing = [name for name in needed if name not in given]
    if missing:
        plain = ("image", *video_arguments(found)[:1])
        options = " ".join("--image PATH" if name in plain else f"--image {name}=PATH" for name in missing)
        raise UsageError(f"{found.__name__} needs {' and '.join(map(repr, missing))}; give {options}.")
    if needs_picture_or_video(found) and "image" not in given and "video" not in given:
        raise UsageError(f"{found.__name__} needs a picture or a video to begin with; give --image PATH.")


def _read_pictures(named: Sequence[tuple[str, str]], asked: InputQuestion) -> Inputs:
    from roost.pipelines.made_up import made_up_inputs
    from roost.pipelines.signatures import takes_several

    given: dict[str, list[Image]] = {}
    records = []
    for argument, path in named:
        picture, record = _read_picture(argument, path, asked)
        given.setdefault(argument, []).append(picture)
        records.append(record)
    for argument, each in given.items():
        if len(each) > 1 and not takes_several(asked.found, argument):
            raise UsageError(f"--image: {asked.found.__name__} takes one picture as {argument!r}; give one.")
    planned = made_up_inputs(asked.found, 1, 1, 1)
    beyond = [
        f"{argument}: {len(each)} picture{'s' * (len(each) > 1)}, and the plan counts {int(argument in planned)}"
        for argument, each in given.items()
        if len(each) > int(argument in planned)
    ]
    arguments = {name: each if len(each) > 1 else each[0] for name, each in given.items()}
    return Inputs(arguments=arguments, records=tuple(records), workload=asked.workload, beyond=tuple(beyond))


def _read_picture(argument: str, path: str, asked: InputQuestion) -> tuple[Image, InputRecord]:
    from roost.pipelines.signatures import MASK, keeps_shape
    from roost.residency.media.inputs import decode_picture, resized, shrunk

    raw = _read(path)
    picture = decode_picture(raw, path, mask=argument == MASK)
    fit = shrunk if keeps_shape(asked.found, argument) else resized
    record = InputRecord(argument=argument, path=path, sha256=hashlib.sha256(raw).hexdigest(), frames=None)
    return fit(picture, asked.workload.width, asked.workload.height), record


def _read_videos(named: Sequence[tuple[str, str]], asked: InputQuestion) -> Inputs:
    """The videos as lists of frames; the output is as long as they are, unless it only begins with them."""
    from roost.pipelines.signatures import KEEPS_SHAPE, begins_with_video

    if not named:
        return Inputs(arguments={}, records=(), workload=asked.workload, beyond=())
    begins = begins_with_video(asked.found)
    wanted = asked.workload.frames if asked.frames_typed and not begins else None
    read = [read_video(name, path, asked.workload, keeps_shape=name in KEEPS_SHAPE) for name, path in named]
    videos, length = of_one_length(read, asked.frame_chunk, wanted)
    arguments: dict[str, list[Image]] = {}
    for each in videos:
        arguments.setdefault(each.argument, []).extend(each.frames)
    return Inputs(
        arguments=arguments,
        records=tuple(
            InputRecord(argument=each.argument, path=each.path, sha256=each.sha256, frames=len(each.frames))
            for each in videos
        ),
        workload=asked.workload if begins else replace(asked.workload, frames=length),
        beyond=(),
    )


def _read(path: str) -> bytes:
    with open_regular(path, path) as file:
        if file.bytes > _MOST_BYTES:
            raise UsageError(f"--image {shown_path(path)} has {format_bytes(file.bytes)}; make it smaller.")
        return file.read_at(0, file.bytes)
