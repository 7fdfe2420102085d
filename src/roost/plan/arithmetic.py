"""What the figures of a prediction were worked out from: rates, factors, and each stage's work."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from roost.plan.fields import Bytes, Count, Name, Seconds, Strict

Factor = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RateRecord(Strict):
    """A rate per second; it lies within ``value`` times or divided by ``spread``.

    ``spec`` are data sheets and priors; what was ``measured`` or ``fitted`` on this machine has a ``when``.
    """

    value: Factor
    spread: Factor
    source: Literal["spec", "measured", "fitted"]
    why: str
    when: Name | None = None


class KappaRecord(Strict):
    """Fitted over traced activation bytes of one component class."""

    low: Factor
    mid: Factor
    high: Factor
    source: str


class StageWork(Strict):
    """The work of one predicted stage of the first generation, by the mid rates.

    ``own_bytes`` are the stage's component's weights on the device. ``traced_bytes`` are the largest traced activations
    of its uses; ``activation_bytes`` are these times ``kappa``, and the inputs. The four named ``pass`` are of one pass
    (one call into the component) once passes repeat: how long it takes, how long each queue is busy with it, what comes
    over the link.
    """

    name: Name
    component: Name
    passes: Count
    compute_s: Seconds
    copy_s: Seconds
    wait_s: Seconds
    h2d_bytes: Bytes
    d2h_bytes: Bytes
    own_bytes: Bytes
    activation_bytes: Bytes
    pass_s: Seconds
    pass_compute_s: Seconds
    pass_copy_s: Seconds
    pass_h2d_bytes: Bytes
    traced_bytes: Bytes | None = None
    kappa: Factor | None = None


class Arithmetic(Strict):
    """Everything that a prediction was worked out from, beside the trace.

    ``kappas`` are fitted ones, by class; ``single_dtypes`` run at the float32 rates (None: the usual); ``tiers`` are
    those of the masters that move as a whole, by component.
    """

    backend: Name
    context_bytes: Bytes
    rates: dict[Name, RateRecord]
    kappas: dict[Name, KappaRecord]
    single_dtypes: list[Name] | None = None
    tiers: dict[Name, Literal["pinned", "pageable", "mapped"]]
    stages: list[StageWork]
