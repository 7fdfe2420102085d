"""More memory never makes a plan slower by more than the 2 % that the search gives for simplicity."""

from __future__ import annotations

from itertools import pairwise

import pytest

from roost import make_plan


def seconds(option: str, gib: int) -> float:
    options = {"vram": "23GiB", "ram": "96GiB", option: f"{gib}GiB"}
    plan = make_plan("flux.1-dev", gpu="rtx-4090", **options)
    assert plan.fits
    assert plan.predicted is not None
    return plan.predicted.load_s.mid + plan.predicted.first_s.mid


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "sizes"), [("ram", (8, 256)), pytest.param("vram", (12, 48), marks=pytest.mark.slow)]
)
def test_more_memory_is_never_slower(option: str, sizes: tuple[int, ...]) -> None:
    found = [seconds(option, gib) for gib in sizes]
    for less, more in pairwise(found):
        assert more <= less * 1.02
