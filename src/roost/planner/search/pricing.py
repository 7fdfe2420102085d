"""What one component's placement costs by itself, and what a whole plan costs: the figures that the search compares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

from roost.plan.shares import Level
from roost.planner.cost.alone import Alone
from roost.planner.cost.estimate import Forecast
from roost.planner.cost.host_turns import Turns
from roost.planner.cost.movement import load_s, moved_weights, tier_bytes
from roost.planner.cost.simulator import MovedWeights, UseCost, simulate
from roost.planner.placements import LossyChoices, Placement, lossy_of
from roost.planner.search.candidates import complexity
from roost.planner.search.option import Combination, Option

# A stream that takes no longer than this beside its bound gains nothing from more slots or another choice of residents.
_AT_BOUND = 1.0005


class Pricer:
    """Prices placements under one forecast; what is shared between placements is worked out once."""

    def __init__(self, forecast: Forecast) -> None:
        self.forecast = forecast
        self.speeds = forecast.model.rates.at("mid")
        self._costs: dict[tuple[Level, LossyChoices], tuple[UseCost, ...]] = {}
        self._totals: dict[tuple[int, ...], tuple[tuple[Placement, ...], float, float]] = {}  # by their identities
        self._taken: dict[tuple[str, LossyChoices, Level], tuple[int, int]] = {}
        self._last: tuple[Placement, MovedWeights] | None = None
        self.alone = Alone(forecast.trace, forecast.generations)

    def costs(self, lossy: LossyChoices, level: Level = "mid") -> tuple[UseCost, ...]:
        if (level, lossy) not in self._costs:
            self._costs[level, lossy] = self.forecast.costs(level, lossy)
        return self._costs[level, lossy]

    def weights(self, placement: Placement) -> MovedWeights:
        """How the placement's weights move; one placement is asked for several times in a row."""
        if self._last is None or self._last[0] is not placement:
            self._last = placement, moved_weights(placement, self.speeds)
        return self._last[1]

    @cached_property
    def room_bytes(self) -> int:
        """What the machine's budget leaves for weights and activations."""
        return self.forecast.machine.budget_bytes - self.forecast.context_bytes()

    @cached_property
    def turns(self) -> Turns | None:
        """The turns of host memory; None where all masters are there all the time."""
        return self.forecast.turns

    @cached_property
    def separable(self) -> bool:
        """Whether every component's uses are one run, once: then a plan costs exactly what its components cost alone.

        A component that is used again, in this generation or the next, may have been released for another meanwhile.
        """
        return self.forecast.generations == 1 and self.alone.once

    def passes(self, component: str) -> int:
        """The fewest passes in a row that follow an acquire."""
        return self.alone.fewest_passes(component)

    def least_block_s(self, component: str) -> dict[int, float]:
        """What each block computes in a round of the component's shortest use; empty where none has blocks."""
        own = [use for use in self.costs(frozenset()) if use.component == component and use.blocks]
        shortest = min(own, key=lambda use: use.compute_s, default=None)
        return {} if shortest is None else {block: seconds / shortest.rounds for block, seconds in shortest.blocks}

    def option(self, placement: Placement) -> Option:
        """The placement's price."""
        return self.priced(self.sized(placement))

    def priced(self, sized: Option) -> Option:
        """The price by a simulation of the placement's own uses; other components are gaps in which it stays."""
        placement = sized.placement
        weights, uses = self.weights(placement), self.costs(placement.lossy)
        first_s, next_s = self.alone.first_and_next_s(weights, uses)
        loading_s = load_s(placement, self.speeds)
        return replace(
            sized,
            seconds=loading_s + first_s + (self.forecast.generations - 1) * next_s,
            load_s=loading_s,
            next_s=next_s,
            leavings=self.alone.leavings(weights, uses),
            at_bound=self._at_bound(weights, uses, first_s),
        )

    def sized(self, placement: Placement) -> Option:
        """The placement's bytes, without the simulation that would say its seconds."""
        weights, tiers = self.weights(placement), tier_bytes(placement)
        own_bytes = self.own_bytes(placement)
        host_first, host_last = self.turns.span(placement.component) if self.turns is not None else (0, 0)
        return Option(
            placement=placement,
            seconds=0.0,
            load_s=0.0,
            next_s=0.0,
            idle_bytes=weights.total_bytes if weights.stays else 0,
            own_bytes=own_bytes,
            sure_bytes=max(own_bytes, self._need(placement, "slow")),
            held_bytes=0 if weights.stays else weights.active_bytes,
            entering_bytes=self.alone.entering_bytes(weights, self.costs(placement.lossy)),
            acquire_s=weights.trunk_s + sum(weights.block_s) + weights.back_s,
            host_bytes=tiers["pinned"] + tiers["pageable"],
            pinned_bytes=tiers["pinned"],
            complexity=complexity(placement),
            at_bound=True,
            host_first=host_first,
            host_last=host_last,
        )

    def own_bytes(self, placement: Placement) -> int:
        """What its largest use needs on the device beyond its resident bytes, activations included."""
        return self._need(placement, "mid")

    def _need(self, placement: Placement, level: Level) -> int:
        """What its largest use needs at one end of the interval: within the budget, or within it and the headroom."""
        weights, (planned, taken) = self.weights(placement), self._activations(placement, level)
        most_bytes = max(planned if level == "mid" else 0, taken - self.forecast.slack_bytes(level))
        return max(0, most_bytes + (0 if weights.stays else weights.active_bytes))

    def _activations(self, placement: Placement, level: Level) -> tuple[int, int]:
        """The component's largest activations, and with what the allocator can't use beside them."""
        key = placement.component.name, placement.lossy, level
        if key not in self._taken:
            own = [use for use in self.costs(placement.lossy, level) if use.component == placement.component.name]
            self._taken[key] = (
                max((use.activation_bytes for use in own), default=0),
                max((use.activation_bytes + use.unusable_bytes for use in own), default=0),
            )
        return self._taken[key]

    def bound_s(self, placement: Placement) -> float:
        """No simulation of the placement gives less: loading, and both queues' work in every generation."""
        weights, uses = self.weights(placement), self.costs(placement.lossy)
        return load_s(placement, self.speeds) + self.forecast.generations * self._busy_s(weights, uses)

    def _at_bound(self, weights: MovedWeights, uses: tuple[UseCost, ...], seconds: float) -> bool:
        """Whether no other slots or residents could be faster: both queues' work is a bound for all of them."""
        return not weights.streams or seconds <= _AT_BOUND * self._busy_s(weights, uses)

    def _busy_s(self, weights: MovedWeights, uses: tuple[UseCost, ...]) -> float:
        """What the busier queue of one generation has to do."""
        calls = [(uses[index], n) for index, n in self.forecast.trace.sequence]
        own = [(use, n) for use, n in calls if use.component == weights.component]
        compute_s = sum(use.compute_s * n for use, n in own)
        if not weights.streams:
            return compute_s
        streamed_s = sum(s for block, s in enumerate(weights.block_s) if block not in weights.resident)
        copies_s = sum(use.rounds * streamed_s * n for use, n in own)
        # Nothing computes before the trunk is there, and residents come through the same queue as all that streams.
        kept_s = sum(weights.block_s) - streamed_s
        return weights.trunk_s + max(compute_s, kept_s + copies_s)

    def combination(self, options: Iterable[Option]) -> Combination:
        """The whole plan, priced: load + first + (n − 1) · next, simulated together where components interact."""
        options = tuple(options)
        if self.separable:
            seconds, next_s = sum(each.seconds for each in options), sum(each.next_s for each in options)
        else:
            # The same combination comes up under many budgets.
            placements = tuple(each.placement for each in options)
            key = tuple(map(id, placements))
            if key not in self._totals:
                self._totals[key] = placements, *self._together_s(placements)
            _, seconds, next_s = self._totals[key]
        return Combination(options=options, seconds=seconds, next_s=next_s)

    def _together_s(self, placements: tuple[Placement, ...]) -> tuple[float, float]:
        schedule = self.forecast.schedule(placements, costs=self.costs(lossy_of(placements)))
        timeline = simulate(schedule, generations=min(2, self.forecast.generations))
        first_s, next_s = timeline.generation_s[0], timeline.generation_s[-1]
        return self.forecast.load_s(placements) + first_s + (self.forecast.generations - 1) * next_s, next_s
