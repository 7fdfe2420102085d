"""Small video files for the tests: frames of a moving gradient, in every kind that Roost reads."""

from collections.abc import Sequence
from pathlib import Path

from imageio_ffmpeg import write_frames
from PIL import Image

FRAMES, SIDES = 11, (96, 64)
_CODECS = {".mp4": "libx264", ".mov": "libx264", ".mkv": "libx264", ".avi": "mpeg4", ".webm": "libvpx"}
VIDEO_SUFFIXES = (*_CODECS, ".gif")


def moving_frames(count: int = FRAMES) -> list[Image.Image]:
    """A gradient that turns, RGB."""
    gray = Image.linear_gradient("L")
    return [gray.rotate(15 * index).resize(SIDES).convert("RGB") for index in range(count)]


def write_clip(path: Path, frames: Sequence[Image.Image] | None = None, *options: str) -> Path:
    """A video file of the kind that its suffix says; ``options`` go to ffmpeg."""
    frames = moving_frames() if frames is None else frames
    if path.suffix == ".gif":
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=60)
        return path
    writer = write_frames(
        str(path), frames[0].size, fps=16, codec=_CODECS[path.suffix], macro_block_size=1, output_params=list(options)
    )
    writer.send(None)
    for frame in frames:
        writer.send(frame.tobytes())
    writer.close()
    return path


def write_folder(path: Path, frames: Sequence[Image.Image] | None = None) -> Path:
    """A folder of ``frame0.png``, ``frame1.png`` …, and a file that is none of them."""
    path.mkdir()
    for index, frame in enumerate(moving_frames() if frames is None else frames):
        frame.save(path / f"frame{index}.png")
    (path / "notes.txt").write_text("how they were made")
    return path
