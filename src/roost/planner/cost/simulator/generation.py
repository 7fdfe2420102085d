"""Whole generations on two queues: who is on the device, what each stage takes, and what it peaks at."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from roost.facts.stage import StageKey
from roost.planner.cost.simulator.lanes import Lanes
from roost.planner.cost.simulator.protocol import ActiveComponent, predicted_order
from roost.planner.cost.simulator.schedule import MovedWeights, Schedule, UseCost, flat_sequence, repeated_patterns
from roost.planner.cost.simulator.times import Pace, StageTimes, Timeline, UseSpan

_NEVER = 1 << 60
# Two passes are equal when every time in them agrees this closely, relative to the pass.
_TOLERANCE = 1e-9


def simulate(schedule: Schedule, generations: int = 1, *, record: bool = False, exact: bool = False) -> Timeline:
    """The timeline of ``generations`` after loading; ``exact`` simulates every pass instead of skipping equal ones."""
    run = _Run(schedule=schedule, generations=generations, lanes=Lanes(recording=record))
    return run.timeline(exact)


@dataclass(slots=True)
class _Run:
    schedule: Schedule
    generations: int
    lanes: Lanes
    active: dict[str, ActiveComponent] = field(default_factory=dict)
    calls: list[int] = field(default_factory=list)
    positions: dict[str, list[int]] = field(default_factory=dict)
    stages: dict[StageKey, StageTimes] = field(default_factory=dict)
    ended_s: float = 0.0
    simulated: int = 0
    spans: list[UseSpan] = field(default_factory=list)
    late: set[str] = field(default_factory=set)  # components whose late masters are there by now

    def timeline(self, exact: bool) -> Timeline:
        self.lanes.allocate("", "context", self.schedule.context_bytes)
        self.calls = flat_sequence(self.schedule.sequence)
        for position, index in enumerate(self.calls):
            self.positions.setdefault(self.schedule.uses[index].component, []).append(position)
        for weights in self.schedule.weights.values():
            if weights.stays:
                self._acquire(weights.component, ())
        patterns = [(1, 1)] * len(self.calls) if exact else repeated_patterns(self.calls)
        ends, stages = [], []
        for _ in range(self.generations):
            began_s, self.stages = self.ended_s, {}
            self._generation(patterns)
            ends.append(self.ended_s - began_s)
            stages.append(self.stages)
        return Timeline(
            generation_s=tuple(ends),
            stages=tuple(stages),
            peak_bytes=self.lanes.peak_bytes,
            reserved_bytes=self.lanes.reserved_bytes,
            events=tuple(self.lanes.events),
            memory=tuple(self.lanes.memory),
            simulated_uses=self.simulated,
            spans=tuple(self.spans),
        )

    def _generation(self, patterns: Iterable[tuple[int, int]]) -> None:
        position = 0
        for length, repeats in patterns:
            self._pattern(position, length, repeats)
            position += length * repeats
        if self.calls:
            self._end(self.stages[self.schedule.uses[self.calls[-1]].stage])

    def _end(self, last: StageTimes) -> None:
        """The end of a generation: what doesn't linger leaves, on the last stage's account."""
        counters, began_s = self._counters(), self.ended_s
        for each in list(self.active.values()):
            if not each.weights.stays and not each.weights.linger:
                self._release(each)
        leaving = self._since(last.component, began_s, counters)
        leaving.steady = last.steady
        last.add(leaving, 1)

    def _pattern(self, position: int, length: int, repeats: int) -> None:
        """Repeats of a group of uses: simulated until two in a row are equal, the rest by arithmetic."""
        before: list[float] | None = None
        for done in range(repeats):
            began_s = self.ended_s
            gained = self._once(position + done * length, length)
            taken_s = self.ended_s - began_s
            state = [taken_s, *self._state()]
            left = repeats - done - 1
            if left > 1 and before is not None and _equal(before, state, taken_s):
                self._skip(gained, taken_s, left - 1)
                # The last repeat is simulated: what comes after the group decides what it may release.
                self._once(position + (repeats - 1) * length, length)
                return
            before = state

    def _once(self, position: int, length: int) -> dict[StageKey, StageTimes]:
        gained: dict[StageKey, StageTimes] = {}
        for offset in range(length):
            self._use(position + offset, gained)
        self._merge(gained, 1)
        return gained

    def _skip(self, gained: dict[StageKey, StageTimes], taken_s: float, times: int) -> None:
        self._merge(gained, times)
        self.lanes.shift(taken_s * times)
        stages = tuple(gained)
        passes = times * sum(stage.uses for stage in gained.values())
        began_s, self.ended_s = self.ended_s, self.ended_s + taken_s * times
        if self.lanes.recording:
            self.spans.append(UseSpan(stages, stages[0].component, began_s, self.ended_s, passes, skipped=True))
        for each in self.active.values():
            each.shift(taken_s * times)

    def _merge(self, gained: dict[StageKey, StageTimes], times: int) -> None:
        for key, stage in gained.items():
            self.stages.setdefault(key, StageTimes(component=stage.component)).add(stage, times)

    def _use(self, position: int, gained: dict[StageKey, StageTimes]) -> None:
        use = self.schedule.uses[self.calls[position]]
        counters, began_s = self._counters(), self.ended_s
        self._make_room(use, position)
        # What has left was the stage before's; its peak is not this one's.
        self.lanes.peak_bytes, peak_so_far = self.lanes.allocated_bytes, self.lanes.peak_bytes
        if use.component not in self.active:
            self._make_masters(self.schedule.weights[use.component])
            self._acquire(use.component, predicted_order(use))
        self._run(use)
        stage = self._since(use.component, began_s, counters)
        stage.uses, stage.peak_bytes = 1, self.lanes.peak_bytes
        stage.steady = Pace(stage.seconds, stage.compute_s, stage.copy_s, stage.h2d_bytes)
        stage.weights_bytes = self.lanes.allocated_bytes - self.schedule.context_bytes
        self.lanes.peak_bytes = max(self.lanes.peak_bytes, peak_so_far)
        gained.setdefault(use.stage, StageTimes(component=use.component)).add(stage, 1)
        if self.lanes.recording:
            self.spans.append(UseSpan((use.stage,), use.component, began_s, self.ended_s))
        self.simulated += 1

    def _make_masters(self, weights: MovedWeights) -> None:
        """Masters that come late: the device waits for the host, which reads them."""
        if weights.late_s and weights.component not in self.late:
            self.late.add(weights.component)
            self.lanes.synchronise()
            self.lanes.host_s += weights.late_s

    def _run(self, use: UseCost) -> None:
        component, order = self.active[use.component], predicted_order(use)
        self.lanes.allocate(use.component, "activations", use.activation_bytes)
        self.lanes.reserve(use.unusable_bytes)
        component.run_trunk(use.before_s)
        component.run_blocks(use, order)
        component.run_trunk(use.after_s)
        self.lanes.allocate(use.component, "activations", -use.activation_bytes)

    def _make_room(self, use: UseCost, position: int) -> None:
        """Releases what is idle, by the release policy."""
        for each in list(self.active.values()):
            if each.weights.component != use.component and self._next_use(each, position) == _NEVER:
                self._release(each)
        weights = self.schedule.weights[use.component]
        while self._needed_bytes(use) > self.schedule.budget_bytes:
            idle = [each for each in self.active.values() if each.weights is not weights and not each.weights.stays]
            if not idle:
                break
            self._release(max(idle, key=lambda each: self._next_use(each, position)))

    def _needed_bytes(self, use: UseCost) -> int:
        here = self.active.get(use.component)
        held_bytes = here.held_bytes if here else 0
        weights = self.schedule.weights[use.component]
        weights_bytes = self.lanes.allocated_bytes - held_bytes + max(held_bytes, weights.active_bytes)
        return weights_bytes + use.activation_bytes + use.unusable_bytes

    def _next_use(self, active: ActiveComponent, position: int) -> int:
        """The position of its next call: in this generation, or with ``linger`` in the next."""
        if active.weights.stays:
            return position
        calls = self.positions.get(active.weights.component, [])
        later = bisect_left(calls, position)
        if later < len(calls):
            return calls[later]
        return len(self.calls) + calls[0] if active.weights.linger and calls else _NEVER

    def _acquire(self, component: str, order: tuple[int, ...]) -> None:
        self.active[component] = ActiveComponent(self.schedule.weights[component], self.lanes)
        self.active[component].acquire(order)

    def _release(self, active: ActiveComponent) -> None:
        active.release()
        del self.active[active.weights.component]

    def _state(self) -> list[float]:
        lanes = self.lanes
        state = [max(0.0, lanes.copy_s - lanes.compute_s), max(0.0, lanes.host_s - lanes.compute_s)]
        return state + [value for each in self.active.values() for value in each.state()]

    def _counters(self) -> tuple[float, float, float, int, int]:
        lanes = self.lanes
        return lanes.busy_compute_s, lanes.busy_copy_s, lanes.stall_s, lanes.h2d_bytes, lanes.d2h_bytes

    def _since(self, component: str, began_s: float, counters: tuple[float, float, float, int, int]) -> StageTimes:
        compute_s, copy_s, stall_s, h2d_bytes, d2h_bytes = self._counters()
        self.ended_s = max(self.lanes.compute_s, self.lanes.host_s)
        return StageTimes(
            component=component,
            seconds=self.ended_s - began_s,
            compute_s=compute_s - counters[0],
            copy_s=copy_s - counters[1],
            stall_s=stall_s - counters[2],
            h2d_bytes=h2d_bytes - counters[3],
            d2h_bytes=d2h_bytes - counters[4],
        )


def _equal(before: list[float], after: list[float], taken_s: float) -> bool:
    allowed = _TOLERANCE * max(taken_s, _TOLERANCE)
    return len(before) == len(after) and all(abs(a - b) <= allowed for a, b in zip(before, after, strict=True))
