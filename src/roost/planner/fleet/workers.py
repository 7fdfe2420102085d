"""Plans of single workers: a card beside the others of its host, in each use, by the search of a single card."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from roost.errors import UsageError
from roost.facts.machine import PROCESS_BYTES, Fleet, HostBandwidth, Machine
from roost.facts.model import Inventory
from roost.planner.by_search import plan_by_search
from roost.planner.fleet.contention import shared_links
from roost.planner.fleet.service import Seat, Service, Unable, Use, service_of
from roost.planner.rules.names import kind_of
from roost.planner.rules.roles import view
from roost.planner.ruling import why_not_sharded
from roost.planner.search_question import SearchQuestion


@dataclass(frozen=True, slots=True, kw_only=True)
class CardKind:
    """Cards that are planned for alike: each is one of ``cards`` on its host, of which ``like`` are the same card."""

    card: str
    cards: int
    like: int
    vram_bytes: int | None = None
    ram_bytes: int | None = None
    bandwidth: HostBandwidth = field(default_factory=HostBandwidth)


def seats_of(fleet: Fleet) -> tuple[tuple[CardKind, ...], tuple[Seat, ...]]:
    """The kinds of cards that there are, and every card."""
    kinds: dict[CardKind, int] = {}
    seats = []
    for host in fleet.hosts:
        for device, card in enumerate(host.cards):
            kind = CardKind(
                card=card,
                cards=len(host.cards),
                like=host.cards.count(card),
                vram_bytes=host.vram_bytes,
                ram_bytes=host.ram_bytes,
                bandwidth=host.bandwidth,
            )
            seats.append(Seat(host=host.name, device=device, kind=kinds.setdefault(kind, len(kinds))))
    return tuple(kinds), tuple(seats)


def plan_worker(asked: SearchQuestion, kind: CardKind, use: Use, others_bytes: int = 0) -> Service:
    """A card's plan for that use, by the search that plans a single card.

    ``others_bytes`` of its host's memory are taken by others' masters.
    """
    if use == "sharded":
        return _sharded(asked, kind)
    if use == "alone":
        return _planned(asked, kind, cards=1)
    question = replace(asked.question, role=use)
    if not view(question.inventory, question.profile, use).loads:
        return Unable(why=f"the model has no component for the role {use}")
    return _planned(replace(asked, question=question), kind, kind.cards, others_bytes)


def without_extras(asked: SearchQuestion) -> SearchQuestion:
    """The same question of a family whose roles hold nothing of each other's."""
    question = asked.question
    return replace(asked, question=replace(question, profile=replace(question.profile, role_extras={})))


def _sharded(asked: SearchQuestion, kind: CardKind) -> Service:
    question, why_whole = asked.question, _why_whole(asked.question.inventory)
    if kind.like < 2:
        return Unable(why="no host has two cards of one kind")
    if not question.profile.fsdp:
        return Unable(why=f"{question.profile.title} is not sharded with FSDP")
    if why_whole is not None:
        return Unable(why=why_whole)
    choices = replace(question.choices, fsdp=True, num_gpus=kind.like)
    try:
        return _planned(replace(asked, question=replace(question, choices=choices)), kind, kind.cards)
    except UsageError as error:  # what was typed moves what FSDP manages
        return Unable(why=str(error))


def _why_whole(inventory: Inventory) -> str | None:
    """Why a denoiser can't be sharded."""
    whys = (why_not_sharded(each) for each in inventory.components if kind_of(each) == "dit")
    return next((each for each in whys if each is not None), None)


def _planned(asked: SearchQuestion, kind: CardKind, cards: int, others_bytes: int = 0) -> Service:
    """Beside the host's other cards: each has a process, and they share its links' memory."""
    question, model = asked.question, asked.model
    shared = replace(
        asked,
        question=replace(question, machine=_beside_others(question.machine, cards - 1, others_bytes)),
        model=replace(model, rates=shared_links(model.rates, cards, kind.bandwidth)),
    )
    return service_of(shared, plan_by_search(shared))


def _beside_others(machine: Machine, others: int, masters_bytes: int) -> Machine:
    """The machine less other workers' processes and what masters these have that this one doesn't.

    Both count as processes' memory: what the host has in all stays as it was said.
    """
    host, taken_bytes = machine.host, others * PROCESS_BYTES[machine.gpu.device_kind] + masters_bytes
    available_bytes = max(0, host.available_bytes - taken_bytes)
    return replace(
        machine,
        host=replace(
            host,
            available_bytes=available_bytes,
            pinnable_bytes=min(host.pinnable_bytes, available_bytes),
            process_bytes=host.process_bytes + host.available_bytes - available_bytes,
        ),
    )
