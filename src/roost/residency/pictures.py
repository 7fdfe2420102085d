"""Picture files as the input of a pipeline: decoded with limits, upright, and of a size that the plan is for."""

from __future__ import annotations

import io
import math

from PIL import Image, ImageOps

from roost.errors import UsageError

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_MOST_PIXELS = 100_000_000
_LEAST_SIDE = 16


def decode_picture(raw: bytes, where: str, *, mask: bool = False) -> Image.Image:
    """The first picture in ``raw``, as RGB, or as gray for a mask; UsageError, naming ``where``, for anything else."""
    try:
        with Image.open(io.BytesIO(raw), formats=_FORMATS) as file:
            width, height = file.size
            if width * height > _MOST_PIXELS or min(width, height) < _LEAST_SIDE:
                raise _wrong_size(where, f"{width}×{height}")
            upright = ImageOps.exif_transpose(file)
            return upright.convert("L" if mask else "RGB")
    except UsageError:
        raise
    except Image.DecompressionBombError:
        raise _wrong_size(where, "far too many") from None
    except Exception:  # decoders raise every kind for a broken file
        kinds = ", ".join(_FORMATS)
        raise UsageError(f"--image {where!r} is no whole picture of a kind that Roost reads ({kinds}).") from None


def _wrong_size(where: str, pixels: str) -> UsageError:
    return UsageError(
        f"--image {where!r} has {pixels} pixels; Roost takes pictures with sides from {_LEAST_SIDE} and"
        f" {_MOST_PIXELS // 10**6} million pixels at most."
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
