"""Whether as many processes were started as a plan shards its components over."""

from __future__ import annotations

from roost.errors import PlanMismatch, UsageError
from roost.facts.machine import Ranks
from roost.option_spelling import typed_words
from roost.plan import PlanDocument
from roost.shell_quoting import command


def sharded_components(plan: PlanDocument) -> list[str]:
    """The components that FSDP shards."""
    return [name for name, each in plan.components.items() if each.strategy == "fsdp"]


def torchrun_words(plan: PlanDocument) -> tuple[str, ...]:
    """How a command line begins that runs the plan by as many processes as it needs, in place of ``roost``."""
    if not sharded_components(plan):
        return ("roost",)
    return ("torchrun", "--nproc-per-node", str(plan.policy.num_gpus), "-m", "roost")


def check_ranks(plan: PlanDocument, ranks: Ranks | None) -> None:
    """UsageError for a sharded plan in one process, or for another plan in several; PlanMismatch for another number."""
    sharded, planned = sharded_components(plan), plan.policy.num_gpus
    world = 1 if ranks is None else ranks.world
    if not sharded:
        if world > 1:
            raise UsageError(
                f"torchrun started {world} processes, and this plan shards nothing, so each would make the same; run it"
                " with roost alone."
            )
        return
    names, start = ", ".join(map(repr, sharded)), command(*torchrun_words(plan), *(typed_words() or ("run", "PLAN")))
    if ranks is None:
        raise UsageError(
            f"this plan shards {names} with FSDP over {planned} GPUs, which needs torchrun and a process for each;"
            f" start them with: {start}"
        )
    if world != planned:
        raise PlanMismatch(
            f"this plan shards {names} over {planned} GPUs, and torchrun started {world} processes; start as many as"
            f" planned with: {start}"
        )
