"""These tests run where the simulated GPU is: `make test-simulated-gpu`. Elsewhere nothing of them is collected."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

collect_ignore_glob = [] if os.environ.get("ROOST_ON_SIMULATED_GPU") else ["test_*.py"]


@pytest.fixture(autouse=True)
def found(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """What a test expects to be found wrong, which it puts here; anything else that was found fails it."""
    from simulated import count_anew, forget_violations, violations

    forget_violations()
    count_anew()
    expected: list[str] = []
    yield expected
    assert [each for each in violations() if not any(words in each for words in expected)] == []
