"""Held tiny pipelines for the engine's tests: what a case asks for, and what a generation cost."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from live_pipelines import live_pipeline, request_for
from plans import GIB, LAYERWISE, plan_for
from roost.plan import PlanDocument
from roost.plan.schema import Masters
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import Held, hold
from roost.residency.run.generate import generate

SHARES = (0, 1, 0.5, 1.0)  # resident blocks: none, one, half of them, all


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How every component of a pipeline is streamed."""

    share: float
    prefetch: int
    policy: str
    pinned: bool

    def strategy(self) -> dict[str, Any]:
        return {
            **LAYERWISE,
            "resident_blocks": self.share,
            "resident_policy": self.policy,
            "prefetch": self.prefetch,
        }


def every_case() -> list[Case]:
    """The whole product."""
    product = itertools.product(SHARES, (1, 2), ("strided", "leading"), (True, False))
    return [Case(share=share, prefetch=ahead, policy=policy, pinned=pinned) for share, ahead, policy, pinned in product]


def pairwise_cases() -> list[Case]:
    """A few of the product in which any two values of any two parameters meet."""
    wanted = {pair for case in every_case() for pair in _pairs(case)}
    chosen = []
    while wanted:
        best = max(every_case(), key=lambda case: len(wanted & _pairs(case)))
        wanted -= _pairs(best)
        chosen.append(best)
    return chosen


def rest_of_cases() -> list[Case]:
    """The product without the pairwise cover."""
    cover = pairwise_cases()
    return [case for case in every_case() if case not in cover]


def _pairs(case: Case) -> set[Any]:
    values = [("share", case.share), ("prefetch", case.prefetch), ("policy", case.policy), ("pinned", case.pinned)]
    return set(itertools.combinations(values, 2))


def plan_of(pipeline: Any, case: Case, budget_bytes: int = GIB) -> PlanDocument:
    plan = plan_for(pipeline, case.strategy(), budget_bytes=budget_bytes)
    return with_pinned(plan) if case.pinned else plan


def with_pinned(plan: PlanDocument, pinnable_bytes: int = GIB) -> PlanDocument:
    """The plan with every streamed block's master pinned, on a host that lets it."""
    pinned = {
        name: each.model_copy(update={"master": Masters(pinned=each.master.pageable, pageable=0, mapped=0)})
        for name, each in plan.components.items()
        if each.master is not None
    }
    host = replace(plan.machine.host, pinnable_bytes=pinnable_bytes)
    machine = plan.machine.model_copy(update={"host": host})
    return plan.model_copy(update={"components": {**plan.components, **pinned}, "machine": machine})


@contextlib.contextmanager
def held_on(name: str, plan: PlanDocument, **device: Any) -> Iterator[tuple[Held, EmulatedDevice]]:
    """Family ``name`` under ``plan`` on an emulated device that a test looks into."""
    with (
        EmulatedDevice(plan.budget.budget_bytes, **device) as emulated,
        hold(live_pipeline(name), plan, emulated) as held,
    ):
        yield held, emulated


def digest_of(held: Held, name: str, **changed: Any) -> str:
    return generate(held, request_for(name, **changed)).digest
