"""From a trace to the cost of each use: seconds by the card's rates, bytes of activations with their factor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from roost.blocks import block_names
from roost.facts.model import Component
from roost.facts.rates import RateKey
from roost.facts.stage import stage_of
from roost.plan.figures import Kappa
from roost.plan.shares import AttentionShares, Level
from roost.planner.cost.attention import slowdown
from roost.planner.cost.fp8_storage import cast_costs
from roost.planner.cost.rates import SINGLE_DTYPES, Rates, Speeds
from roost.planner.cost.simulator import UseCost
from roost.planner.placements import LossyChoices
from roost.planner.rules.names import kind_of
from roost.trace import OP_CLASSES, LinearWeights, OpClassTotals, Totals, Trace, UseTrace

# What a GPU loses to fill and drain its units for each kernel, however large. Prior.
_KERNEL_START_S = 6e-6
# Eager model code looks at views, allocates and runs Python modules around each kernel: so many launches' worth. Prior.
_HOST_WORK = 5.0
# Convolutional VAEs, allocated over traced, as others published it. In half precision a picture's channels are turned
# around in copies (FLUX.1-dev and SDXL, five cards); in float32 four at once on an A100 took 1.26 too.
# Qwen-Image's VAE on one card is what stands for all others.
_PICTURE_DECODE = Kappa(low=1.25, mid=1.60, high=1.8, source="prior: convolutions' workspaces and turned copies")
_PICTURE_DECODE_SINGLE = Kappa(low=1.15, mid=1.27, high=1.6, source="prior: convolution workspaces in float32")
_CONV_DECODE = Kappa(low=1.0, mid=1.22, high=1.6, source="prior: convolution workspaces in decode")
_CONV_ENCODE = Kappa(low=1.2, mid=1.40, high=1.6, source="prior: convolution workspaces in encode")
_OTHER = Kappa(low=1.0, mid=1.02, high=1.15, source="prior: allocator rounding")
# Gaps between a caching allocator's blocks, of activations: under a tight limit a FLUX step of 478 MiB ran with 1.25
# times that and not with 1.17 (a simulated GPU with PyTorch's own allocator); ``_OTHER`` has 1.15 of it. Prior.
_UNUSABLE: Mapping[Level, float] = {"slow": 0.15, "mid": 0.05, "fast": 0.0}
_EXACT = Kappa(low=1.0, mid=1.0, high=1.0, source="emulated: nothing hides from the trace")


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """Everything that turns a trace into seconds and bytes. ``kappas`` are fitted ones, by component class.

    ``single_dtypes`` are those that the device computes at its float32 rates. ``denoiser_attention`` is that of the
    backend that the denoiser is given, ``attention`` the others'; None where every kernel has the attention rate.
    """

    rates: Rates
    backend: str = "cuda"
    kappas: Mapping[str, Kappa] = field(default_factory=dict)
    single_dtypes: frozenset[str] = SINGLE_DTYPES
    attention: AttentionShares | None = None
    denoiser_attention: AttentionShares | None = None

    def attention_slowdown(self, use: UseTrace, component: Component, level: Level, speeds: Speeds) -> float:
        """How many times as long as at its rate the use's attention takes, by the kernels that compute it."""
        return slowdown(
            use.attention,
            self.denoiser_attention if kind_of(component) == "dit" else self.attention,
            speeds,
            level,
            single=use.compute_dtype in self.single_dtypes,
            single_dtypes=self.single_dtypes,
        )

    def work_s(self, totals: Totals, dtype: str | None, speeds: Speeds, slower: float = 1.0) -> tuple[float, float]:
        """Seconds that the device needs for the work, and seconds that the host needs to launch it.

        Attention takes ``slower`` times as long as at its rate.
        """
        start_s, host_work = (0.0, 1.0) if self.backend == "emulated" else (_KERNEL_START_S, _HOST_WORK)
        kernels = sum(work.kernels for work in totals.values())
        device_s = kernels * start_s
        for op_class in OP_CLASSES:
            work = totals[op_class]
            rate = speeds.flop_per_s(op_class, single=dtype in self.single_dtypes)
            arithmetic_s = work.flops / rate if rate else 0.0
            if op_class == "attention":
                arithmetic_s *= slower
            device_s += max(arithmetic_s, work.bytes / speeds[RateKey.MEMORY])
        return device_s, kernels * host_work / speeds[RateKey.KERNELS]

    def unusable_bytes(self, activations: float, level: Level) -> int:
        """What the allocator needs beside so many bytes of activations; nothing on an emulated device."""
        return 0 if self.backend == "emulated" else round(activations * _UNUSABLE[level])

    def kappa(self, component: Component, use: UseTrace) -> Kappa:
        """The factor of one use's activations: fitted, else the prior for its kind."""
        encodes = kind_of(component) == "vae" and "encode" in use.method
        if component.class_name in self.kappas and not encodes:  # factors are fitted to decodes
            return self.kappas[component.class_name]
        if self.backend == "emulated":
            return _EXACT
        if kind_of(component) != "vae" or not use.totals["conv"].flops:
            return _OTHER
        return _CONV_ENCODE if encodes else _decode_prior(component, use)


