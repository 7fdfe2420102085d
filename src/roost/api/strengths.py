"""How strongly an input is changed, and what that does to the steps that run."""

from __future__ import annotations

from roost.errors import UsageError
from roost.facts import Workload


def check_strength(strength: float) -> None:
    """UsageError for a strength that no pipeline takes."""
    if not 0 < strength <= 1:
        raise UsageError(f"--strength {strength:g} is out of range; give a number above 0, up to 1.")


def check_steps_run(workload: Workload) -> None:
    """UsageError for a strength that leaves no step to run."""
    if workload.steps_run < 1:
        raise UsageError(
            f"--strength {workload.strength:g} of {workload.steps} steps leaves none to run; give more of either."
        )


def steps_text(workload: Workload) -> str:
    """For people: ``40 steps``, or ``24 of 40 steps (strength 0.6)``."""
    if workload.strength is None:
        return f"{workload.steps} steps"
    return f"{workload.steps_run} of {workload.steps} steps (strength {workload.strength:g})"
