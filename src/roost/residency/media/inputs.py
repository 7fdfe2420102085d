"""Picture and video files as a pipeline's input: decoded with limits, upright, at a size that the plan is for."""

from __future__ import annotations

import io
import math
import os
import re
import subprocess
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import islice
from typing import IO

from PIL import Image, ImageOps

from roost.errors import UsageError
from roost.shell_quoting import shown_path

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
MOST_PIXELS = 100_000_000
_LEAST_SIDE = 16


def decode_picture(raw: bytes, where: str, *, mask: bool = False, also: str | None = None) -> Image.Image:
    """The first picture in ``raw``, as RGB, or as gray for a mask; UsageError, naming ``where``, for anything else.

    ``also`` says which other kinds would have been read.
    """
    try:
        with Image.open(io.BytesIO(raw), formats=_FORMATS) as file:
            check_pixels(where, file.size)
            upright = ImageOps.exif_transpose(file)
            return upright.convert("L" if mask else "RGB")
    except UsageError:
        raise
    except Image.DecompressionBombError:
        raise _wrong_size(where, "far too many") from None
    except Exception:  # decoders raise every kind for a broken file
        kinds, what = ", ".join(_FORMATS), "picture"
        if also is not None:
            kinds, what = f"{kinds}, {also}", "picture or video"
        raise UsageError(
            f"--image {shown_path(where)} is no whole {what} of a kind that Roost reads ({kinds})."
        ) from None


def check_pixels(where: str, size: tuple[int, int]) -> None:
    """UsageError for a picture, or a video's frame, that is too large or too small."""
    if size[0] * size[1] > MOST_PIXELS or min(size) < _LEAST_SIDE:
        raise _wrong_size(where, f"{size[0]}×{size[1]}")


def _wrong_size(where: str, pixels: str) -> UsageError:
    return UsageError(
        f"--image {shown_path(where)} has {pixels} pixels; Roost takes pictures with sides from {_LEAST_SIDE} and"
        f" {MOST_PIXELS // 10**6} million pixels at most."
    )


def resized(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture at just this size, as diffusers' processors make it."""
    if picture.size == (width, height):
        return picture
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def shrunk(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture in its own shape, with no more pixels than ``width`` × ``height`` have."""
    factor = math.sqrt(width * height / (picture.width * picture.height))
    if factor >= 1:
        return picture
    return resized(picture, max(1, int(picture.width * factor)), max(1, int(picture.height * factor)))


# Video files and folders of pictures as the frames that a pipeline takes, each resized as soon as it is decoded.


VIDEO_KINDS = "MP4, MOV, WebM, MKV, AVI, GIF"

Fit = Callable[[Image.Image], Image.Image]

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_SIGNATURE_BYTES, _LONGEST_LINE = 12, 64
_ANIMATED = ("GIF", "WEBP", "PNG")
_DIGITS = re.compile(r"(\d+)")


def demuxer_of(head: bytes) -> str | None:
    """ffmpeg's name for the container that a file begins as: MP4 and MOV, Matroska and WebM, or AVI; else None.

    ffmpeg is told and never left to guess: a playlist could name other files and addresses.
    """
    head = head[:_SIGNATURE_BYTES]
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    return "avi" if head[:4] == b"RIFF" and head[8:12] == b"AVI " else None


def is_clip(head: bytes) -> bool:
    """Whether a file with these first bytes is a video rather than a picture."""
    return demuxer_of(head) is not None or head[:4] == b"GIF8"


def clip_frames(path: str, head: bytes, most: int, fit: Fit) -> list[Image.Image]:
    """The first frames of a video file, ``most`` at most; UsageError for a file that has none or is broken in them."""
    demuxer = demuxer_of(head)
    frames = []
    try:
        with closing(_animation(path) if demuxer is None else _decoded(path, demuxer, most)) as decoded:
            for frame in islice(decoded, most):
                frames.append(fit(frame))
    except UsageError:
        raise
    except Exception:  # decoders raise every kind for a broken file
        frames.clear()
    if not frames:
        raise UsageError(f"--image {shown_path(path)} is no whole video of a kind that Roost reads ({VIDEO_KINDS}).")
    return frames


def _decoded(path: str, demuxer: str, most: int) -> Generator[Image.Image, None, None]:
    """Frames from ffmpeg, upright and at a constant rate; ValueError where it says that something is broken."""
    from imageio_ffmpeg import get_ffmpeg_exe  # type: ignore[import-untyped]  # imported here: pictures don't need it

    reading = ("-f", demuxer, "-protocol_whitelist", "file", "-max_pixels", str(MOST_PIXELS), "-err_detect", "explode")
    writing = ("-map", "0:v:0", "-frames:v", str(most), "-c:v", "ppm", "-pix_fmt", "rgb24", "-f", "image2pipe", "-")
    command = (get_ffmpeg_exe(), "-v", "quiet", "-nostdin", "-xerror", *reading, "-i", f"file:{os.path.abspath(path)}")
    process = subprocess.Popen((*command, *writing), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None, "it was asked for"
    try:
        while (frame := _next_ppm(process.stdout, path)) is not None:
            yield frame
        if process.wait() != 0:
            raise ValueError("ffmpeg stopped at an error")
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def _next_ppm(stream: IO[bytes], path: str) -> Image.Image | None:
    """One of the pictures that ffmpeg writes one after another, each with its size; None after the last."""
    header = [stream.readline(_LONGEST_LINE) for _ in range(3)]
    if not header[0]:
        return None
    width, height = (int(each) for each in header[1].split())
    check_pixels(path, (width, height))
    return Image.frombytes("RGB", (width, height), stream.read(width * height * 3))


def _animation(path: str) -> Generator[Image.Image, None, None]:
    """The frames of a GIF, WebP or PNG."""
    with Image.open(path, formats=_ANIMATED) as file:
        check_pixels(path, file.size)
        for index in range(getattr(file, "n_frames", 1)):
            file.seek(index)
            yield file.convert("RGB")


def frame_files(folder: str) -> list[str]:
    """The pictures in a folder by name, ``frame2.png`` before ``frame10.png``; UsageError where there is none."""
    try:
        names = [each for each in os.listdir(folder) if each.lower().endswith(FRAME_SUFFIXES) and each[0] != "."]
    except OSError as error:
        raise UsageError(f"--image {shown_path(folder)} can't be read: {error.strerror}.") from None
    if not names:
        kinds = ", ".join(each[1:] for each in FRAME_SUFFIXES)
        raise UsageError(
            f"--image {shown_path(folder)} is a folder without pictures ({kinds}); give one with a video's frames."
        )
    return [os.path.join(folder, each) for each in sorted(names, key=_by_number)]


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(name)]
