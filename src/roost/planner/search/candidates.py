"""Which placements of one component the search may choose: every strategy and parameter that options leave open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

from roost.facts.decider import Decider
from roost.facts.model import Component
from roost.facts.request import Strategy, Tier
from roost.facts.resident_policy import ResidentPolicy, blocks_of_stacks, policy_of
from roost.planner.buffers import can_be_mapped
from roost.planner.placements import Placement, Streaming, blocks_ahead, tiers_are_typed
from roost.planner.rules.case import Case, Decision
from roost.planner.rules.names import group_of, kind_of
from roost.planner.search.stack_shares import shares_of_stacks

_OPEN: tuple[Strategy, ...] = ("resident", "component-offload", "snapshot-offload", "layerwise-offload")
_POLICIES: tuple[ResidentPolicy, ...] = ("strided", "leading")
_PREFETCHES = (1, 2)
# Layers below blocks come in where memory is short: few of many ways to keep some of them are worth a look.
LEAF_PREFETCHES, LEAF_STEPS = (1, 2, 4, 12), 8
_STEPS = 16  # of the number of residents, where what streams is split between tiers too


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What bounds one component's candidates beside the typed options.

    ``passes`` is how often its blocks run for each acquire; with one pass, residents save nothing. ``tilings`` are the
    ways to run it that are open; ``lingers`` says that a copy kept to the next generation would be used again.
    ``splits`` is into how many parts tiers split at most what streams: fewer where whole plans are simulated, many for
    each candidate. ``hidden`` says of each stack with how many residents its compute hides the copies of the others;
    empty where it makes no difference whose blocks stay. ``in_fp8`` is the component with its linear weights in 8 bits,
    where that is allowed and possible.
    """

    passes: int
    chunked: bool
    tilings: tuple[bool, ...]
    lingers: bool
    splits: int = 16
    hidden: tuple[int, ...] = ()
    in_fp8: Component | None = None


def candidate_placements(case: Case, ruled: Placement, scope: Scope) -> Iterator[Placement]:
    """Every placement of the rule placement's component that no option rules out, the rule placement first."""
    yield ruled
    yield from _as_stored(case, ruled, scope)
    mapped = ruled.decision.parameters.get("mapped")  # no file has a block's weights in 8 bits
    if scope.in_fp8 is not None and not mapped:
        yield from _as_stored(case, replace(ruled, component=scope.in_fp8), scope)


def _as_stored(case: Case, ruled: Placement, scope: Scope) -> Iterator[Placement]:
    """Every placement of the component at the sizes that ``ruled`` has it with."""
    fixed = dict(ruled.decision.parameters) if _is_typed(ruled) else {}
    tilings = (bool(fixed["tiling"]),) if "tiling" in fixed else scope.tilings
    for strategy in _strategies(case, ruled):
        for tiling in tilings:
            if strategy == "resident":
                yield _whole(ruled, strategy, "pinned", linger=False, tiling=tiling)
            elif strategy == "layerwise-offload":
                for streaming in _streamings(case, ruled, scope, fixed):
                    yield replace(_whole(ruled, strategy, "pinned", False, tiling), streaming=streaming)
            else:
                linger = bool(fixed.get("linger", scope.lingers))
                for tier in _whole_tiers(ruled):
                    yield _whole(ruled, strategy, tier, linger, tiling)


def _is_typed(ruled: Placement) -> bool:
    return ruled.decision.decided_by.typed


def _strategies(case: Case, ruled: Placement) -> tuple[Strategy, ...]:
    """The strategies that typed options, FSDP and the mode leave open."""
    if ruled.strategy == "fsdp" or not case.on_cuda:
        return ()
    if _is_typed(ruled):
        return (ruled.strategy,)
    if case.choices.mode in ("manual", "speed"):
        return ("resident",)
    not_layerwise = case.choices.layerwise_components is not None or (
        group_of(ruled.component) == "dit" and case.choices.dit_layerwise_offload is False
    )
    return tuple(each for each in _OPEN if not (each == "layerwise-offload" and not_layerwise))


def _whole(ruled: Placement, strategy: Strategy, tier: Tier, linger: bool, tiling: bool) -> Placement:
    typed = _is_typed(ruled)
    decision = ruled.decision if typed else Decision(strategy=strategy, decided_by=Decider("search"), why="")
    return replace(ruled, strategy=strategy, linger=linger, streaming=None, decision=decision, tier=tier, tiling=tiling)


def _whole_tiers(ruled: Placement) -> tuple[Tier, ...]:
    return ("pinned", "pageable", "mapped") if can_be_mapped(ruled.component) else ("pinned", "pageable")


