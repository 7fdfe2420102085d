"""Which of many like cases run always, and which with --runslow alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from live_pipelines import STRATEGIES


def slow(*cases: Any) -> list[Any]:
    """Parameters that run with --runslow alone; a tuple is one case of several."""
    return [pytest.param(*(each if isinstance(each, tuple) else (each,)), marks=pytest.mark.slow) for each in cases]


# One of each way that weights come, stay and go.
TYPICAL = ("resident", "component-offload", "layerwise-offload, half resident", "snapshot-offload, lingering")
SLOW_UNLESS_TYPICAL = [
    pytest.param(each, marks=() if each in TYPICAL else pytest.mark.slow, id=each) for each in STRATEGIES
]


def dealt(names: Iterable[str], cases: Sequence[Any], every: int) -> list[Any]:
    """Parameters of every name with one in ``every`` of the cases, each name with others; the rest are slow."""
    return [
        pytest.param(name, case, marks=() if (row + column) % every == 0 else pytest.mark.slow, id=f"{name}-{case}")
        for row, name in enumerate(names)
        for column, case in enumerate(cases)
    ]
