"""The timeline: an event simulation of the copy engine and the compute engine, by the runtime's own protocol."""

from roost.planner.timeline.schedule import Schedule, UseCost, Weights, flat_sequence, repeated_patterns
from roost.planner.timeline.simulate import simulate
from roost.planner.timeline.times import Pace, StageTimes, Timeline, UseSpan

__all__ = [
    "Pace",
    "Schedule",
    "StageTimes",
    "Timeline",
    "UseCost",
    "UseSpan",
    "Weights",
    "flat_sequence",
    "repeated_patterns",
    "simulate",
]
