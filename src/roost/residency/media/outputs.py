"""Generated tensors as picture, video, sound and latent files, each whole or not there."""

from __future__ import annotations

import os
import wave
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save

from roost.errors import RoostError, UsageError
from roost.facts.model import Makes
from roost.shell_quoting import shown_path, unwritable
from roost.temporary import temporary_file

LATENTS = ".safetensors"
_SUFFIX: dict[Makes, str] = {"image": ".png", "video": ".mp4", "audio": ".wav"}
_SHOWN: dict[Makes, str] = {"image": "a picture", "video": "a video", "audio": "sound"}
_MADE: dict[int, Makes] = {2: "audio", 3: "audio", 4: "image", 5: "video"}
_SAMPLES_PER_S = 44_100
_REMEDY = "choose another place with -o"


def check_output_path(path: Path, *, makes: Makes, latent: bool = False) -> None:
    """UsageError unless the suffix fits: .png for pictures, .mp4, .wav, and .safetensors for latents of all."""
    if latent:
        if path.suffix.lower() != LATENTS:
            raise UsageError(f"{shown_path(path)} can't hold latents; give -o a name that ends in {LATENTS}.")
        return
    _check_suffix(path, makes)


def save_latents(tensor: torch.Tensor, path: Path, facts: Mapping[str, str]) -> list[Path]:
    """Writes the tensor ``latents`` as safetensors, with ``facts`` as its metadata; RoostError when that fails."""
    try:
        with temporary_file(path, path.suffix) as temporary:
            # Not save_file: its files are readable by their owner alone, whatever the umask says.
            temporary.write_bytes(save({"latents": tensor.detach().to("cpu").contiguous()}, metadata=dict(facts)))
            os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error, _REMEDY) from None
    return [path]


def save_outputs(
    tensor: torch.Tensor, path: Path, frames_per_s: int = 16, samples_per_s: int | None = None
) -> list[Path]:
    """Writes (batch, channel, height, width) as PNG or (batch, frame, channel, height, width) as MP4, values 0 to 1.

    (batch, sample) and (batch, channel, sample), values -1 to 1, become WAV of 16 bits.
    One output goes to ``path``; several to ``stem-0``, ``stem-1`` … beside it. Raises UsageError when the suffix
    doesn't fit, and RoostError when the files can't be written; none is then left half written.
    """
    makes = _MADE.get(tensor.ndim)
    if makes is None:
        raise RoostError(f"an output of shape {tuple(tensor.shape)} is neither pictures, videos nor sound.")
    _check_suffix(path, makes)
    paths = [path] if len(tensor) == 1 else [path.with_stem(f"{path.stem}-{index}") for index in range(len(tensor))]
    try:
        with ExitStack() as made:
            temporaries = [made.enter_context(temporary_file(each, path.suffix)) for each in paths]
            for output, temporary in zip(tensor, temporaries, strict=True):
                if makes == "audio":
                    _write_sound(output, temporary, samples_per_s or _SAMPLES_PER_S)
                elif makes == "image":
                    Image.fromarray(_pixels(output)).save(temporary, format="PNG")
                else:
                    _write_video(output, temporary, frames_per_s)
            for temporary, each in zip(temporaries, paths, strict=True):
                os.replace(temporary, each)
    except OSError as error:
        raise unwritable(path, error, _REMEDY) from None
    return paths


def _check_suffix(path: Path, makes: Makes) -> None:
    wanted = _SUFFIX[makes]
    if path.suffix.lower() != wanted:
        raise UsageError(f"{shown_path(path)} can't hold {_SHOWN[makes]}; give -o a name that ends in {wanted}.")


def _pixels(picture: torch.Tensor) -> numpy.ndarray:
    """(channel, height, width) as bytes (height, width, RGB); gray and RGBA pictures keep what RGB can show."""
    picture = picture[:3] if picture.shape[0] >= 3 else picture[:1].expand(3, -1, -1)
    levels = picture.detach().to("cpu", torch.float32).nan_to_num().clamp(0, 1).mul(255).round()
    return numpy.ascontiguousarray(levels.to(torch.uint8).permute(1, 2, 0).numpy())


def _write_sound(sound: torch.Tensor, path: Path, samples_per_s: int) -> None:
    """(sample) or (channel, sample) as 16 bits, channels interleaved."""
    channels = sound.detach().to("cpu", torch.float32).reshape(-1, sound.shape[-1])
    levels = channels.nan_to_num().clamp(-1, 1).mul(2**15 - 1).round().to(torch.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(samples_per_s)
        file.writeframes(levels.T.contiguous().numpy().astype("<i2").tobytes())


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
