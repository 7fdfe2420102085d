"""Layouts of made-up cards: where roles pay and where they don't, what each takes, and the reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fleet_worlds import CARDS, DIT, VAE, at_once, card_question, compared, fleet_of, fleet_question
from roost.facts.machine import PROCESS_BYTES, FailureRate, HostLink
from roost.facts.request import LAYOUTS, Choices, Role
from roost.plan.files import plan_to_yaml
from roost.planner.fleet.choice import Compared
from roost.planner.fleet.document import fleet_document
from roost.planner.fleet.figures import Demand
from roost.planner.fleet.layouts import FleetQuestion
from roost.planner.fleet.service import Planned, Unable
from roost.planner.fleet.workers import CardKind, plan_worker
from roost.planner.rules.selectors import parse_set
from roost.units import GiB, MiB
from searched_plans import TERA
from traces import use
from worlds import inventory, profile


def asked(*cards: str, steps: int = 40) -> FleetQuestion:
    return fleet_question(fleet_of(cards), steps=steps)


def by_name(found: list[Compared]) -> dict[str, Compared]:
    return {each.layout.name: each for each in found}


def test_replicas_of_all_win_where_the_model_fits_and_steps_are_many() -> None:
    chosen, *others = compared(asked(*["large"] * 4))
    assert chosen.layout.name == "replicas"
    assert len(chosen.layout.workers) == 4
    assert {each.layout.name for each in others} == set(LAYOUTS) - {"replicas"}
    assert all(each.why_not for each in others)
    roles = by_name(others)["roles"]
    assert "less VRAM" in (roles.why_not or "")


def test_a_shared_encoder_wins_where_steps_are_few_and_cards_don_t_hold_the_whole() -> None:
    chosen = compared(asked(*["middle"] * 4, steps=2))[0]
    assert chosen.layout.name == "shared"
    assert chosen.layout.roles == ("encoder-decoder", "denoiser")
    assert "more requests/s" in (chosen.why or "")


def test_of_two_unequal_cards_the_weak_one_encodes_where_steps_are_few() -> None:
    chosen = compared(asked("small", "middle", steps=4))[0]
    assert chosen.layout.name == "roles"
    assert [(each.name, each.seat.device) for each in chosen.layout.workers] == [
        ("encoder-decoder-1", 0),
        ("denoiser-1", 1),
    ]


def test_of_what_is_as_good_the_simpler_is_taken_and_says_so() -> None:
    found = compared(asked("middle", "small"))
    assert found[0].layout.name == "replicas"
    assert found[0].why == "as good as roles within 2%, and simpler"


def test_the_asked_layout_is_taken_though_another_is_quicker() -> None:
    found = compared(asked(*["large"] * 4), asked="fsdp")
    assert (found[0].layout.name, found[0].why) == ("fsdp", "--layout fsdp asks for it")
    assert by_name(found)["replicas"].why_not == "--layout fsdp asks for another"


def test_a_layout_that_can_t_be_is_not_taken_though_it_is_asked() -> None:
    found = compared(asked("large"), asked="roles")
    assert [each for each in found if each.why] == []
    assert by_name(found)["roles"].why_not == "there is one card"


def test_with_arrivals_the_layout_whose_requests_end_soonest_is_taken() -> None:
    """Both keep up with so few; the pair of roles spares most requests the slow card."""
    rare = Demand(arrivals=tuple(60.0 * each for each in range(40)), rate=1 / 60, lives=at_once().lives)
    found = compared(asked("middle", "small", steps=4), rare)
    assert found[0].able is not None
    assert found[0].able.p95_s == min(each.able.p95_s for each in found if each.able)
    assert found[0].able.per_s == pytest.approx(1 / 60, rel=0.05)


def test_shards_take_less_memory_and_wait_for_each_other() -> None:
    found = by_name(compared(asked(*["large"] * 4)))
    shards, replicas = found["fsdp"].able, found["replicas"].able
    assert shards is not None
    assert replicas is not None
    assert shards.denoising_bytes < replicas.denoising_bytes
    assert shards.figures.request_s.mid > replicas.figures.request_s.mid


PAIR = CardKind(card="large", cards=2, like=2)


@pytest.mark.parametrize(
    ("changes", "kind", "why"),
    [
        ({}, CardKind(card="large", cards=2, like=1), "no host has two cards of one kind"),
        ({"profile": profile(fsdp=False)}, PAIR, "Made up is not sharded with FSDP"),
        (
            {"inventory": inventory(replace(DIT, quantization="torchao"), VAE)},
            PAIR,
            "the weights of transformer are packed",
        ),
        ({"choices": Choices(sets=(parse_set("transformer=layerwise-offload"),))}, PAIR, "two managers of one tensor"),
    ],
)
def test_what_can_t_be_sharded_says_why(changes, kind, why) -> None:
    asked = card_question(CARDS["large"])
    found = plan_worker(replace(asked, question=replace(asked.question, **changes)), kind, "sharded")
    assert isinstance(found, Unable)
    assert why in found.why


def test_what_a_role_loads_beside_its_own_takes_no_seconds_of_it() -> None:
    """The denoiser of such a family has the VAE to encode pictures; decoding stays the decoder's."""
    asked = card_question(CARDS["large"])
    extras = profile(role_extras={"denoiser": ("vae",)})
    plain, with_vae = (
        plan_worker(replace(asked, question=replace(asked.question, role="denoiser", profile=each)), PAIR, "denoiser")
        for each in (asked.question.profile, extras)
    )
    assert isinstance(plain, Planned)
    assert isinstance(with_vae, Planned)
    assert list(with_vae.plan.components) == ["transformer", "vae"]
    assert with_vae.request_s.mid == pytest.approx(plain.request_s.mid, rel=0.02)
    assert with_vae.predicted.next_s.mid > 1.005 * plain.predicted.next_s.mid


