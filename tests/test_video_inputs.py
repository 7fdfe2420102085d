"""Videos as a pipeline's input: which classes take and need them, how files become frames, and what is refused."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import load_video
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

import roost
from clips import FRAMES, SIDES, VIDEO_SUFFIXES, moving_frames, write_clip, write_folder
from live_pipelines import held_by
from plans import plan_for
from roost.cli.app import run
from roost.pipelines.calls import GenerationRequest
from roost.pipelines.made_up import made_up_inputs
from roost.pipelines.quiet import quiet_libraries
from roost.pipelines.signatures import begins_with_video, needed_videos, video_arguments
from roost.residency.media.inputs import clip_frames, demuxer_of, frame_files
from roost.residency.run.calls import accepts
from roost.residency.run.generate import generate
from tiny_video_inputs import BUILDERS

SIZE, PLANNED_FRAMES = 64, 9
Planned = Callable[[str], Path]


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    """A plan, from a dry run, of a tiny pipeline by its class; the model lies beside it."""

    @functools.cache
    def make(pipeline: str) -> Path:
        model = BUILDERS[pipeline](tmp_path_factory.mktemp("videos") / "model")
        gpu = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0", "--dtype", "float32")
        workload = ("--size", f"{SIZE}x{SIZE}", "--steps", "4", "--frames", str(PLANNED_FRAMES))
        assert run(["plan", str(model), *gpu, *workload, "-o", str(model.with_suffix(".yaml"))]) == 0
        return model.with_suffix(".yaml")

    return make


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


def _record(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["run", *map(str, words), "--prompt", "a fox", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def _refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert run(["run", *map(str, words), "--prompt", "a fox", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.dealt(2)
@pytest.mark.parametrize("name", BUILDERS)
def test_a_run_gives_what_the_pipeline_gives_for_the_frames_that_diffusers_loads(
    name: str, planned: Planned, clip: Path, capsys
) -> None:
    record = _record(capsys, planned(name), "--image", clip)
    with quiet_libraries():
        pipeline = DiffusionPipeline.from_pretrained(planned(name).with_suffix(""))
    frames = [each.resize((SIZE, SIZE), Image.Resampling.LANCZOS) for each in load_video(str(clip))[:PLANNED_FRAMES]]
    workload = roost.load_plan(planned(name)).workload
    request = GenerationRequest(
        prompt="a fox",
        steps=4,
        frames=PLANNED_FRAMES if accepts(type(pipeline), "num_frames") else None,
        guidance=workload.guidance,
        strength=workload.strength,
        more={"video": frames, "width": SIZE, "height": SIZE},
    )
    with torch.no_grad(), held_by(pipeline, plan_for(pipeline)) as held:
        assert generate(held, request).digest == record["digest"]
    assert "encode image" in [each["name"] for each in record["stages"]]
    assert [(each["argument"], each["frames"]) for each in record["pictures"]] == [("video", PLANNED_FRAMES)]


def test_a_file_a_folder_and_single_pictures_of_the_same_frames_give_the_same_video(planned, tmp_path, capsys) -> None:
    plan = planned("CogVideoXVideoToVideoPipeline")
    folder = write_folder(tmp_path / "frames", moving_frames(PLANNED_FRAMES))
    gif = write_clip(tmp_path / "frames.gif", [each.convert("L") for each in moving_frames(PLANNED_FRAMES)])
    single = [word for index in range(PLANNED_FRAMES) for word in ("--image", folder / f"frame{index}.png")]
    runs = [_record(capsys, plan, *words) for words in (("--image", folder), ("--image", gif), single)]
    assert len({each["digest"] for each in runs}) == 1
    assert [len(each["pictures"]) for each in runs] == [1, 1, PLANNED_FRAMES]
    assert len({each["pictures"][0]["sha256"] for each in runs}) == 3


def test_a_long_video_is_cut_and_a_short_one_gives_a_shorter_output(planned, tmp_path, capsys) -> None:
    plan = planned("WanVideoToVideoPipeline")
    for frames, used in ((20, 9), (8, 5), (1, 1)):
        clip = write_folder(tmp_path / f"of{frames}", moving_frames(frames))
        output = tmp_path / f"of{frames}.mp4"
        record = _record(capsys, plan, "--image", clip, "-o", output)
        assert record["pictures"][0]["frames"] == used  # whole chunks of four, and one
        assert len(load_video(str(output))) == used


def test_frames_that_were_asked_for_and_are_not_there_are_refused_with_how_many_are(planned, tmp_path, capsys) -> None:
    clip = write_folder(tmp_path / "of7", moving_frames(7))
    error = _refused(capsys, planned("WanVideoToVideoPipeline"), "--image", clip, "--frames", 9)
    assert "has 7 frames, and 9 are wanted; give --frames 5 or a longer video" in error


def test_a_pipeline_that_goes_on_from_a_video_makes_the_frames_that_it_was_planned_for(planned, tmp_path, capsys):
    output = tmp_path / "longer.mp4"
    clip = write_folder(tmp_path / "start", moving_frames(3))
    record = _record(capsys, planned("LTXConditionPipeline"), "--image", clip, "-o", output)
    assert record["pictures"][0]["frames"] == 1  # LTX takes whole chunks of eight, and one
    assert len(load_video(str(output))) == PLANNED_FRAMES


def test_a_pipeline_of_both_takes_a_picture_as_image_and_a_clip_as_video(planned, clip, tmp_path, capsys) -> None:
    moving_frames(1)[0].save(tmp_path / "start.png")
    plan = planned("LTXConditionPipeline")
    runs = [_record(capsys, plan, "--image", path) for path in (tmp_path / "start.png", clip)]
    assert [each["pictures"][0]["argument"] for each in runs] == ["image", "video"]
    assert "takes one picture as 'image'" in _refused(capsys, plan, *2 * ("--image", tmp_path / "start.png"))


@pytest.mark.slow
def test_a_mask_of_one_picture_stands_for_all_frames(planned, clip, tmp_path, capsys) -> None:
    plan, mask = planned("WanVACEPipeline"), Image.new("L", SIDES)
    mask.paste(255, (0, 0, SIDES[0] // 2, SIDES[1]))
    mask.save(tmp_path / "mask.png")
    folder = write_folder(tmp_path / "masks", [mask] * PLANNED_FRAMES)
    runs = [
        _record(capsys, plan, "--image", clip, *words)
        for words in ((), ("--image", f"mask={tmp_path / 'mask.png'}"), ("--image", f"mask={folder}"))
    ]
    assert runs[1]["digest"] == runs[2]["digest"] != runs[0]["digest"]


def test_pictures_that_no_plan_counts_are_told(planned, tmp_path, capsys) -> None:
    moving_frames(1)[0].save(tmp_path / "fox.png")
    record = _record(capsys, planned("WanVACEPipeline"), "--image", f"reference_images={tmp_path / 'fox.png'}")
    assert record["changes"] == ["reference_images: 1 picture, and the plan counts 0"]
    assert not record["compared"]["kept"]


@pytest.mark.slow
def test_what_is_finished_is_made_again_for_another_video(planned, clip, tmp_path, capsys) -> None:
    plan, other = planned("CogVideoXVideoToVideoPipeline"), write_clip(tmp_path / "other.mp4", moving_frames(20)[::-1])
    words = ("--seed", 1, "--seed", 2, "-o", tmp_path / "fox.mp4")
    skipped = [
        [each["skipped"] for each in _record(capsys, plan, "--image", path, *words, *more)["generations"]]
        for path, more in ((clip, ()), (clip, ()), (other, ()), (other, ("--strength", 0.5)))
    ]
    assert skipped == [[False] * 2, [True] * 2, [False] * 2, [False] * 2]


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_frames_of_every_kind_of_file_are_read_up_to_the_most(suffix: str, tmp_path) -> None:
    path = write_clip(tmp_path / f"clip{suffix}")
    for most, read in ((4, 4), (99, FRAMES)):
        frames = clip_frames(str(path), path.read_bytes()[:16], most, lambda frame: frame)
        assert [frame.size for frame in frames] == [SIDES] * read


def test_a_turned_video_is_upright(tmp_path) -> None:
    write_clip(tmp_path / "clip.mp4")
    turned = _turned(tmp_path / "clip.mp4", tmp_path / "turned.mp4")
    frames = clip_frames(str(turned), turned.read_bytes()[:16], 2, lambda frame: frame)
    assert [frame.size for frame in frames] == [SIDES[::-1]] * 2


def _turned(path: Path, to: Path) -> Path:
    """The file with a note to players that its picture is to be turned by a quarter."""
    words = [get_ffmpeg_exe(), "-v", "error", "-display_rotation", "90", "-i", str(path), "-c", "copy", str(to)]
    subprocess.run(words, check=True)
    return to


@pytest.mark.parametrize("kind", ["text", "empty", "cut off", "cut in what is used", "sound", "playlist", "cut gif"])
def test_a_file_that_is_no_usable_video_is_one_line_and_exit_2(kind, planned, tmp_path, capsys) -> None:
    path = tmp_path / "clip.mp4"
    if kind in ("cut off", "cut in what is used"):
        fast = ("-movflags", "+faststart", "-g", "1") if kind == "cut in what is used" else ()
        write_clip(path, None, *fast)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "cut gif":
        gif = write_clip(tmp_path / "clip.gif").read_bytes()
        path.write_bytes(gif[: len(gif) // 2])
    else:
        path.write_bytes(_CONTENT[kind])
    assert "no whole" in _refused(capsys, planned("WanVideoToVideoPipeline"), "--image", path)


_CONTENT = {
    "text": b"not a video",
    "empty": b"",
    "sound": b"\0\0\0\x18ftypM4A " + b"\0" * 400,
    "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/hostname\n#EXT-X-ENDLIST\n",
}


def test_ffmpeg_is_told_what_a_file_is_and_never_asked_to_guess() -> None:
    assert demuxer_of(b"#EXTM3U\n#EXTINF:1,") is None
    assert demuxer_of(b"ffconcat version") is None
    assert demuxer_of(b"\0\0\0\x20ftypisom....") == "mov"


def test_what_a_video_can_not_be_given_to_is_said_before_anything_loads(planned, clip, tmp_path, capsys) -> None:
    wan, ltx = planned("WanVideoToVideoPipeline"), planned("LTXConditionPipeline")
    (tmp_path / "empty").mkdir()
    assert "needs 'video'; give --image PATH" in _refused(capsys, wan)
    assert "has no 'image'; it takes video" in _refused(capsys, wan, "--image", f"image={clip}")
    assert "is a video, and LTXConditionPipeline takes a picture as 'image'" in _refused(
        capsys, ltx, "--image", f"image={clip}"
    )
    assert "folder without pictures" in _refused(capsys, wan, "--image", tmp_path / "empty")
    assert "can't be opened" in _refused(capsys, wan, "--image", tmp_path / "gone.mp4")


def test_frames_in_a_folder_come_by_their_numbers(tmp_path) -> None:
    folder = write_folder(tmp_path / "frames", moving_frames(12))
    assert [Path(each).name for each in frame_files(str(folder))] == [f"frame{index}.png" for index in range(12)]


_BOTH = ("video", "conditioning_frames")


@pytest.mark.parametrize(
    ("name", "takes", "needs"),
    [
        ("WanPipeline", (), ()),
        ("WanVideoToVideoPipeline", ("video",), ("video",)),
        ("WanVACEPipeline", ("video", "mask"), ()),
        ("CogVideoXVideoToVideoPipeline", ("video",), ("video",)),
        ("CogVideoXFunControlPipeline", ("control_video",), ("control_video",)),
        ("AnimateDiffVideoToVideoPipeline", ("video",), ("video",)),
        (
            "AnimateDiffVideoToVideoControlNetPipeline",
            ("video", "conditioning_frames"),
            ("video", "conditioning_frames"),
        ),
        ("AnimateDiffControlNetPipeline", ("conditioning_frames",), ("conditioning_frames",)),
        ("LTXConditionPipeline", ("video",), ()),
        ("LTXLatentUpsamplePipeline", ("video",), ("video",)),
        ("LucyEditPipeline", ("video",), ("video",)),
        ("SkyReelsV2DiffusionForcingVideoToVideoPipeline", ("video",), ("video",)),
        ("Cosmos2VideoToWorldPipeline", ("video",), ()),
        ("HeliosPipeline", ("video",), ()),
        ("EasyAnimateInpaintPipeline", (), ()),  # tensors
        ("BriaFiboEditPipeline", (), ()),  # its mask is of a picture
    ],
)
def test_what_a_class_takes_and_needs(name: str, takes: tuple[str, ...], needs: tuple[str, ...]) -> None:
    found = getattr(diffusers, name)
    assert video_arguments(found) == takes
    assert needed_videos(found) == needs


def test_animated_figures_need_a_picture_and_two_videos() -> None:
    assert needed_videos(diffusers.WanAnimatePipeline) == ("pose_video", "face_video")
    assert set(made_up_inputs(diffusers.WanAnimatePipeline, 64, 64, 5)) == {"image", "pose_video", "face_video"}


def test_a_dry_run_makes_up_the_larger_input_where_a_class_takes_one_of_two() -> None:
    for name in ("LTXConditionPipeline", "Cosmos2VideoToWorldPipeline", "HeliosPipeline"):
        found = getattr(diffusers, name)
        assert begins_with_video(found)
        assert set(made_up_inputs(found, 64, 64, 5)) == {"video"}
    assert not begins_with_video(diffusers.WanVideoToVideoPipeline)
