"""Input pictures as typed, ``[ARGUMENT=]PATH``, for the pipeline class that they go to."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roost.errors import UsageError
from roost.facts import Workload
from roost.probes.regular_files import open_regular
from roost.units import format_bytes

_NAMED = re.compile(r"([A-Za-z_]\w*)=(.+)", re.DOTALL)
_MOST_BYTES = 256 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRecord:
    """A picture file that a run was given, and the argument of the pipeline's call that it became."""

    argument: str
    path: str
    sha256: str


def read_pictures(
    texts: Sequence[str], found: type, workload: Workload
) -> tuple[Mapping[str, Any], tuple[PictureRecord, ...]]:
    """The pictures by argument, at the workload's size, and their records.

    Raises UsageError for a pipeline that takes no picture, lacks one or gets one too many, InvalidFile and UsageError
    for files that hold none.
    """
    from roost.pipelines.pictures import keeps_shape, needed_pictures, takes_several  # beside it lies torch
    from roost.residency.pictures import decode_picture, resized, shrunk

    named = [_parsed(text, found) for text in texts]
    given: dict[str, list[Any]] = {}
    records = []
    for argument, path in named:
        raw = _read(path)
        picture = decode_picture(raw, path, mask=argument == "mask_image")
        fit = shrunk if argument == "image" and keeps_shape(found) else resized
        given.setdefault(argument, []).append(fit(picture, workload.width, workload.height))
        records.append(PictureRecord(argument=argument, path=path, sha256=hashlib.sha256(raw).hexdigest()))
    for argument, pictures in given.items():
        if len(pictures) > 1 and not (argument == "image" and takes_several(found)):
            raise UsageError(f"--image: {found.__name__} takes one picture as {argument!r}; give one.")
    missing = [name for name in needed_pictures(found) if name not in given]
    if missing:
        options = " ".join("--image PATH" if name == "image" else f"--image {name}=PATH" for name in missing)
        raise UsageError(f"{found.__name__} needs {' and '.join(map(repr, missing))}; give {options}.")
    return {name: each[0] if len(each) == 1 else each for name, each in given.items()}, tuple(records)


def _parsed(text: str, found: type) -> tuple[str, str]:
    """Argument and path. A file of the very name goes first: paths may hold ``=``."""
    from roost.pipelines.pictures import picture_arguments, picture_siblings

    taken = picture_arguments(found)
    if not taken:
        siblings = picture_siblings(found)
        instead = f", or run a model whose model_index.json names {' or '.join(siblings)}" if siblings else ""
        raise UsageError(f"--image: {found.__name__} takes no picture; leave --image out{instead}.")
    match = None if os.path.isfile(text) else _NAMED.fullmatch(text)
    argument, path = (match[1], match[2]) if match else (taken[0], text)
    if argument not in taken:
        raise UsageError(f"--image {text!r}: {found.__name__} has no {argument!r}; it takes {', '.join(taken)}.")
    return argument, path


def _read(path: str) -> bytes:
    with open_regular(path, path) as file:
        if file.bytes > _MOST_BYTES:
            raise UsageError(f"--image {path!r} has {format_bytes(file.bytes)}; make it smaller.")
        return file.read_at(0, file.bytes)
