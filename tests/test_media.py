"""Pictures and videos are written whole, under names that fit what they are, and hash as promised."""

import hashlib
from pathlib import Path

import imageio_ffmpeg
import pytest
import torch
from PIL import Image

from roost.errors import RoostError, UsageError
from roost.residency.media.outputs import check_output_path, save_outputs
from roost.residency.run.generate import tensor_digest


def test_a_picture_keeps_its_pixels(tmp_path: Path) -> None:
    picture = torch.zeros(1, 3, 2, 3)
    picture[0, 0, 0, 1], picture[0, 2, 1, 2] = 1.0, 0.5
    (path,) = save_outputs(picture, tmp_path / "fox.png")
    with Image.open(path) as saved:
        assert saved.size == (3, 2)
        assert saved.getpixel((1, 0)) == (255, 0, 0)
        assert saved.getpixel((2, 1)) == (0, 0, 128)


def test_values_outside_0_to_1_and_nan_are_clamped(tmp_path: Path) -> None:
    picture = torch.tensor([2.0, -1.0, float("nan")]).reshape(1, 3, 1, 1)
    (path,) = save_outputs(picture, tmp_path / "fox.png")
    with Image.open(path) as saved:
        assert saved.getpixel((0, 0)) == (255, 0, 0)


def test_several_pictures_are_numbered(tmp_path: Path) -> None:
    paths = save_outputs(torch.rand(3, 3, 8, 8), tmp_path / "fox.png")
    assert [path.name for path in paths] == ["fox-0.png", "fox-1.png", "fox-2.png"]
    assert sorted(tmp_path.iterdir()) == paths


@pytest.mark.parametrize(("height", "width"), [(64, 48), (63, 49)])
def test_a_video_plays_with_every_frame_also_at_odd_sizes(height: int, width: int, tmp_path: Path) -> None:
    (path,) = save_outputs(torch.rand(1, 5, 3, height, width), tmp_path / "fox.mp4", frames_per_s=10)
    reader = imageio_ffmpeg.read_frames(str(path))
    facts = next(reader)
    assert facts["fps"] == 10
    assert facts["size"] == (width + width % 2, height + height % 2)
    assert len(list(reader)) == 5
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("name", "video"), [("fox.mp4", False), ("fox.png", True), ("fox", True), ("fox.jpg", False)])
def test_a_suffix_that_does_not_fit_is_refused(name: str, video: bool, tmp_path: Path) -> None:
    output = torch.rand(1, 2, 3, 8, 8) if video else torch.rand(1, 3, 8, 8)
    with pytest.raises(UsageError, match=r"-o a name that ends in \.(png|mp4)"):
        save_outputs(output, tmp_path / name)
    with pytest.raises(UsageError):
        check_output_path(tmp_path / name, makes="video" if video else "image")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="can't write") as caught:
        save_outputs(torch.rand(1, 3, 8, 8), tmp_path / "absent" / "fox.png")
    assert "\n" not in str(caught.value)


def test_a_failed_video_leaves_no_file(tmp_path: Path) -> None:
    target = tmp_path / "fox.mp4"
    target.mkdir()
    with pytest.raises(RoostError, match="can't write"):
        save_outputs(torch.rand(1, 2, 3, 16, 16), target)
    assert list(tmp_path.iterdir()) == [target]


def test_the_digest_is_over_dtype_shape_and_bytes() -> None:
    wanted = hashlib.sha256(b"torch.float32|(2,)|" + bytes.fromhex("0000803f00000040")).hexdigest()
    assert tensor_digest(torch.tensor([1.0, 2.0])) == wanted
    halves = hashlib.sha256(b"torch.bfloat16|(1, 2)|" + bytes.fromhex("803f0040")).hexdigest()
    assert tensor_digest(torch.tensor([[1.0, 2.0]]).to(torch.bfloat16)) == halves


def test_the_digest_sees_values_not_strides() -> None:
    tensor = torch.randn(3, 4)
    assert tensor_digest(tensor) == tensor_digest(tensor.T.contiguous().T)
    assert tensor_digest(tensor) != tensor_digest(tensor.T)
    assert tensor_digest(torch.tensor(1.0)) != tensor_digest(torch.tensor([1.0]))
