"""What the links of one host's cards reach together: its memory feeds them all, and what is between its NUMA nodes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_worlds import at_once, compared, fleet_of, fleet_question
from roost.facts.machine import Fleet, FleetHost, HostBandwidth
from roost.facts.rates import LINKS, RateKey
from roost.facts.request import LayoutName
from roost.planner.cost.rates import LEVELS
from roost.planner.fleet.contention import shared_links
from traces import rates

LINK = 20e9  # of each card


def test_links_of_one_host_share_its_memory() -> None:
    alone, few, many = (shared_links(rates(), cards, HostBandwidth())[RateKey.PINNED_H2D] for cards in (1, 2, 8))
    assert alone.value == few.value == 20e9
    assert alone.value / many.value == pytest.approx(4.2 / 1.57)  # as published of eight
    assert many.at("slow") < many.value < many.at("fast")
    typed = shared_links(rates(), 4, HostBandwidth(memory_bytes_per_s=40e9))[RateKey.PINNED_H2D]
    assert (typed.value, typed.at("fast")) == (10e9, 10e9)


def reached(cards: int, **host: float) -> float:
    return shared_links(rates(), cards, HostBandwidth(**host))[RateKey.PINNED_H2D].value


@pytest.mark.parametrize(
    ("nodes", "together"),
    [
        (2, 60e9),  # half of what is read comes from the other node
        (4, 40e9),
        (1, 80e9),  # as if nothing had been said
    ],
)
def test_what_crosses_between_nodes_is_all_but_each_node_s_own_share(nodes: int, together: float) -> None:
    found = reached(4, memory_bytes_per_s=400e9, numa_nodes=nodes, numa_bytes_per_s=30e9)
    assert found == pytest.approx(together / 4)


def test_the_lesser_of_memory_and_what_is_between_nodes_bounds_the_links() -> None:
    for memory, between in ((40e9, 30e9), (40e9, 10e9), (80e9, 5e9)):
        found = reached(4, memory_bytes_per_s=memory, numa_nodes=2, numa_bytes_per_s=between)
        assert found == pytest.approx(min(memory, 2 * between) / 4)


def test_the_reason_says_what_bounds_the_links() -> None:
    host = HostBandwidth(memory_bytes_per_s=80e9, numa_nodes=2, numa_bytes_per_s=20e9)
    link = shared_links(rates(), 4, host)[RateKey.PINNED_H2D]
    assert link.why.endswith("of which 4 cards that copy at once across its host's NUMA nodes leave 50%")
    link = shared_links(rates(), 8, replace(host, numa_nodes=1))[RateKey.PINNED_H2D]
    assert link.why.endswith("of which 8 cards that copy at once leave 50%")


BANDWIDTHS = st.floats(1e8, 1e12)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 8), st.one_of(st.none(), BANDWIDTHS), st.integers(1, 8), BANDWIDTHS, st.floats(0.01, 1.0))
def test_less_between_nodes_never_makes_a_link_faster(cards, memory, nodes, between, share) -> None:
    host = HostBandwidth(memory_bytes_per_s=memory, numa_nodes=nodes)
    unsaid = shared_links(rates(), cards, host)
    more, less = (
        shared_links(rates(), cards, replace(host, numa_bytes_per_s=each)) for each in (between, between * share)
    )
    for key in LINKS:
        for level in LEVELS:
            found = [each[key].at(level) for each in (less, more, unsaid)]
            assert found == pytest.approx(sorted(found))
            assert more[key].at("slow") <= more[key].value <= more[key].at("fast")
        if nodes == 1:
            assert less[key] == unsaid[key]


@pytest.mark.parametrize("layout", ["replicas", "roles"])
def test_less_between_nodes_never_makes_a_fleet_faster(layout: LayoutName) -> None:
    def per_s(between: float | None) -> float:
        host = HostBandwidth(numa_nodes=2, numa_bytes_per_s=between)
        fleet = Fleet(hosts=(FleetHost(name="host-1", cards=("tiny",) * 4, bandwidth=host),))
        able = compared(fleet_question(fleet, steps=4), at_once(), layout)[0].able
        assert able is not None
        return able.per_s

    found = [per_s(each) for each in (None, 200e9, 20e9, 8e9, 3e9)]
    assert all(less <= 1.02 * more for more, less in pairwise(found))  # as good is within 2 %
    assert found[1] == found[0]
    assert found[-1] < 0.5 * found[0]


def test_a_host_without_a_word_of_nodes_is_planned_as_ever() -> None:
    assert HostBandwidth().interleaved_bytes_per_s == inf
    assert fleet_of(["tiny"]).hosts[0].bandwidth == HostBandwidth()
