"""The layouts that a fleet can have: which card is which worker in each, or why the layout can't be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from roost.facts.machine import Fleet
from roost.facts.request import LAYOUTS, LayoutName, Role
from roost.planner.fleet.host_memory import host_memory, short_host
from roost.planner.fleet.service import Planned, Seat, Service, Unable, Use, Worker, per_s
from roost.planner.fleet.split import best_split, pace

# A component is held by two roles where that makes the slowest role so much faster.
_GAIN = 1.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way to use the fleet; without workers it can't be, and ``why_not`` says why."""

    name: LayoutName
    workers: tuple[Worker, ...] = ()
    why_not: str | None = None

    @property
    def roles(self) -> tuple[Role, ...]:
        """Those of its workers, in a request's order."""
        return tuple(dict.fromkeys(each.planned.role for each in self.workers))


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetQuestion:
    """A fleet's cards, and what each kind of them does in each use.

    ``service`` is asked with the bytes of its host's memory that others take; each answer takes a search.
    ``sharing`` is the same question where each role has its own components alone, for families of which a role
    otherwise holds some of another's, too: requests then go there for them.
    """

    fleet: Fleet
    seats: tuple[Seat, ...]
    service: Callable[[int, Use, int], Service]
    sharing: FleetQuestion | None = None

    @property
    def counts(self) -> tuple[int, ...]:
        """How many cards there are of each kind."""
        kinds = [each.kind for each in self.seats]
        return tuple(kinds.count(kind) for kind in range(max(kinds) + 1))

    def per_s(self, use: Use) -> tuple[float, ...]:
        """Requests per second of a card of each kind."""
        return tuple(per_s(self.service(kind, use, 0)) for kind in range(len(self.counts)))

    def why_not(self, *uses: Use) -> str:
        """The reason of the first kind that can't be used so."""
        found = (self.service(kind, use, 0) for use in uses for kind in range(len(self.counts)))
        return next((each.why for each in found if isinstance(each, Unable)), "there are too few cards for its roles")


def layouts_of(question: FleetQuestion) -> Iterator[Layout]:
    """Every layout, the simplest first."""
    make = {"single": _single, "replicas": _replicas, "shared": _shared, "roles": _roles, "fsdp": _sharded}
    for name in LAYOUTS:
        yield make[name](question)


def _single(question: FleetQuestion) -> Layout:
    """The quickest card by itself."""
    rates = question.per_s("alone")
    if not max(rates):
        return Layout(name="single", why_not=question.why_not("alone"))
    seat = next(each for each in question.seats if each.kind == rates.index(max(rates)))
    return _layout(question, "single", [(seat, "alone")])


def _replicas(question: FleetQuestion) -> Layout:
    if len(question.seats) < 2:
        return Layout(name="replicas", why_not="there is one card")
    rates = question.per_s("monolithic")
    able = [each for each in question.seats if rates[each.kind]]
    if len(able) < 2:
        return Layout(name="replicas", why_not=question.why_not("monolithic"))
    return _layout(question, "replicas", [(each, "monolithic") for each in able])


def _shared(question: FleetQuestion) -> Layout:
    """One pool of encoder-decoders for all denoisers, as large as these need."""
    if len(question.seats) < 3:
        few = "with two cards that is the layout roles" if len(question.seats) == 2 else "there is one card"
        return Layout(name="shared", why_not=few)
    return _split(question, "shared", ("encoder-decoder", "denoiser"))


def _roles(question: FleetQuestion) -> Layout:
    """Encoder, decoder and denoisers on cards of their own; of two cards, one encodes and decodes."""
    if len(question.seats) < 2:
        return Layout(name="roles", why_not="there is one card")
    apart: tuple[Role, ...] = ("encoder", "decoder", "denoiser")
    return _split(question, "roles", apart if len(question.seats) > 2 else ("encoder-decoder", "denoiser"))


def _split(question: FleetQuestion, name: LayoutName, roles: Sequence[Role]) -> Layout:
    rates = [question.per_s(role) for role in roles]
    split = best_split(question.counts, rates)
    if question.sharing is not None:
        sharing_rates = [question.sharing.per_s(role) for role in roles]
        sharing = best_split(question.counts, sharing_rates)
        if sharing is not None and not (split and pace(split, rates)[0] > _GAIN * pace(sharing, sharing_rates)[0]):
            question, rates, split = question.sharing, sharing_rates, sharing
    if split is None:
        return Layout(name=name, why_not=question.why_not(*roles))
    left = {kind: [each for each in question.seats if each.kind == kind] for kind in range(len(question.counts))}
    taken: list[tuple[Seat, Use]] = []
    for role, row, able in zip(roles, split, rates, strict=True):
        for kind, count in enumerate(row):
            chosen, left[kind] = left[kind][:count], left[kind][count:]
            taken += [(each, role) for each in chosen if able[kind]]
    layout = _layout(question, name, taken)
    return _frugal(question, layout, roles) if short_host(layout.workers) else layout


def _frugal(question: FleetQuestion, layout: Layout, roles: Sequence[Role]) -> Layout:
    """The layout where each role is planned with the host memory that others leave: first come who denoise."""
    workers: list[Worker] = []
    for role in reversed(roles):
        others_bytes = max((each.master_bytes for each in host_memory(workers)), default=0)
        for each in (each for each in layout.workers if each.planned.role == role):
            planned = question.service(each.seat.kind, role, others_bytes)
            if isinstance(planned, Unable):
                return replace(layout, workers=(), why_not=f"beside others on its host, {planned.why}")
            workers.append(replace(each, planned=planned))
    return replace(layout, workers=tuple(sorted(workers, key=lambda each: roles.index(each.planned.role))))


def _sharded(question: FleetQuestion) -> Layout:
    """The denoiser sharded over the like cards of each host, which serve as many requests in step."""
    rates = question.per_s("sharded")
    able = [each for each in question.seats if rates[each.kind]]
    if not able:
        return Layout(name="fsdp", why_not=question.why_not("sharded"))
    return _layout(question, "fsdp", [(each, "sharded") for each in able])


def _layout(question: FleetQuestion, name: LayoutName, taken: Sequence[tuple[Seat, Use]]) -> Layout:
    workers: list[Worker] = []
    numbers: dict[str, int] = {}
    for seat, use in taken:
        planned = question.service(seat.kind, use, 0)
        assert isinstance(planned, Planned)  # only cards with a rate are taken
        called = {"alone": "card", "monolithic": "replica", "sharded": "shard"}.get(use, use)
        numbers[called] = numbers.get(called, 0) + 1
        workers.append(Worker(name=f"{called}-{numbers[called]}", seat=seat, planned=planned))
    return Layout(name=name, workers=tuple(workers))
