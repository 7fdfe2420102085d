"""Made-up measurements for the tests of the store and of what is learnt from it."""

from __future__ import annotations

from typing import Any, Literal

from roost.facts.request import Workload
from roost.plan.measurements import (
    DeviceKey,
    MeasuredEntry,
    MeasuredKappa,
    MeasuredRate,
    Pair,
    Residual,
    RunComparison,
    StageCompared,
)

WHEN = "2026-11-21T12:00:00Z"
RTX = DeviceKey(device_kind="cuda", name="NVIDIA GeForce RTX 4090", driver="570.86")
EMULATED = DeviceKey(device_kind="emulated", name="emulated", driver=None)


def rate(value: float = 25e9, **changed: Any) -> MeasuredRate:
    return MeasuredRate(**{"value": value, "spread": 1.05, "n": 5, "when": WHEN, "source": "measured", **changed})


def entry(device: DeviceKey = RTX, model_class: str | None = None, **changed: Any) -> MeasuredEntry:
    """A link's rate and a VAE's factor."""
    kept = {
        "rates": {"pinned_h2d_bytes_per_s": rate()},
        "kappas": {"AutoencoderKL": MeasuredKappa(samples=[1.2, 1.25], when=WHEN)},
    }
    return MeasuredEntry(**{"device": device, "model_class": model_class, **kept, **changed})


def residual(
    step_s: float,
    predicted_s: float,
    rates: dict[str, float],
    limiter: Literal["link", "compute", "host", "disk"] = "compute",
) -> Residual:
    """A run of two steps of which only the step's seconds are known."""
    workload = Workload(width=64, height=64, frames=None, steps=2, batch=1, guidance=None)
    return Residual(
        when=WHEN,
        workload=workload,
        strategy="transformer resident",
        limiter=limiter,
        rates=rates,
        load_s=None,
        first_s=None,
        next_s=None,
        step_s=Pair(predicted=predicted_s, measured=step_s),
        peak_bytes=None,
    )


def compared(**stage: Any) -> RunComparison:
    """A run whose only stage is the denoiser's: 3 GiB, of which 1 GiB are traced activations at factor 1."""
    gib = 1024**3
    made = StageCompared(
        name="denoise (transformer)",
        component="transformer",
        class_name="FluxTransformer2DModel",
        predicted_s=2.0,
        measured_s=2.0,
        predicted_peak_bytes=3 * gib,
        measured_peak_bytes=3 * gib,
        activation_bytes=gib,
        kappa=1.0,
    )
    nothing = dict.fromkeys(("load_s", "first_s", "next_s", "first_total_s", "step_s", "peak_bytes"))
    return RunComparison(**nothing, stages=[made.model_copy(update=stage)])
