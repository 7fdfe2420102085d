"""The figures of a plan: what was traced and predicted, worked out from what, and compared with what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from roost.facts.limits import Bytes, Name, Positive
from roost.facts.request import Strategy, Tier
from roost.facts.stage import Phase
from roost.plan import earlier
from roost.plan.fields import FACT, Count, Flops, Masters, PolicyText, Seconds, Strict
from roost.plan.shares import AttentionShares, Factor, Level

Limiter = Literal["link", "compute", "host", "disk"]


class UseRecord(Strict):
    """One distinct call of a component; figures are per call. Activations are without weights and inputs."""

    component: Name
    method: Name
    calls: Count
    flops: Flops
    flops_by_class: dict[Name, Flops]
    activation_bytes: Bytes
    output_bytes: Bytes


class TraceRecord(Strict):
    """What one generation does, and how long finding that out took. A multiply-add is 2 FLOPs.

    ``guessed`` is a trace without a dry run: work and bytes follow from sizes.
    """

    source: Name
    guessed: bool = False
    seconds: Seconds
    uses: list[UseRecord]

    _from_earlier = model_validator(mode="before")(staticmethod(earlier.trace_facts))


class SecondsInterval(Strict):
    low: Seconds
    mid: Seconds
    high: Seconds


class CachedSeconds(Strict):
    """Seconds with a cache over steps: ``low`` where it skips all that it may, ``high`` where it skips nothing."""

    low: Seconds
    high: Seconds


class BytesInterval(Strict):
    low: Bytes
    mid: Bytes
    high: Bytes


class PredictedStage(Strict):
    """One stage of the first generation, and what sets its pace."""

    name: Name
    component: Name
    phase: Phase | None = None
    seconds: Seconds
    peak_bytes: Bytes
    binding: Limiter

    _from_earlier = model_validator(mode="before")(staticmethod(earlier.stage_facts))


class Predicted(Strict):
    """The cost model's figures. ``total_s`` is load + first + (n − 1) · next for n generations.

    ``peak_bytes`` are what is allocated, with the process's context; ``reserved_bytes`` what the allocator has to take
    of the device for it, and ``process_bytes`` that and the context (None in plans of 0.1). NVML may show up to
    ``kept_bytes`` more: the allocator keeps what it once took for as long as nothing else needs it.
    ``guessed`` are figures without a dry run. Where the plan has a cache over steps, ``cached_s`` is what the first
    generation with loading may take by the mid figures; all others are of calls that skip nothing.
    """

    peak_bytes: BytesInterval
    reserved_bytes: BytesInterval | None = None
    process_bytes: BytesInterval | None = None
    kept_bytes: Bytes = 0
    load_s: SecondsInterval
    first_s: SecondsInterval
    next_s: SecondsInterval
    step_s: SecondsInterval
    total_s: SecondsInterval
    first_total_s: SecondsInterval
    cached_s: CachedSeconds | None = None
    limiter: Limiter
    host_bytes: Bytes
    pinned_bytes: Bytes
    stages: list[PredictedStage]
    source: Name
    guessed: bool = False
    notes: list[str]

    _from_earlier = model_validator(mode="before")(staticmethod(earlier.trace_facts))


class AlternativeComponent(Strict):
    """How an alternative places one component."""

    strategy: Strategy
    resident_blocks: Count | None
    resident_policy: PolicyText | None
    prefetch: Positive | None
    master: Masters | None
    tiling: bool


class Alternative(Strict):
    """A plan that was not chosen: its name, what it would take, and why not.

    ``also`` are further names of the same placements: the runner-up may be the rule plan.
    """

    name: Name
    components: dict[Name, AlternativeComponent]
    predicted: Predicted
    why_not: str
    also: list[Name] = Field(default_factory=list)


# What the figures of a prediction were worked out from: rates, factors, and each stage's work.


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A rate per second, within ``value`` times and divided by ``spread``; divided by ``down`` where that is there.

    ``spec`` are data sheets and, marked so, ``prior`` ones; what was ``measured`` or ``fitted`` here has a ``when``.
    """

    value: Factor
    spread: Factor
    source: Literal["spec", "measured", "fitted"]
    why: str
    prior: bool = False
    when: Name | None = None
    down: Factor | None = None

    @property
    def below(self) -> float:
        """How many times slower it may be."""
        return self.spread if self.down is None else self.down

    def at(self, level: Level) -> float:
        """The rate at one end of its interval; ``fast`` is the higher one."""
        return self.value * {"slow": 1 / self.below, "mid": 1.0, "fast": self.spread}[level]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kappa:
    """Times traced activation bytes: cuDNN's workspaces and the allocator's rounding are not in a trace."""

    low: Factor
    mid: Factor
    high: Factor
    source: str
    fitted: bool = False  # to runs on this machine

    def at(self, level: Level) -> float:
        """``slow`` is the pessimistic end: the most memory."""
        return {"slow": self.high, "mid": self.mid, "fast": self.low}[level]


