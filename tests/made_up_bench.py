"""Results of a bench that never ran: one candidate in each state that a row can have."""

from __future__ import annotations

from dataclasses import replace

from cards import card
from roost.facts.machine import HostFacts, Machine
from roost.facts.request import Workload
from roost.plan.figures import BytesInterval, Predicted, SecondsInterval
from roost.plan.results import TrialResult
from roost.tune.race.race import RaceSettings, race
from roost.tune.results.records import PLAIN, BenchResults, Candidate, Measurement, Row
from roost.units import GiB

STEPS_S = {
    "layerwise k=20 strided p1": ((0.512, 0.515, 0.514), (0.506, 0.519, 0.509), (0.514, 0.512, 0.518)),
    "rule plan": ((0.671, 0.675, 0.67), (0.688, 0.682, 0.691), (0.674, 0.673, 0.677)),
    "snapshot-offload": ((0.702, 0.7, 0.71), (0.713, 0.715, 0.712), (0.697, 0.699, 0.704)),
}
FAILED = {
    "resident": TrialResult(
        status="skipped", reason="the prediction needs 24.8 GiB of VRAM and the budget is 22.5 GiB"
    ),
    "layerwise k=36 leading p2": TrialResult(
        status="oom", reason="memory did not suffice: transformer gave up 4 resident blocks"
    ),
    "component-offload": TrialResult(status="hung", reason="no sign of life for 60.0 s, while in denoise"),
    "diffusers group offload leaf": TrialResult(
        status="wrong", reason="its output differs from that of plain diffusers"
    ),
    PLAIN: TrialResult(status="crashed", reason="died of SIGSEGV, while importing the libraries"),
}


def predicted(step_s: float, peak_bytes: int) -> Predicted:
    """A prediction of these figures for 28 steps, in intervals of a tenth."""

    def seconds(mid: float) -> SecondsInterval:
        return SecondsInterval(low=0.9 * mid, mid=mid, high=1.1 * mid)

    generation = seconds(28 * step_s)
    return Predicted(
        peak_bytes=BytesInterval(low=peak_bytes, mid=peak_bytes, high=peak_bytes),
        load_s=seconds(20.0),
        first_s=generation,
        next_s=generation,
        step_s=seconds(step_s),
        total_s=generation,
        first_total_s=generation,
        limiter="link",
        host_bytes=10 * GiB,
        pinned_bytes=9 * GiB,
        stages=[],
        source="dry-run",
        notes=[],
    )


def bench_results(**changed: object) -> BenchResults:
    """Three candidates that ran, raced as they are, and five that did not, each for another reason."""
    left = {name: iter(rounds) for name, rounds in STEPS_S.items()}
    outcome = race(
        list(STEPS_S),
        lambda name, limit: Measurement(status="ok", step_s=next(left[name])),
        RaceSettings(rounds=3),
        clock=lambda: 0.0,
    )
    ran = {each.name: len(each.rounds_s) for each in outcome.standings}
    results = BenchResults(
        model="FluxPipeline · flux.1-dev",
        workload=Workload(width=1024, height=1024, frames=None, steps=28, batch=1, guidance=3.5),
        machine=Machine(
            gpu=card(24 * GiB, 23 * GiB, name="NVIDIA Made Up 24", source="nvml"),
            host=HostFacts(available_bytes=60 * GiB, pinnable_bytes=30 * GiB, source="psutil"),
            headroom_bytes=GiB // 2,
        ),
        device_kind="cuda",
        trial_steps=5,
        rows=(
            *(Row(candidate=_candidate(name), result=_ran(name), rounds=ran[name]) for name in STEPS_S),
            *(
                Row(candidate=Candidate(name=name, strategy=name.split(maxsplit=1)[0]), result=result, rounds=0)
                for name, result in FAILED.items()
            ),
        ),
        winner=outcome.winner,
        reference="rule plan",
        samples={name: rounds[: ran[name]] for name, rounds in STEPS_S.items()},
        standings=outcome.standings,
        versions={"roost": "0"},
        notes=("the PCIe link ran as generation 3 × 16 under load, and card and slot can do 4 × 16",),
    )
    return replace(results, **changed)  # type: ignore[arg-type]


def _candidate(name: str) -> Candidate:
    fitting = predicted(0.95 * STEPS_S[name][0][0], 14 * GiB)
    return Candidate(name=name, strategy=name.split(maxsplit=1)[0], predicted=fitting)


def _ran(name: str) -> TrialResult:
    return TrialResult(
        status="ok",
        load_s=21.0,
        step_seconds=STEPS_S[name][0],
        total_s=28 * STEPS_S[name][0][0],
        peak_bytes=round(14.2 * GiB),
        reserved_bytes=15 * GiB,
        host_peak_bytes=round(10.4 * GiB),
        pinned_bytes=9 * GiB,
        digest="0" * 64,
    )
