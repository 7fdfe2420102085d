"""The timeline: an event simulation of the copy engine and the compute engine, by the runtime's own protocol.

It is given movements, costs and an order of uses; it knows no card, no model and no plan.
"""

from roost.planner.cost.simulator.generation import simulate
from roost.planner.cost.simulator.schedule import MovedWeights, Schedule, UseCost, flat_sequence, repeated_patterns
from roost.planner.cost.simulator.times import Pace, StageTimes, Timeline, UseSpan

__all__ = [
    "MovedWeights",
    "Pace",
    "Schedule",
    "StageTimes",
    "Timeline",
    "UseCost",
    "UseSpan",
    "flat_sequence",
    "repeated_patterns",
    "simulate",
]
