"""A dry run's short way through the preprocessing of pictures is its own: nobody else's processor changes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("diffusers")

from diffusers.image_processor import InpaintProcessor, VaeImageProcessor
from diffusers.video_processor import VideoProcessor
from PIL import Image

from roost.probes.dry_run.stand_in import still_videos

WHITE = [Image.new("RGB", (16, 16), "white")] * 3


def test_a_still_video_becomes_zeros_in_the_dry_runs_own_processors_alone() -> None:
    own, inner, others = VideoProcessor(vae_scale_factor=8), InpaintProcessor(vae_scale_factor=8), VideoProcessor()
    before = dict(vars(VaeImageProcessor))
    with still_videos(SimpleNamespace(video_processor=own, image_processor=inner)):
        assert own.preprocess_video(WHITE).max() == -1
        assert inner._image_processor.preprocess(WHITE).max() == -1
        assert others.preprocess_video(WHITE).min() == 1  # what another thread's pipeline makes meanwhile
        assert dict(vars(VaeImageProcessor)) == before
    assert own.preprocess_video(WHITE).min() == inner._image_processor.preprocess(WHITE).min() == 1
