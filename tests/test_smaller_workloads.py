"""Smaller workloads of the same kind, as the families take them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.facts.request import Workload
from roost.planner.search.remedies.smaller import smaller

VIDEO = Workload(width=1280, height=720, frames=81, steps=4, batch=1, guidance=None)


@given(st.integers(64, 4096), st.integers(64, 4096), st.floats(0.05, 1.0), st.sampled_from([(1024, 1024), (1280, 720)]))
def test_a_smaller_size_keeps_the_aspect_and_the_familys_multiple(
    width: int, height: int, share: float, default: tuple[int, int]
) -> None:
    workload = replace(VIDEO, width=width, height=height)
    found = smaller(workload, "size", share, replace(VIDEO, width=default[0], height=default[1]))
    if found is not None:
        multiple = 32 if default == (1024, 1024) else 16
        assert found.width % multiple == found.height % multiple == 0
        assert found.width * found.height <= share * width * height
        assert found.width / found.height == pytest.approx(width / height, rel=0.05)


@pytest.mark.parametrize(("default", "step"), [(81, 8), (129, 8), (163, 6), (85, 6), (45, 4), (16, 1)])
def test_fewer_frames_are_a_number_that_the_family_takes(default: int, step: int) -> None:
    found = smaller(replace(VIDEO, frames=default), "frames", 0.7, replace(VIDEO, frames=default))
    assert found is not None
    assert found.frames is not None
    assert found.frames % step == 1 % step
    assert 0.7 * default - step < found.frames <= 0.7 * default


def test_pictures_have_no_fewer_frames_and_one_is_the_smallest_batch() -> None:
    picture = replace(VIDEO, frames=None)
    assert smaller(picture, "frames", 0.5, picture) is None
    assert smaller(picture, "batch", 0.9, picture) is None
    assert smaller(replace(picture, batch=5), "batch", 0.5, picture) == replace(picture, batch=2)