def _streamings(case: Case, ruled: Placement, scope: Scope, fixed: dict[str, object]) -> Iterator[Streaming]:
    count = len(ruled.block_bytes)
    if not count:
        return
    hold = bool(fixed.get("hold", scope.chunked))
    for resident in _resident_counts(ruled, scope, fixed, hold):
        for policy in _policies(ruled, resident, scope, fixed):
            ahead = _prefetches(case, ruled, fixed, count - resident)
            for prefetch in ahead:
                slots = 0 if resident == count else min(prefetch + 1, count - resident)
                made = Streaming(
                    resident_blocks=resident, resident_policy=policy, prefetch=prefetch, slots=slots, hold=hold
                )
                yield from _with_tiers(ruled, made, 2 if prefetch > ahead[0] else scope.splits)


def _resident_counts(ruled: Placement, scope: Scope, fixed: dict[str, object], hold: bool) -> tuple[int, ...]:
    if "resident_blocks" in fixed:
        return (cast(int, fixed["resident_blocks"]),)
    if kept := blocks_of_stacks(cast(str, fixed.get("resident_policy", ""))):
        return (sum(kept),)
    if hold or scope.passes < 3:
        return (0,)
    count = len(ruled.block_bytes)
    return tuple(range(0, count, max(1, count // LEAF_STEPS) if ruled.component.leaf_level else 1))


def _policies(ruled: Placement, resident: int, scope: Scope, fixed: dict[str, object]) -> tuple[ResidentPolicy, ...]:
    if "resident_policy" in fixed:
        return (cast(ResidentPolicy, fixed["resident_policy"]),)
    if not resident or ruled.component.leaf_level:
        return _POLICIES[:1]
    counts = [unit.count for unit in ruled.component.units]
    return (*_POLICIES, *dict.fromkeys(map(policy_of, shares_of_stacks(counts, resident, scope.hidden))))


def _prefetches(case: Case, ruled: Placement, fixed: dict[str, object], streamed: int) -> tuple[int, ...]:
    """The typed number of blocks ahead, else one and two, and more where they are layers, as far as there are any."""
    if "prefetch" in fixed or (case.choices.prefetch is not None and kind_of(ruled.component) == "dit"):
        return (blocks_ahead(case, ruled.component, ruled.decision),)
    prefetches = LEAF_PREFETCHES if ruled.component.leaf_level else _PREFETCHES
    return tuple(ahead for ahead in prefetches if ahead == 1 or ahead < streamed)


def _with_tiers(ruled: Placement, made: Streaming, splits: int) -> Iterator[Streaming]:
    """The same with its masters in every tier worth trying, or as they were typed."""
    typed = ruled.streaming
    if typed is not None and tiers_are_typed(ruled.decision):
        yield replace(made, pinned=typed.pinned, pageable=typed.pageable, mapped=typed.mapped)
        return
    count = len(ruled.block_bytes)
    for pinned, in_memory in dict.fromkeys(_splits(ruled, made, splits)):
        yield replace(made, pinned=pinned, pageable=in_memory - pinned, mapped=count - in_memory)


def _splits(ruled: Placement, made: Streaming, most: int) -> Iterator[tuple[int, int]]:
    """How many blocks are pinned, and how many in memory at all: what streams is so first, then what stays.

    What is pinned streams the fastest; what isn't loads faster, and what is mapped fits where host memory is scarce.
    These are the same whatever host memory there is, so that more of it never hides a plan.
    """
    count, resident = len(ruled.block_bytes), made.resident_blocks
    streamed = count if made.hold else count - resident
    yield count, count
    yield streamed, count
    if resident % max(1, count // _STEPS) > 0 or made.resident_policy != _POLICIES[0]:
        return
    mappable = can_be_mapped(ruled.component)
    if mappable and resident:
        yield from ((streamed, streamed + resident * step // 4) for step in (1, 2, 3))
    steps = most if resident % max(1, count // 4) == 0 else max(2, most // 2)
    for step in reversed(range(steps + 1)):
        part = streamed * step // steps
        yield part, count
        if mappable:
            yield from ((part, part), (part * 4 // 5, part))  # so much of host memory can be pinned
            if step % (steps // 2) == 0:
                yield 0, part


def complexity(placement: Placement) -> int:
    """How much there is to it: of two plans within the noise, the simpler one is taken."""
    streaming = placement.streaming
    points = {"resident": 0, "fsdp": 0, "snapshot-offload": 1, "component-offload": 1, "layerwise-offload": 2}
    total = points[placement.strategy] + 2 * len(placement.lossy)
    if streaming is not None:
        tiers = sum(count > 0 for count in (streaming.pinned, streaming.pageable, streaming.mapped))
        total += (streaming.resident_policy == "leading") + (streaming.prefetch > 1) + max(0, tiers - 1)
    return total
