"""Options given in Python: names and types are checked as the command line checks them, in one line."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import roost
from roost.api.requests.option_sets import PlanOptions
from roost.api.requests.python_options import options_of
from roost.errors import UsageError


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ({"sise": "64x64"}, "has no option 'sise'; did you mean 'size'"),
        ({"zzz": 1}, "has no option 'zzz'; choose from gpu, "),
        ({"size": 64}, "size is a text or a pair of whole numbers, not 64"),
        ({"size": (64, 64.5)}, "size is a text or a pair"),
        ({"steps": "4"}, "steps is a whole number, not '4'"),
        ({"steps": 2.5}, "steps is a whole number, not 2.5"),
        ({"batch": True}, "batch is a text or a whole number, not True"),
        ({"guidance": "high"}, "guidance is a number, not 'high'"),
        ({"gpu": ["rtx-4090"]}, "gpu is a text, not"),
        ({"vram": 2.5e9}, "vram is a text or a whole number, not 2500000000.0"),
        ({"set": {"vae": "resident"}}, "set is a text or a list of texts"),
        ({"allow": [1]}, "allow is a text, not"),
        ({"measured": "no"}, "measured is True or False, not 'no'"),
        ({"mode": b"x" * 500}, "mode is a text, not"),
    ],
)
def test_a_wrong_option_is_a_usage_error_of_one_short_line(option: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as error:
        roost.make_plan("sdxl", **option)
    assert line in str(error.value)
    assert len(str(error.value)) < 700
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("plan", [None, {"schema": 1}, 5])
def test_what_is_no_plan_can_not_be_attached(plan: Any) -> None:
    with pytest.raises(UsageError, match="plan is 'auto', a plan or its file's path"):
        roost.attach(object(), plan)


def test_what_people_write_in_python_is_taken() -> None:
    given = {
        "allow": ["tiling", "fp8"],
        "set": None,
        "steps": numpy.int64(4),
        "size": [64, 32],
        "guidance": numpy.float32(4),
    }
    found = options_of(PlanOptions, given, "make_plan")
    assert found == PlanOptions(allow="tiling,fp8", steps=4, size=[64, 32], guidance=4)  # type: ignore[arg-type]
    assert (type(found.steps), type(found.guidance)) == (int, float)


def test_an_option_that_is_not_asked_is_unknown() -> None:
    with pytest.raises(UsageError, match="attach has no option 'gpu'"):
        options_of(PlanOptions, {"gpu": "rtx-4090"}, "attach", ("gpu",))
