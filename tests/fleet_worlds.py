"""Fleets of made-up cards that serve a made-up model, planned by the real planner without files or probes."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from roost.facts.machine import Fleet, FleetHost
from roost.facts.request import LayoutName
from roost.planner.cost.costs import CostModel
from roost.planner.fleet.choice import Compared, compare_layouts
from roost.planner.fleet.figures import Demand
from roost.planner.fleet.layouts import FleetQuestion
from roost.planner.fleet.service import Service, Use
from roost.planner.fleet.workers import CardKind, plan_worker, seats_of
from roost.planner.search.columns import Aim
from roost.planner.search_question import SearchQuestion
from roost.units import GiB, MiB
from searched_plans import TERA
from traces import rates, trace, use
from worlds import component, inventory, machine, question

DIT, ENCODER, VAE = (
    component("transformer", 12 * GiB, blocks=8),
    component("text_encoder", 9 * GiB, blocks=4, position=1),
    component("vae", GiB // 4, position=2),
)
INVENTORY = inventory(DIT, ENCODER, VAE)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card's name in a fleet stands for."""

    free_gib: float
    flops: float = 100e12


CARDS = {
    "large": Card(free_gib=44),
    "middle": Card(free_gib=16),
    "small": Card(free_gib=12, flops=10e12),
    "tiny": Card(free_gib=8),
}


def fleet_of(*hosts: Sequence[str], **changes: object) -> Fleet:
    """A fleet with a host for each sequence of cards."""
    made = tuple(FleetHost(name=f"host-{number}", cards=tuple(cards)) for number, cards in enumerate(hosts, 1))
    return replace(Fleet(hosts=made), **changes)  # type: ignore[arg-type]


def fleet_question(fleet: Fleet, *, steps: int = 40, ram_gib: float = 64) -> FleetQuestion:
    kinds, seats = seats_of(fleet)

    def service(kind: int, use: Use, others_bytes: int) -> Service:
        return _service(kinds[kind], use, others_bytes, steps, ram_gib)

    return FleetQuestion(fleet=fleet, seats=seats, service=service)


@functools.cache
def _service(kind: CardKind, use: Use, others_bytes: int, steps: int, ram_gib: float) -> Service:
    return plan_worker(card_question(CARDS[kind.card], steps, ram_gib), kind, use, others_bytes)


def card_question(card: Card, steps: int = 40, ram_gib: float = 64) -> SearchQuestion:
    """What a search for the card is asked."""
    calls = trace(
        (replace(use(ENCODER, TERA, GiB // 4), output_bytes=2 * MiB), 2),
        (replace(use(DIT, 20 * TERA, GiB), output_bytes=MiB), steps),
        (use(VAE, 5 * TERA, GiB, "decode"), 1),
        steps=steps,
    )
    return SearchQuestion(
        question=question(INVENTORY, machine(card.free_gib, ram_gib=ram_gib), workload=calls.workload),
        trace=calls,
        model=CostModel(rates=rates(flops=card.flops), backend="cuda"),
        aim=Aim(),
        generations=50,
        seek_remedies=False,
    )


def immortal(worker: int) -> Iterator[float]:
    yield from ()


def at_once(requests: int = 50) -> Demand:
    return Demand(arrivals=(0.0,) * requests, rate=None, lives=immortal)


def compared(question: FleetQuestion, demand: Demand | None = None, asked: LayoutName | None = None) -> list[Compared]:
    """The layouts, the chosen one first."""
    found = compare_layouts(question, demand or at_once(), asked)
    return sorted(found, key=lambda each: each.why is None)
