"""The timeline: an event simulation of the copy engine and the compute engine, by the runtime's own protocol."""

from roost.planner.timeline.schedule import Schedule, UseCost, Weights, flat_sequence, repeated_patterns
from roost.planner.timeline.simulate import StageTimes, Timeline, simulate

__all__ = ["Schedule", "StageTimes", "Timeline", "UseCost", "Weights", "flat_sequence", "repeated_patterns", "simulate"]