def _decode_prior(component: Component, use: UseTrace) -> Kappa:
    if component.class_name != "AutoencoderKL":
        return _CONV_DECODE
    return _PICTURE_DECODE_SINGLE if use.compute_dtype in SINGLE_DTYPES else _PICTURE_DECODE


def use_costs(
    trace: Trace,
    components: Mapping[str, Component],
    model: CostModel,
    level: Level,
    lossy: LossyChoices = frozenset(),
) -> tuple[UseCost, ...]:
    """The cost of every distinct use, in the trace's order, with what the ``lossy`` choices change."""
    speeds = model.rates.at(level)
    costs = []
    for index, use in enumerate(trace.uses):
        variant = trace.variant(index, "tiled") if (use.component, "tiling") in lossy else None
        cost = _use_cost(variant or use, components[use.component], model, level, speeds)
        if level == "slow":
            cost = replace(cost, activation_bytes=cost.activation_bytes + _kept_bytes(trace, index))
        linears = trace.linears_of(use.component) if (use.component, "fp8") in lossy else None
        costs.append(_with_casts(cost, use, components[use.component], linears, speeds) if linears else cost)
    return tuple(costs)


def _kept_bytes(trace: Trace, use: int) -> int:
    """Outputs of other components' earlier uses, which a pipeline may keep: of each the last two, for guidance."""
    first_calls = list(dict.fromkeys(index for index, _ in trace.sequence))
    earlier = first_calls[: first_calls.index(use)] if use in first_calls else []
    others = [index for index in earlier if trace.uses[index].component != trace.uses[use].component]
    return sum(trace.uses[index].output_bytes * min(2, trace.calls(index)) for index in others)


def _with_casts(cost: UseCost, use: UseTrace, component: Component, linears: LinearWeights, speeds: Speeds) -> UseCost:
    """Each block's linear weights are cast in each of its calls, one layer after another."""
    names = block_names(component.units)
    calls = {block.name: block.calls for block in use.blocks}
    cast_s = [each * calls.get(name, 1) for name, each in zip(names, cast_costs(linears, names, speeds), strict=True)]
    return replace(
        cost,
        blocks=tuple((index, seconds + cast_s[index]) for index, seconds in cost.blocks),
        activation_bytes=cost.activation_bytes + linears.largest_bytes,
    )


def _use_cost(use: UseTrace, component: Component, model: CostModel, level: Level, speeds: Speeds) -> UseCost:
    index_of = {name: index for index, name in enumerate(block_names(component.units))}
    known = [block for block in use.blocks if block.name in index_of]
    slower = model.attention_slowdown(use, component, level, speeds)
    blocks = tuple(
        (index_of[block.name], max(model.work_s(block.totals, use.compute_dtype, speeds, slower))) for block in known
    )
    trunk = less(use.totals, [block.totals for block in known])
    trunk_s = max(model.work_s(trunk, use.compute_dtype, speeds, slower))
    # Where the trunk's work lies is not traced: embeddings before the blocks, projections after them.
    before_s = trunk_s / 2 if blocks else trunk_s
    activations = use.activation_bytes.peak_bytes * model.kappa(component, use).at(level)
    # An emulated device doesn't see what a pipeline makes between components, so perhaps not this use's inputs.
    counted = level != "fast" or model.backend != "emulated"
    return UseCost(
        component=component.name,
        stage=stage_of(component.name, kind_of(component), use.method),
        before_s=before_s,
        blocks=blocks,
        after_s=trunk_s - before_s,
        activation_bytes=round(activations) + (use.input_bytes if counted else 0) + use.recast_bytes,
        unusable_bytes=model.unusable_bytes(activations, level),
        rounds=max((block.calls for block in known), default=1),
    )


def less(totals: Totals, parts: list[Totals]) -> Totals:
    """The work without that of its ``parts``."""
    return {
        name: OpClassTotals(
            flops=totals[name].flops - sum(part[name].flops for part in parts),
            bytes=totals[name].bytes - sum(part[name].bytes for part in parts),
            kernels=totals[name].kernels - sum(part[name].kernels for part in parts),
        )
        for name in OP_CLASSES
    }


def launch_bound(trace: Trace, component: Component, model: CostModel) -> bool:
    """Whether the host's launches, not the device, set the pace of the component's uses."""
    speeds = model.rates.at("mid")
    device_s, launches_s = 0.0, 0.0
    for index, use in enumerate(trace.uses):
        if use.component == component.name:
            slower = model.attention_slowdown(use, component, "mid", speeds)
            seconds = model.work_s(use.totals, use.compute_dtype, speeds, slower)
            device_s += trace.calls(index) * seconds[0]
            launches_s += trace.calls(index) * seconds[1]
    return launches_s > device_s
