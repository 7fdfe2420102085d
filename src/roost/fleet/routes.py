"""Which of a plan's workers are what to a request: where it begins, where it goes on, who answers for a component."""

from __future__ import annotations

from collections.abc import Sequence

from roost.fleet.dispatch import WorkerRole
from roost.fleet.plans import plan_of
from roost.fleet.tasks import Onward
from roost.plan import PlanDocument

_FIRST_KINDS = ("text_encoder", "image_encoder", "dit", "vae")  # in a pipeline's usual order


def worker_roles(document: PlanDocument) -> list[WorkerRole]:
    """The plan's workers, in their order."""
    return [
        WorkerRole(
            name=each.name,
            components=frozenset(each.components),
            decodes="decode" in plan_of(document, each).role.stages,
            denoises="denoise" in plan_of(document, each).role.stages,
        )
        for each in document.workers
    ]


def first_workers(workers: Sequence[WorkerRole], plan: PlanDocument) -> tuple[str, ...]:
    """The workers with what a pipeline usually uses first; where it uses another, it travels on by itself."""
    kinds = {name: each.kind for name, each in plan.components.items()}
    for kind in _FIRST_KINDS:
        found = tuple(each.name for each in workers if any(kinds[name] == kind for name in each.components))
        if found:
            return found
    return tuple(each.name for each in workers)


def next_workers(workers: Sequence[WorkerRole], onward: Onward) -> tuple[str, ...]:
    """The workers that have what a request needs next; one that must call it from where it denoises goes there."""
    if onward.through:
        return tuple(each.name for each in workers if each.denoises)
    having = [each for each in workers if onward.component in each.components]
    decoding = [each for each in having if each.decodes]
    return tuple(each.name for each in (decoding if onward.decodes and decoding else having))


def owners_of(workers: Sequence[WorkerRole], plan: PlanDocument) -> dict[str, tuple[str, ...]]:
    """Who answers other workers' calls of each component, the first that is there; of VAEs, those that decode."""
    found = {}
    for name, each in plan.components.items():
        having = [worker for worker in workers if name in worker.components]
        decoding = [worker for worker in having if worker.decodes]
        found[name] = tuple(worker.name for worker in (decoding if each.kind == "vae" and decoding else having))
    return found


def called_owners(workers: Sequence[WorkerRole], plan: PlanDocument) -> tuple[tuple[str, ...], ...]:
    """The owners of all components that a worker which denoises may have to call, each group once."""
    denoising = [each for each in workers if each.denoises]
    owners = dict.fromkeys(owners_of(workers, plan).values())
    return tuple(each for each in owners if not all(worker.name in each for worker in denoising))
