"""What a plan says of the trials that it won."""

from __future__ import annotations

from roost.cli.screen import show_folded, show_text
from roost.plan.trials import Measured, Rival
from roost.units import format_bytes, format_measured, format_seconds


def show_trials(measured: Measured) -> None:
    """What the plan took, and how the others did beside it."""
    step = measured.step_s
    spread = "" if step.sd is None else f" ± {format_measured(step.sd, like=step.mean)}"
    peak = "" if measured.peak_bytes is None else f", peak {format_bytes(measured.peak_bytes)}"
    show_text(
        f"measured  a step {format_measured(step.mean)}{spread}, a generation {format_seconds(measured.total_s)}{peak}"
    )
    rounds = f"{measured.rounds} round{'s' if measured.rounds > 1 else ''} of {measured.trial_steps} steps"
    where = " on the emulated device, not a GPU" if measured.device_kind == "emulated" else ""
    show_folded(f"measured  in {rounds}{where}, {measured.when}")
    for rival in measured.rivals:
        show_folded(f"measured  {rival.name}: {_result(rival)}")


def _result(rival: Rival) -> str:
    if rival.ratio is None:
        return f"{rival.status}: {rival.reason}" if rival.reason else rival.status
    error = "" if rival.ratio_error is None else f" ± {rival.ratio_error:.2f}"
    return f"{rival.ratio:.2f}{error} × the time"
