"""Generated tensors as picture, video and latent files, each whole or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import numpy
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save

from roost.errors import RoostError, UsageError

LATENTS = ".safetensors"
_SUFFIX = {4: ".png", 5: ".mp4"}
_SHOWN = {4: "a picture", 5: "a video"}


def check_output_path(path: Path, *, video: bool, latent: bool = False) -> None:
    """UsageError unless the suffix fits: .png for pictures, .mp4 for videos, .safetensors for latents of both."""
    if latent:
        if path.suffix.lower() != LATENTS:
            raise UsageError(f"{str(path)!r} can't hold latents; give -o a name that ends in {LATENTS}.")
        return
    _check_suffix(path, 5 if video else 4)


def save_latents(tensor: torch.Tensor, path: Path, facts: Mapping[str, str]) -> list[Path]:
    """Writes the tensor ``latents`` as safetensors, with ``facts`` as its metadata; RoostError when that fails."""
    temporary = _temporary(path)
    try:
        # Not save_file: its files are readable by their owner alone, whatever the umask says.
        temporary.write_bytes(save({"latents": tensor.detach().to("cpu").contiguous()}, metadata=dict(facts)))
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise _unwritable(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)
    return [path]


def save_outputs(tensor: torch.Tensor, path: Path, frames_per_s: int = 16) -> list[Path]:
    """Writes (batch, channel, height, width) as PNG or (batch, frame, channel, height, width) as MP4, values 0 to 1.

    One output goes to ``path``; several to ``stem-0``, ``stem-1`` … beside it. Raises UsageError when the suffix
    doesn't fit, and RoostError when the files can't be written; none is then left half written.
    """
    if tensor.ndim not in _SUFFIX:
        raise RoostError(f"an output of shape {tuple(tensor.shape)} is neither pictures nor videos.")
    _check_suffix(path, tensor.ndim)
    paths = [path] if len(tensor) == 1 else [path.with_stem(f"{path.stem}-{index}") for index in range(len(tensor))]
    temporaries = [_temporary(each) for each in paths]
    try:
        for output, temporary in zip(tensor, temporaries, strict=True):
            if tensor.ndim == 4:
                Image.fromarray(_pixels(output)).save(temporary, format="PNG")
            else:
                _write_video(output, temporary, frames_per_s)
        for temporary, each in zip(temporaries, paths, strict=True):
            os.replace(temporary, each)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
    return paths


def _unwritable(path: Path, error: Exception) -> RoostError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    return RoostError(f"can't write {str(path)!r}: {reason}; choose another place with -o.")


def _check_suffix(path: Path, dimensions: int) -> None:
    wanted = _SUFFIX[dimensions]
    if path.suffix.lower() != wanted:
        raise UsageError(f"{str(path)!r} can't hold {_SHOWN[dimensions]}; give -o a name that ends in {wanted}.")


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{os.getpid()}.{secrets.token_hex(4)}.roost-tmp{path.suffix}")


def _pixels(picture: torch.Tensor) -> numpy.ndarray:
    """(channel, height, width) as bytes (height, width, RGB); gray and RGBA pictures keep what RGB can show."""
    picture = picture[:3] if picture.shape[0] >= 3 else picture[:1].expand(3, -1, -1)
    levels = picture.detach().to("cpu", torch.float32).nan_to_num().clamp(0, 1).mul(255).round()
    return numpy.ascontiguousarray(levels.to(torch.uint8).permute(1, 2, 0).numpy())


def _write_video(frames: torch.Tensor, path: Path, frames_per_s: int) -> None:
    from imageio_ffmpeg import write_frames  # type: ignore[import-untyped]  # imported here: pictures don't need it

    pictures = [_evened(_pixels(frame)) for frame in frames]
    height, width = pictures[0].shape[:2]
    writer = write_frames(
        str(path),
        (width, height),
        fps=frames_per_s,
        codec="libx264",
        quality=8,
        macro_block_size=1,
        ffmpeg_log_level="error",
    )
    try:
        writer.send(None)
        for picture in pictures:
            writer.send(picture)
    finally:
        writer.close()


def _evened(picture: numpy.ndarray) -> numpy.ndarray:
    """H.264 players want even sides: an odd one gets its last line twice."""
    height, width = picture.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return picture
    return numpy.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
