"""A pytest plugin for the tests that are marked `gpu`, when the GPU is the simulated one: all values are computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

NEEDS_A_GPU = {
    "test_random_numbers_of_the_device_are_drawn_again": "draws random numbers on the device",
    "test_the_same_script_runs_on_cuda": "computes all values of a long run; test_gpu_suite.py has that",
    "test_a_cuda_device_has_every_rate_and_nothing_stays_on_it": "compares rates, which are a model's here",
}

FINDS = {"test_a_refused_registration_leaves_no_error_behind": "registered already"}  # what a test does on purpose


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.name in NEEDS_A_GPU:
            item.add_marker(pytest.mark.skip(reason=f"simulated GPU: {NEEDS_A_GPU[item.name]}"))


@pytest.fixture(autouse=True)
def _true_and_in_order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from simulated import forget_violations, violations
    from true_values import TrueValues

    import engine_toys

    play = engine_toys._play

    def in_its_thread(*arguments: Any) -> Any:
        with TrueValues(every=True):
            return play(*arguments)

    monkeypatch.setattr(engine_toys, "_play", in_its_thread)
    forget_violations()
    with TrueValues(every=True) as true:
        yield
    assert not true.missed
    expected = FINDS.get(request.node.name)
    assert [each for each in violations() if expected is None or expected not in each] == []