@pytest.mark.parametrize("role", ["decoder", "encoder-decoder"])
def test_pictures_that_a_shared_vae_encodes_are_counted_once(role: Role) -> None:
    asked = card_question(CARDS["large"])
    calls = asked.trace
    assert calls is not None
    encodes = use(VAE, 50 * TERA, GiB, "encode")
    calls = replace(calls, uses=(*calls.uses, encodes), sequence=((len(calls.uses), 1), *calls.sequence))
    plain, encoding = (plan_worker(replace(asked, trace=each), PAIR, role) for each in (asked.trace, calls))
    assert isinstance(plain, Planned)
    assert isinstance(encoding, Planned)
    assert encoding.request_s.mid > 1.2 * plain.request_s.mid
    assert encoding.request_s.mid == pytest.approx(encoding.predicted.next_s.mid)


def test_masters_of_a_host_are_counted_once_and_processes_each() -> None:
    found = by_name(compared(asked(*["middle"] * 4)))
    single, replicas = found["single"].able, found["replicas"].able
    assert single is not None
    assert replicas is not None
    one, four = single.figures.hosts[0], replicas.figures.hosts[0]
    assert four.bytes.high - four.master_bytes == 4 * PROCESS_BYTES["cuda"]
    assert one.bytes.high - one.master_bytes == PROCESS_BYTES["cuda"]
    masters = replicas.layout.workers[0].planned.masters
    assert four.master_bytes == sum(masters.values()) > 0
    hosts = [each.layout.workers[0].planned.plan.machine.host for each in (single, replicas)]
    assert hosts[0].there_bytes == hosts[1].there_bytes
    assert hosts[0].available_bytes - hosts[1].available_bytes == 3 * PROCESS_BYTES["cuda"]


def test_each_host_has_its_own_masters() -> None:
    found = by_name(compared(fleet_question(fleet_of(["middle"], ["middle"]))))
    replicas = found["replicas"].able
    assert replicas is not None
    assert [each.name for each in replicas.figures.hosts] == ["host-1", "host-2"]
    assert replicas.figures.hosts[0].bytes == replicas.figures.hosts[1].bytes


def test_roles_that_share_a_short_host_leave_each_other_memory() -> None:
    """Each by itself would take more for its masters than the other leaves."""
    fleet = fleet_of(["tiny", "tiny"])
    ample, short = (by_name(compared(fleet_question(fleet, ram_gib=ram_gib)))["roles"].able for ram_gib in (64, 18))
    assert ample is not None
    assert short is not None
    assert ample.figures.hosts[0].master_bytes > 16 * GiB
    assert 0 < short.figures.hosts[0].master_bytes <= short.figures.hosts[0].available_bytes


def test_a_slow_network_between_hosts_lengthens_a_request_and_no_worker() -> None:
    apart = fleet_of(["middle"], ["small"])
    slow = replace(apart, links=(HostLink(between=("host-2", "host-1"), bytes_per_s=1e6),))
    quick, slowed = (by_name(compared(fleet_question(each, steps=4)))["roles"].able for each in (apart, slow))
    assert quick is not None
    assert slowed is not None
    sent_s = 5 * MiB / 1e6
    assert slowed.figures.request_s.mid == pytest.approx(quick.figures.request_s.mid + sent_s, rel=0.01)
    assert [each.planned for each in slowed.layout.workers] == [each.planned for each in quick.layout.workers]


def test_workers_that_die_cost_requests_per_second() -> None:
    def lives(worker: int) -> Iterator[float]:
        while True:
            yield 1.0

    fleet = fleet_of(["large"] * 2)
    often = replace(fleet, failures=FailureRate(mean_s=60.0, restart_s=30.0))
    plain, broken = (
        by_name(compared(fleet_question(each), replace(at_once(), lives=lives)))["replicas"].able
        for each in (fleet, often)
    )
    assert plain is not None
    assert broken is not None
    assert broken.per_s < 0.8 * plain.per_s
    assert broken.figures.outcome.finished + broken.figures.outcome.failed == 50


def test_the_document_is_a_denoisers_plan_with_every_worker() -> None:
    found = compared(asked("small", "middle", steps=4))
    document = fleet_document(found, at_once())
    assert document is not None
    assert document.fleet is not None
    assert (document.layout, document.role.name) == ("roles", "denoiser")
    assert [(each.role, each.gpu) for each in document.workers] == [
        ("encoder-decoder", "Made-up GPU"),
        ("denoiser", "Made-up GPU"),
    ]
    assert list(document.workers[1].components) == ["transformer"]
    assert document.fleet.requests_per_s.low <= document.fleet.requests_per_s.mid <= document.fleet.requests_per_s.high
    assert "\nlayout: roles\n" in plan_to_yaml(document)
