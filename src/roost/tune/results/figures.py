"""From what a trial measured to what a race compares and a row says."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from roost.facts.machine import DeviceKind
from roost.facts.stage import DENOISING
from roost.plan.measurements import RunFigures, StageFigures
from roost.plan.results import StageTime, TrialResult
from roost.probes.machine.gpu_conditions import GpuConditions
from roost.tune.results.records import Candidate, Measurement, Row


def completed(measured: TrialResult, steps: int, trial_steps: int) -> TrialResult:
    """One measured generation as the trial of a workload of ``steps``, of which ``trial_steps`` were run."""
    if measured.generation_s is None:
        return TrialResult(status="crashed", reason="the trial's figures are not complete")
    steady = measured.step_seconds or _single_step(measured.stages, trial_steps)
    left_out_s = (steps - trial_steps) * statistics.median(steady) if steady else 0.0
    return replace(
        measured,
        status="oom" if measured.demotions else "ok",
        reason=_demoted(measured.demotions) if measured.demotions else None,
        step_seconds=steady,
        total_s=measured.generation_s + left_out_s,
    )


def measurement(result: TrialResult, steps: int) -> Measurement:
    """A trial as the race sees it: each steady step with its share of what a generation takes beside its steps."""
    if result.status != "ok" or result.total_s is None or not result.step_seconds:
        return Measurement(status=result.status, reason=result.reason)
    middle = statistics.median(result.step_seconds)
    share = result.total_s / steps - middle
    return Measurement(status="ok", step_s=tuple(each + share for each in result.step_seconds))


def predicted_step_s(candidates: Iterable[Candidate], steps: int) -> dict[str, float]:
    """Predicted seconds of a generation for each step, as ``measurement`` counts measured ones."""
    known = {each.name: each.predicted for each in candidates if each.predicted is not None}
    return {name: each.next_s.mid / steps for name, each in known.items()}


def process_bytes(looks: Sequence[GpuConditions]) -> int | None:
    """The most that a process which came after the first look held of the GPU; None where NVML doesn't say.

    A container may see the trial under another number than its own, so who was there before tells them apart.
    """
    before = looks[0].held_bytes if looks else {}
    return max(
        (held for look in looks for pid, held in look.held_bytes.items() if pid not in before),
        default=None,
    )


def run_figures(row: Row, device_kind: DeviceKind, *, whole: bool) -> RunFigures:
    """What a row teaches the next plan. Unless the trials ran the ``whole`` workload, its denoising has no seconds.

    Stages of an emulated device teach nothing of memory: their activations count in the warm-up only.
    """
    result = row.result
    stages = [
        StageFigures(
            component=each.component,
            phase=each.phase,
            seconds=each.seconds if whole or each.phase not in DENOISING else None,
            peak_bytes=each.peak_bytes,
        )
        for each in result.stages
        if each.peak_bytes is not None
    ]
    return RunFigures(
        load_s=result.load_s,
        next_s=result.total_s,
        step_s=statistics.median(result.step_seconds) if result.step_seconds else None,
        peak_bytes=result.peak_bytes,
        stages=stages if device_kind == "cuda" else [],
    )


def against_reference(result: TrialResult, reference: str, digest: str | None) -> TrialResult:
    """The result, ``wrong`` when it finished with another output than the reference."""
    if result.digest is None or digest is None or result.digest == digest:
        return result
    if result.status not in ("ok", "oom"):
        return result
    reason = f"its output differs from that of {reference}: {result.digest[:12]} instead of {digest[:12]}"
    return replace(result, status="wrong", reason=reason)


def together(trials: Sequence[TrialResult]) -> TrialResult:
    """All trials of one candidate as one: steps of all, medians of seconds, the highest peaks, else the latest."""
    ok = [each for each in trials if each.total_s is not None]
    if not ok:
        return trials[-1]
    return replace(
        ok[-1],
        load_s=_median([each.load_s for each in ok]),
        step_seconds=tuple(step for each in ok for step in each.step_seconds),
        total_s=_median([each.total_s for each in ok]),
        peak_bytes=_most([each.peak_bytes for each in ok]),
        later_peak_bytes=_most([each.later_peak_bytes for each in ok]),
        reserved_bytes=_most([each.reserved_bytes for each in ok]),
        process_bytes=_most([each.process_bytes for each in ok]),
        host_peak_bytes=_most([each.host_peak_bytes for each in ok]),
        stall_s=_median([each.stall_s for each in ok]),
    )


def _single_step(stages: Sequence[StageTime], trial_steps: int) -> tuple[float, ...]:
    """With one step there is nothing between two: the denoising stages are it."""
    seconds = sum(each.seconds for each in stages if each.phase in DENOISING)
    return (seconds / trial_steps,) if seconds else ()


def _demoted(demotions: Mapping[str, Mapping[str, object]]) -> str:
    what = "; ".join(
        f"{name}: {', '.join(f'{key} {value}' for key, value in fields.items())}" for name, fields in demotions.items()
    )
    return f"memory did not allow the plan ({what})"


def _median(figures: Sequence[float | None]) -> float | None:
    known = [each for each in figures if each is not None]
    return statistics.median(known) if known else None


def _most(figures: Sequence[int | None]) -> int | None:
    return max((each for each in figures if each is not None), default=None)
