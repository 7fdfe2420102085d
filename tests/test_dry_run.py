"""A dry run says exactly what a real run does: the same uses in the same order, the same work, the same bytes."""

from __future__ import annotations

import pytest

from dry_runs import (
    SIX_FAMILIES,
    real_sequence,
    real_uses,
    tiny_inventory,
    tiny_trace,
)


@pytest.mark.parametrize("name", SIX_FAMILIES)
def test_uses_come_in_the_order_of_a_real_run(name: str) -> None:
    traced = [(use.component, use.method) for use in tiny_trace(name).ordered_uses()]
    assert traced == real_sequence(name)


@pytest.mark.parametrize("name", SIX_FAMILIES)
def test_every_figure_of_every_use_equals_the_real_runs_to_the_byte(name: str) -> None:
    real, traced = real_uses(name), tiny_trace(name)
    assert traced.uses == tuple(real.uses)
    assert [variant.trace for variant in traced.variants] == [variant.trace for variant in real.variants]
