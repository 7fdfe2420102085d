"""The generations of a run among the ranks that share its weights: rounds, in which each rank makes one of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from roost.api.requests.request import PlannedCall
from roost.api.runs.made import Made
from roost.api.runs.ready import ReadyPlan
from roost.errors import SaidElsewhere

if TYPE_CHECKING:
    from roost.fleet.tasks import Done
    from roost.residency.engine.eviction import Used
    from roost.residency.hold.attach import Held
    from roost.residency.sharded.group import RankGroup


def why_together(ready: ReadyPlan) -> str | None:
    """Why all ranks must make the same generation at a time; None where each can make one of its own.

    Ranks gather each other's shards as they call a sharded component, so that they must make the same such calls in the
    same order. Steps, guidance, sizes, pictures and LoRAs are equal for all generations of a run, so that denoisers are
    called alike, whatever the prompt and seed. Not so

    - with a cache over steps, which may go by values in what it skips;
    - where an encoder or a VAE is sharded: of texts that are encoded ahead, equal ones are encoded once;
    - where the pipeline's source has a loop of denoiser calls that ends by what it computes, such as those of LLaDA2,
      DiffusionGemma, ParaDiGMS and Attend-and-Excite, or can't be read.

    What escapes this is found by comparing the ranks' calls (``RankGroup.round``), and ends the run.
    """
    from roost.pipelines.classes import pipeline_class
    from roost.pipelines.step_loops import ends_by_values  # imported here: these bring torch

    if ready.plan.cache is not None:
        return "a cache over steps may skip others in each"
    sharded = {name: each for name, each in ready.plan.components.items() if each.strategy == "fsdp"}
    other = next((name for name, each in sharded.items() if each.kind != "dit"), None)
    if other is not None:
        return f"{other} is sharded, too, and generations may need it in other numbers"
    pipeline = ready.plan.model.pipeline
    if ends_by_values(pipeline_class(pipeline), frozenset(sharded)):
        return f"{pipeline} may call its denoiser in other numbers for each"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A round in which this process makes the call ``wanted``, at ``place`` among the run's.

    ``others`` are the ranks that rank 0 hears from, with what each makes for it; of a rank that only keeps step None.
    """

    group: RankGroup | None
    place: int
    wanted: PlannedCall
    is_own: bool  # nobody else makes it
    others: Mapping[int, PlannedCall | None]

    @contextmanager
    def in_step(self, held: Held) -> Iterator[None]:
        """Around this process's call. Raises RoostError where another rank uses shards otherwise in its own."""
        group = self.group
        if group is None:
            yield
            return

        def begin(component: Used) -> None:
            if component.plan.strategy == "fsdp":
                group.begin(component.name)

        with group.round():
            held.runtime.gate = begin
            try:
                yield
            finally:
                held.runtime.gate = None

    def send(self, done: Done | None) -> None:
        """Sends rank 0 what this one, which is another, made; None for what nobody needs."""
        assert self.group is not None, "one of several"
        self.group.send(b"" if done is None else done.pack())

    def received(self) -> Iterator[tuple[PlannedCall, Done]]:
        """On rank 0, what the others made, in the order of the calls.

        Where one fails, what the rest have sent comes first, then SaidElsewhere.
        """
        from roost.fleet.tasks import Done  # imported here: it brings torch

        failed: SaidElsewhere | None = None
        for rank, wanted in self.others.items():
            assert self.group is not None, "others are there"
            try:
                raw = self.group.receive(rank)
            except SaidElsewhere as error:
                failed = error
                continue
            if wanted is not None:
                yield wanted, Done.unpack(raw)
        if failed is not None:
            raise failed


class Rounds:
    """This process's part in a run's ``calls``, a round each.

    In each round each rank makes the next call, in the order of the ranks; who has none left of its own in the last
    round repeats the last. A process alone makes all calls, and so does each rank where ``why_together`` says why.
    """

    def __init__(self, ready: ReadyPlan, calls: Sequence[PlannedCall]) -> None:
        self._group = ready.group
        self._rank, self._world = 0, 1
        if ready.group is not None:
            self._rank, self._world = ready.group.ranks.rank, ready.group.ranks.world
        self.why_together = why_together(ready) if self._world > 1 and len(calls) > 1 else None
        size = 1 if self.why_together is not None else self._world
        self.apart = size > 1  # ranks make calls of their own
        self.own = [self._round(calls, first, size) for first in range(0, len(calls), size)]

    def _round(self, calls: Sequence[PlannedCall], first: int, size: int) -> Round:
        theirs = {rank: first + rank for rank in range(size) if first + rank < len(calls)}
        place = theirs.get(self._rank, first if size == 1 else len(calls) - 1)
        others = range(1, self._world) if self._rank == 0 else ()
        return Round(
            group=self._group,
            place=place,
            wanted=calls[place],
            is_own=self._rank in theirs,
            others={rank: calls[theirs[rank]] if rank in theirs else None for rank in others},
        )

    def close(self, made: Made) -> None:
        """Ends the last round; rank 0's ``made`` gets what memory did not allow others whose outputs it has."""
        if self._group is None:
            return
        if self.apart and self._rank:
            self._group.send(json.dumps([made.changes, made.demotions]).encode())
        elif self.apart:
            for rank in range(1, self._world):
                changes, demotions = json.loads(self._group.receive(rank))
                made.changes += [f"rank {rank}: {each}" for each in changes if each not in made.changes]
                for name, fields in demotions.items():
                    made.demotions[name] = {**fields, **made.demotions.get(name, {})}
        self._group.agree("made")
