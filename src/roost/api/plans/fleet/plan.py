"""A plan for a fleet: a plan for each kind of worker, the layouts that these make, and the best of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import cast

from roost.api.plans.fleet.spec import EMULATED, parse_fleet
from roost.api.plans.plan import search_question
from roost.api.requests.known_values import one_of
from roost.api.requests.option_sets import PlanOptions
from roost.api.requests.options import searches
from roost.api.requests.python_options import options_of
from roost.errors import NothingFits, UsageError
from roost.facts.machine import Fleet
from roost.facts.request import LAYOUTS, LayoutName
from roost.option_spelling import given, option
from roost.plan import PlanDocument
from roost.planner.fleet.choice import compare_layouts
from roost.planner.fleet.document import fleet_document
from roost.planner.fleet.figures import Demand
from roost.planner.fleet.layouts import FleetQuestion
from roost.planner.fleet.service import Service, Use
from roost.planner.fleet.workers import CardKind, plan_worker, seats_of, without_extras
from roost.planner.search_question import SearchQuestion

AUTO = "auto"
_LEAST_RATE, _MOST_RATE = 1e-6, 1e6
# Requests where nobody says how many: enough that filling and draining the fleet hardly counts, nor what chance makes
# of arrivals. Among unequal cards the slow ones work long after the others have ended.
_REQUESTS_A_CARD, _LEAST_AT_ONCE, _LEAST_BY_CHANCE, _MOST_REQUESTS = 25, 100, 1000, 100_000
_REQUESTS_A_CARD_OF_SEVERAL_KINDS = 250
_SEED = 0  # the same arrivals and deaths for every layout, and for every run of the command

# What a card is planned for, where it is no role that people ask for.
_USES: Mapping[Use, str] = {"alone": "one card alone", "monolithic": "a replica", "sharded": "shards"}

OnPlan = Callable[[str], None]

# Options of one card's plan that a fleet says by itself, or has another word for.
NOT_WITH_FLEETS: Mapping[str, str] = {
    "gpu": "the fleet names its cards",
    "role": "its layout has the roles; layout roles asks for them",
    "num_gpus": "the fleet says how many there are",
    "fsdp": "layout fsdp asks for it",
    "generations": "requests says how much is made",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """What is asked of a fleet, as typed. Without a ``rate`` all requests arrive at once."""

    fleet: str
    layout: str = AUTO
    rate: float | None = None
    requests: int | None = None


def make_fleet_plan(
    model: str | Path,
    fleet: str,
    *,
    layout: str = AUTO,
    rate: float | None = None,
    requests: int | None = None,
    **options: object,
) -> PlanDocument:
    """The plan of several cards: ``fleet`` is cards like ``4 x l40s``, or the path of a YAML file of hosts.

    ``options`` are the fields of ``PlanOptions`` that a fleet doesn't say itself. Raises what ``plan_fleet`` does.
    """
    asked = FleetOptions(fleet=fleet, layout=layout, rate=rate, requests=requests)
    found = options_of(PlanOptions, options, "make_fleet_plan", refused=NOT_WITH_FLEETS)
    return plan_fleet(model, found, asked, lambda _: None)


def plan_fleet(model: str | Path, options: PlanOptions, asked: FleetOptions, on_plan: OnPlan) -> PlanDocument:
    """The plan of the best layout, or of the one asked for; ``on_plan`` hears of each worker that is planned.

    Raises UsageError as ``plan_model`` does, and NothingFits where no layout, or not the asked one, can be.
    """
    if not searches(options):
        raise UsageError("--fleet compares seconds, which the rules don't predict; leave --policy rules out.")
    layout = one_of(asked.layout, (AUTO, *LAYOUTS[1:]), "layout")
    fleet = parse_fleet(asked.fleet)
    demand = _demand(asked, fleet)
    if options.vram is None and any(EMULATED in each.cards and each.vram_bytes is None for each in fleet.hosts):
        raise UsageError(
            f"{given('fleet', asked.fleet)} needs each one's memory; add it, like {option('vram', '12GiB')}."
        )
    question = _question(model, options, fleet, len(demand.arrivals), on_plan)
    compared = compare_layouts(question, demand, None if layout == AUTO else cast(LayoutName, layout))
    document = fleet_document(compared, demand)
    if document is None and layout != AUTO:
        why = next(each.why_not for each in compared if each.layout.name == layout)
        raise NothingFits(f"{option('layout', layout)} can't be: {why}.")
    if document is None:
        reasons = [f"{each.layout.name}: {each.why_not}" for each in compared]
        raise NothingFits(f"this fleet has no layout that fits. {'; '.join(reasons)}.")
    return document


def _demand(asked: FleetOptions, fleet: Fleet) -> Demand:
    rate, requests = asked.rate, asked.requests
    if rate is not None and not _LEAST_RATE <= rate <= _MOST_RATE:
        raise UsageError(
            f"{option('rate', rate)} is out of range; give requests per second, from {_LEAST_RATE:g} to {_MOST_RATE:g}."
        )
    if requests is None:
        least = _LEAST_AT_ONCE if rate is None else _LEAST_BY_CHANCE
        alike = len({card for host in fleet.hosts for card in host.cards}) == 1
        requests = max(least, (_REQUESTS_A_CARD if alike else _REQUESTS_A_CARD_OF_SEVERAL_KINDS) * fleet.card_count)
    if not 1 <= requests <= _MOST_REQUESTS:
        raise UsageError(
            f"{option('requests', requests)} is out of range; give a whole number from 1 to {_MOST_REQUESTS}."
        )
    return Demand(arrivals=tuple(_arrivals(requests, rate)), rate=rate, lives=_lives)


def _arrivals(requests: int, rate: float | None) -> Iterator[float]:
    """Seconds at which requests arrive: all at once, or by chance at that rate."""
    chance, now_s = random.Random(_SEED), 0.0
    for _ in range(requests):
        yield now_s
        now_s += chance.expovariate(rate) if rate is not None else 0.0


def _lives(worker: int) -> Iterator[float]:
    chance = random.Random(worker + 1)
    while True:
        yield chance.expovariate(1.0)


def _question(model: str | Path, options: PlanOptions, fleet: Fleet, requests: int, on_plan: OnPlan) -> FleetQuestion:
    kinds, seats = seats_of(fleet)
    options = replace(options, generations=max(2, requests // fleet.card_count))
    asked = [_asked(model, options, kind) for kind in kinds]

    def question(asked: Sequence[SearchQuestion], how: str) -> FleetQuestion:
        @cache
        def service(kind: int, use: Use, others_bytes: int) -> Service:
            on_plan(f"{_USES.get(use, use)}{how} on {kinds[kind].card}")
            return plan_worker(asked[kind], kinds[kind], use, others_bytes)

        return FleetQuestion(fleet=fleet, seats=seats, service=service)

    whole = question(asked, "")
    if not asked[0].question.profile.role_extras:
        return whole
    return replace(whole, sharing=question([without_extras(each) for each in asked], " that shares"))


def _asked(model: str | Path, options: PlanOptions, kind: CardKind) -> SearchQuestion:
    """What a search for one such card is asked, as for any single card."""
    vram = options.vram if kind.vram_bytes is None else kind.vram_bytes
    ram = options.ram if kind.ram_bytes is None else kind.ram_bytes
    return replace(
        search_question(model, replace(options, gpu=kind.card, vram=vram, ram=ram)),
        seek_remedies=False,
        at_leaf_level=None,
    )