class StageWork(Strict):
    """The work of one predicted stage of the first generation, by the mid rates.

    ``own_bytes`` are the stage's component's weights on the device. ``traced_bytes`` are the largest traced activations
    of its uses; ``activation_bytes`` are these times ``kappa``, and the inputs. The four named ``pass`` are of one pass
    (one call into the component) once passes repeat: how long it takes, how long each queue is busy with it, what comes
    over the link.
    """

    name: Name
    component: Name
    phase: Phase | None = None
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

    _from_earlier = model_validator(mode="before")(staticmethod(earlier.stage_facts))


class Arithmetic(Strict):
    """Everything that a prediction was worked out from, beside the trace.

    ``kappas`` are fitted ones, by class; ``single_dtypes`` run at the float32 rates (None: the usual); ``tiers`` are
    those of the masters that move as a whole, by component. ``attention`` and ``denoiser_attention`` are shares of the
    attention rates; None: every kernel reaches them.
    """

    backend: Name
    context_bytes: Bytes
    rates: dict[Name, Annotated[Rate, FACT, BeforeValidator(earlier.rate_facts)]]
    kappas: dict[Name, Annotated[Kappa, FACT, BeforeValidator(earlier.kappa_facts)]]
    single_dtypes: list[Name] | None = None
    attention: Annotated[AttentionShares, FACT] | None = None
    denoiser_attention: Annotated[AttentionShares, FACT] | None = None
    tiers: dict[Name, Tier]
    stages: list[StageWork]


# What other plans would take, and what more memory would change: the plan document's comparison.


Memory = Literal["VRAM", "host memory"]
Bound = Literal[Limiter, Memory]


class MoreMemory(Strict):
    """What more of one memory would save. ``bytes`` None is as much as is useful; ``stage`` is where it would."""

    memory: Memory
    bytes: Bytes | None
    saves_s: Seconds
    stage: Name | None


class OtherPlan(Strict):
    """Another plan of the same question. ``gain`` is the share of its seconds that the chosen plan saves.

    Below 0 the other one is faster. ``short_bytes`` is the VRAM that it lacks; host memory is not looked at.
    """

    total_s: Seconds
    gain: Annotated[float, Field(allow_inf_nan=False)]
    short_bytes: Bytes
    differs: dict[Name, Name]  # component -> its strategy there


class MoreGenerations(Strict):
    """What a plan for several generations does otherwise, where loading takes longer than the one that was asked for.

    ``load_s`` and ``next_s`` are of that plan, ``differs`` its components that are placed otherwise, with strategies.
    """

    generations: Annotated[int, Field(gt=1)]
    load_s: Seconds
    next_s: Seconds
    differs: dict[Name, Name]


class Binding(Strict):
    """What sets the seconds: an engine or a queue, or a memory that would save some if there were more of it."""

    what: Bound
    stage: Name | None


class PlanComparison(Strict):
    """The chosen plan beside others. Seconds are totals of all generations; each other plan is simulated like it."""

    more_memory: list[MoreMemory]
    model_offload: OtherPlan
    runner_up: OtherPlan | None
    all_resident: OtherPlan | None
    binds: list[Binding]
    generations: Annotated[int, Field(gt=0)] = 1
    more_generations: MoreGenerations | None = None
