"""What was measured on a machine, as it is kept: rates, factors of activations, runs beside their predictions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from roost.facts.limits import Bytes, Label, Name, Positive
from roost.facts.machine import DeviceKind, GpuFacts
from roost.facts.request import Workload
from roost.facts.stage import Phase
from roost.plan.fields import FACT, Seconds, Strict
from roost.plan.figures import Limiter

MEASURED_VERSION = 1
# Runs that an entry keeps, and measurements that a factor keeps: the newest.
KEPT_RUNS, KEPT_SAMPLES = 8, 8

When = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
Above0 = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Spread = Annotated[float, Field(ge=1, allow_inf_nan=False)]


class DeviceKey(Strict):
    """What figures are true of: one GPU under one driver, or the emulated device with its link's rate.

    ``h2d_bytes_per_s`` is what an emulated device throttles copies to; None is as fast as the host's memory goes.
    """

    device_kind: DeviceKind
    name: Name
    driver: Name | None
    h2d_bytes_per_s: Above0 | None = None

    @property
    def text(self) -> str:
        """For people: ``NVIDIA GeForce RTX 4090, driver 570.86``."""
        if self.device_kind == "cuda":
            return f"{self.name}, driver {self.driver or 'unknown'}"
        return f"emulated, {'no limit' if self.h2d_bytes_per_s is None else f'{self.h2d_bytes_per_s / 1e9:g} GB/s'}"


def device_key(gpu: GpuFacts, h2d_bytes_per_s: float | None = None) -> DeviceKey:
    """The key of the GPU that a plan is, or will be, for."""
    return DeviceKey(device_kind=gpu.device_kind, name=gpu.name, driver=gpu.driver, h2d_bytes_per_s=h2d_bytes_per_s)


class MeasuredRate(Strict):
    """A rate, by its ``RateKey``: it lay within ``value`` times or divided by ``spread``.

    ``measured`` ones were timed by themselves, ``fitted`` ones follow from how long runs took. ``n`` measurements.
    """

    value: Above0
    spread: Spread
    n: Positive
    when: When
    source: Literal["measured", "fitted"]


class MeasuredKappa(Strict):
    """Measured over traced activation bytes of one component class, oldest first."""

    samples: list[Above0] = Field(min_length=1, max_length=KEPT_SAMPLES)
    when: When


class SecondsCompared(Strict):
    """A prediction's interval and what it came to."""

    low: Seconds
    predicted: Seconds
    high: Seconds
    measured: Seconds


class BytesCompared(Strict):
    """Like ``SecondsCompared``, for tensors on the device: a process's context is in neither figure."""

    low: Bytes
    predicted: Bytes
    high: Bytes
    measured: Bytes


class StageCompared(Strict):
    """One component's stage. ``activation_bytes`` are the traced ones and ``kappa`` the factor they were taken times.

    Both are None when the plan does not tell them, ``measured_s`` when the stage was not run whole.
    """

    name: Name
    component: Name
    class_name: Name
    predicted_s: Seconds
    measured_s: Seconds | None
    predicted_peak_bytes: Bytes
    measured_peak_bytes: Bytes
    activation_bytes: Bytes | None
    kappa: Above0 | None


class RunComparison(Strict):
    """A prediction and its measurement side by side; None where one of the two is missing."""

    load_s: SecondsCompared | None
    first_s: SecondsCompared | None
    next_s: SecondsCompared | None
    first_total_s: SecondsCompared | None
    step_s: SecondsCompared | None
    peak_bytes: BytesCompared | None
    stages: list[StageCompared]


class Pair(Strict):
    """A prediction's middle and what it came to."""

    predicted: Seconds
    measured: Seconds


class Residual(Strict):
    """What one run took against its prediction. ``rates`` are those that set the pace, as the prediction had them.

    It is short, since every plan reads the newest ones; peaks of stages live on in the factors.
    """

    when: When
    workload: Annotated[Workload, FACT]
    strategy: Label
    limiter: Limiter
    rates: dict[Name, Above0]
    load_s: Pair | None
    first_s: Pair | None
    next_s: Pair | None
    step_s: Pair | None
    peak_bytes: Pair | None


class MeasuredEntry(Strict):
    """What is kept of one device (``model_class`` None: rates and factors) or of one model class on it.

    ``kappas`` are by component class. An entry of a model class holds fitted rates and the runs they follow from.
    """

    schema_version: int = Field(alias="schema", default=MEASURED_VERSION, ge=1, le=MEASURED_VERSION)
    device: DeviceKey
    model_class: Name | None
    rates: dict[Name, MeasuredRate] = Field(default_factory=dict)
    kappas: dict[Name, MeasuredKappa] = Field(default_factory=dict)
    residuals: list[Residual] = Field(default_factory=list, max_length=KEPT_RUNS)

    @model_validator(mode="after")
    def _emulated_has_no_driver(self) -> MeasuredEntry:
        if self.device.device_kind == "cuda" and self.device.h2d_bytes_per_s is not None:
            raise ValueError("device.h2d_bytes_per_s is for emulated devices only")
        return self

    @property
    def newest(self) -> str | None:
        """When the latest of it was measured."""
        times = [each.when for each in self.rates.values()]
        times += [each.when for each in self.kappas.values()]
        times += [each.when for each in self.residuals]
        return max(times, default=None)


class Collection(Strict):
    """Entries as ``roost profiles export`` writes them."""

    schema_version: int = Field(alias="schema", default=MEASURED_VERSION, ge=1, le=MEASURED_VERSION)
    entries: list[MeasuredEntry]


class StageFigures(Strict):
    """What one component took in one stage of a run; ``seconds`` None when the stage was not run whole.

    ``phase`` is None of trials that an earlier version recorded without it.
    """

    component: Name
    phase: Phase | None
    seconds: Seconds | None
    peak_bytes: Bytes


class RunFigures(Strict):
    """What a run or a trial measured. None is unknown; bytes are tensors on the device, not the process's context."""

    load_s: Seconds | None = None
    first_s: Seconds | None = None
    next_s: Seconds | None = None
    step_s: Seconds | None = None
    peak_bytes: Bytes | None = None
    stages: list[StageFigures] = Field(default_factory=list)
