"""All contestants on one denoiser and one card, each beside its bounds and beside Roost in as much memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from block_times import BlockTimes, block_times
from children import Failed, in_child
from denoisers import Denoiser, build
from foreseen import Blocks, Residency
from paper import StreamedBlock, rings_on_paper
from passes import run
from peer_wheels import absent
from peers import Peer, peers
from roost_held import HOLDING, held, pipeline_class
from virtual_cards import VirtualCard, virtual_card

from roost.planner.search.candidates import LEAF_PREFETCHES

GIB = 2**30
SHARES = (0, 25, 50, 75, 100)
AMPLE_BYTES = 200 * GIB  # of card, to time blocks of a model that doesn't fit
MOST_TRIES = 4  # to meet a number of reserved bytes
EQUAL = 1.01  # reserved bytes up to this share apart count as the same: the allocator's own steps
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One denoiser, and who runs it."""

    denoiser: Denoiser

    @classmethod
    def of(cls, model: str) -> Field:
        denoiser = build(model)
        pipeline_class(denoiser)  # imported once, before the children are forked
        return cls(denoiser=denoiser)

    def raced_on(self, card_key: str) -> dict[str, Any]:
        """The pair's record: the denoiser on the card, Roost's rows, the peers' and Roost's beside those."""
        card = virtual_card(card_key)
        course, fine = (
            Course(
                denoiser=each,
                card=card,
                times=in_child(card.variables(AMPLE_BYTES), partial(block_times, each, card)),
            )
            for each in (self.denoiser, self.denoiser.at_leaf_level())
        )
        roost = [course.roost_share(share) for share in SHARES]
        by_layers = [fine.roost_ahead(ahead) for ahead in LEAF_PREFETCHES]
        return {
            "model": self.denoiser.family.model,
            "size": self.denoiser.family.size,
            "card": card_key,
            "weights_bytes": self.denoiser.bytes,
            "link_bytes_per_s": card.link_bytes_per_s,
            "compute_s": course.times.compute_s,
            "host_s": course.times.host_s,
            "roost": [*roost, *by_layers],
            "paper": course.on_paper(),
            "peers": [beside_roost(each, (course, roost[0]), (fine, by_layers[0])) for each in peers()],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One denoiser on one card."""

    denoiser: Denoiser
    card: VirtualCard
    times: BlockTimes
    runs: dict[Residency, Row] = field(default_factory=dict)  # of Roost, so far

    @property
    def blocks(self) -> Blocks:
        return Blocks(times=self.times, card=self.card)

    def roost_share(self, share: int) -> Row:
        count = round(sum(self.blocks.counts) * share / 100)
        return {"name": f"Roost {share} %", **self._roost(Residency(resident_blocks=count))}

    def roost_ahead(self, prefetch: int) -> Row:
        """No resident layer, so many ahead."""
        return {"name": f"Roost by layers, {prefetch} ahead", **self._roost(Residency(0, prefetch=prefetch))}

    def on_paper(self) -> list[Row]:
        """Slots, rings of as many bytes, and the planner's choice of residents in as many."""
        streamed = [
            StreamedBlock(bytes=self.times.block_bytes[name], seconds=seconds) for name, seconds in self.times.blocks
        ]
        found: list[Row] = []
        for row in rings_on_paper(streamed, self.card.link_bytes_per_s):
            chosen = self.blocks.chosen(row["bytes"])
            found.append({**row, "chosen_s": self.blocks.first_and_steady_s(chosen)[1] if chosen else row["slots_s"]})
        return found

    def peer(self, peer: Peer) -> Row:
        return {"name": peer.name, **self._entered(partial(_enter_peer, peer))}

    def within(self, reserved_bytes: int, least: Row) -> Row:
        """Roost with the residents that the planner chooses, such that no more is reserved than that."""
        beside_bytes = least["reserved_bytes"] - self.blocks.held_bytes(Residency(0))
        most_bytes = reserved_bytes * EQUAL
        room_bytes = most_bytes - beside_bytes
        for _ in range(MOST_TRIES):
            residency = self.blocks.chosen(room_bytes)
            if residency is None:
                break
            row = self._roost(residency)
            if "failed" in row or row["reserved_bytes"] <= most_bytes:
                return row
            room_bytes = self.blocks.held_bytes(residency) - (row["reserved_bytes"] - most_bytes)
        return {"failed": f"needs {least['reserved_bytes'] / GIB:.2f} GiB by layers"}

    def _roost(self, residency: Residency) -> Row:
        if residency not in self.runs:
            first_s, steady_s = self.blocks.first_and_steady_s(residency)
            self.runs[residency] = {
                **asdict(residency),
                "leaf_level": self.blocks.leaf_level,
                "foreseen": {"first_s": first_s, "steady_s": steady_s},
                **self._entered(held(residency, self.blocks)),
            }
        return self.runs[residency]

    def _entered(self, enter: Callable[[Denoiser], Callable[..., Any]]) -> Row:
        try:
            found = in_child(self.card.variables(), partial(_run, self.denoiser, self.card, enter))
        except Failed as failure:
            return {"failed": str(failure)}
        return {**found, **self._bounds(found)}

    def _bounds(self, found: Row) -> Row:
        """What no schedule of whole blocks could beat that copies as much."""
        work_s = max(self.times.compute_s, self.times.host_s)
        steady_s = max(work_s, found["steady"]["h2d_bytes"] / self.card.link_bytes_per_s)
        return {"steady_bound_s": steady_s, "first_bound_s": self._first_bound_s()}

    def _first_bound_s(self) -> float:
        """A first pass whose every block must come in before it computes, copies one after another in order of use."""
        copied_bytes, ends_s = self.times.trunk_bytes, 0.0
        for name, seconds in self.times.blocks:
            copied_bytes += self.times.block_bytes[name]
            ends_s = max(ends_s, copied_bytes / self.card.link_bytes_per_s) + seconds
        return ends_s + self.times.after_s


def beside_roost(peer: Peer, *courses: tuple[Course, Row]) -> Row:
    """A peer's row; ``roost`` is Roost in no more reserved memory: by blocks, or by layers where those take too much.

    With each course comes the row of Roost that takes the least there.
    """
    row = courses[0][0].peer(peer)
    for course, least in courses:
        if "failed" not in row and "failed" not in least and "failed" in row.get("roost", {"failed": ""}):
            row["roost"] = course.within(row["reserved_bytes"], least)
    return row


def _run(denoiser: Denoiser, card: VirtualCard, enter: Callable[[Denoiser], Callable[..., Any]]) -> Row:
    """In a child: the contestant's record; ``gave_up`` is what Roost did without because memory was short."""
    found = run(denoiser, card, enter).record()
    return {**found, "gave_up": [change for each in HOLDING for change in each.changes]}


def _enter_peer(peer: Peer, denoiser: Denoiser) -> Callable[..., Any]:
    why = absent(peer.tool)
    if why is not None:
        raise ImportError(f"absent: {why}")
    return peer.enter(denoiser)
