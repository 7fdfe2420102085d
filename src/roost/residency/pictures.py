"""Picture files as the input of a pipeline: decoded with limits, upright, and of a size that the plan is for."""

from __future__ import annotations

import io
import math

from PIL import Image, ImageOps

from roost.errors import UsageError
from roost.shell import shown_path

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
