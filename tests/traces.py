"""Made-up traces: uses of chosen work for components of ``worlds``."""

from __future__ import annotations

from collections.abc import Mapping

from roost.blocks import block_names
from roost.facts.model import Component
from roost.facts.rates import known_rates
from roost.facts.request import Workload
from roost.plan.figures import Rate
from roost.planner.cost.costs import CostModel
from roost.planner.cost.estimate import Forecast
from roost.planner.cost.rates import Rates
from roost.planner.placements import Placement, place
from roost.planner.rules.case import Case
from roost.planner.rules.table import apply_rules
from roost.planner.rules.typed import resolve
from roost.trace import ActivationBytes, BlockTrace, OpClassTotals, Trace, UseTrace
from worlds import machine, profile

WORKLOAD = Workload(width=64, height=64, frames=None, steps=4, batch=1, guidance=1.0)


def totals(flops: int = 0, moved_bytes: int = 0, kernels: int = 0) -> Mapping:
    """All of the FLOPs in matmul, all of the plain traffic in elementwise."""
    return {
        "matmul": OpClassTotals(flops=flops, kernels=kernels),
        "attention": OpClassTotals(),
        "conv": OpClassTotals(),
        "elementwise": OpClassTotals(bytes=moved_bytes),
    }


def use(
    component: Component, flops: int, activation_bytes: int = 0, method: str = "forward", calls: int = 1
) -> UseTrace:
    """A use whose FLOPs are spread evenly over its blocks, all of them outside when it has none."""
    names = block_names(component.units)
    return UseTrace(
        component=component.name,
        method=method,
        signature="made up",
        totals=totals(flops),
        activation_bytes=ActivationBytes(before_blocks=0, in_blocks=activation_bytes, after_blocks=0),
        input_bytes=0,
        output_bytes=0,
        compute_dtype="bfloat16",
        blocks=tuple(
            BlockTrace(name=name, calls=calls, totals=totals(flops // len(names)), activation_bytes=activation_bytes)
            for name in names
        ),
    )


def trace(*calls: tuple[UseTrace, int], steps: int = 4) -> Trace:
    """The uses in the order given; a use given twice runs twice."""
    uses = list(dict.fromkeys(map(id, [each for each, _ in calls])))
    by_id = {id(each): each for each, _ in calls}
    return Trace(
        uses=tuple(by_id[key] for key in uses),
        sequence=tuple((uses.index(id(each)), count) for each, count in calls),
        variants=(),
        workload=Workload(width=64, height=64, frames=None, steps=steps, batch=1, guidance=1.0),
        source="made up",
        seconds=0.0,
        versions={},
    )


def rates(link: float = 20e9, flops: float = 100e12, spread: float = 1.2, **changes: float) -> Rates:
    """Rates of round numbers; pageable copies run at half the link's, disk at a tenth."""
    names = {
        **dict.fromkeys(("matmul", "attention", "conv"), flops),
        **dict.fromkeys(("single_matmul", "single_attention", "single_conv"), flops / 4),
    }
    values = {f"{name}_flop_per_s": value for name, value in names.items()} | {
        "memory_bytes_per_s": 1e12,
        "kernels_per_s": 1e5,
        "pinned_h2d_bytes_per_s": link,
        "pinned_d2h_bytes_per_s": link,
        "pageable_h2d_bytes_per_s": link / 2,
        "pageable_d2h_bytes_per_s": link / 2,
        "disk_bytes_per_s": link / 10,
        "pin_bytes_per_s": 1e12,
        "cast_bytes_per_s": 1e12,
        **changes,
    }
    made = {name: Rate(value=value, spread=spread, source="spec", why="") for name, value in values.items()}
    return Rates(by_key=known_rates(made))


def forecast(
    components: tuple[Component, ...],
    traced: Trace,
    made_up_rates: Rates | None = None,
    *,
    free_gib: float = 24,
    ram_gib: float = 128,
    generations: int = 1,
) -> Forecast:
    """A forecast on an emulated device, so that neither a context nor a factor blurs the bytes."""
    return Forecast(
        components={each.name: each for each in components},
        trace=traced,
        model=CostModel(rates=made_up_rates or rates(), backend="emulated"),
        machine=machine(free_gib, ram_gib=ram_gib, headroom_gib=0),
        generations=generations,
    )


def case_of(
    components: tuple[Component, ...], made: Forecast, choices: object = None
) -> tuple[Case, tuple[Placement, ...]]:
    """The planning question of a forecast with its rule placements."""
    from roost.facts.request import Choices

    chosen = choices or Choices()
    case = Case(
        components=components,
        profile=profile(),
        machine=made.machine,
        batch=1,
        choices=chosen,  # type: ignore[arg-type]
        explicit=resolve(chosen, components),  # type: ignore[arg-type]
    )
    return case, place(case, apply_rules(case).decisions)
