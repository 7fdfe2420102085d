"""Which layout is chosen, and the reasons for it and against the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from roost.facts.request import LAYOUTS, LayoutName
from roost.planner.fleet.figures import Demand, LayoutFigures, figures_of
from roost.planner.fleet.host_memory import short_host
from roost.planner.fleet.layouts import FleetQuestion, Layout, layouts_of
from roost.units import format_bytes, format_seconds

# Layouts are as good as the best one within this share; of those the simplest is taken.
_AS_GOOD = 0.02
# A fleet keeps up when it ends no later after the last arrival than this share of the time that arrivals took, and
# than so many requests take: waiting doesn't grow as requests come.
_BEHIND, _LAST_REQUESTS = 0.05, 3
# Less memory is worth a word from this share on.
_LESS_MEMORY = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Able:
    """A layout that can be, with its figures."""

    layout: Layout
    figures: LayoutFigures
    keeps_up: bool  # with what arrives; never where all arrives at once

    @property
    def sure(self) -> bool:
        """Whether every worker's plan surely fits."""
        return all(each.planned.plan.certainty == "sure" for each in self.layout.workers)

    @property
    def per_s(self) -> float:
        return self.figures.requests_per_s.mid

    @property
    def p95_s(self) -> float:
        return self.figures.outcome.percentile_s(0.95)

    @property
    def denoising_bytes(self) -> int:
        """VRAM of the worker that denoises and takes most."""
        takers = [each.planned for each in self.layout.workers if {"generate", "denoise"} & each.planned.seconds.keys()]
        return max(each.peak_bytes.high for each in takers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A layout and why it is chosen, or why not; ``able`` is None where it can't be."""

    layout: Layout
    able: Able | None
    why: str | None = None
    why_not: str | None = None


def compare_layouts(question: FleetQuestion, demand: Demand, asked: LayoutName | None) -> list[Compared]:
    """All layouts, the simplest first.

    The one with a ``why`` is chosen; none has it where no layout, or not the ``asked`` one, can be.
    """
    found = [_weighed(each, question, demand) for each in layouts_of(question)]
    ables = [each.able for each in found if each.able is not None]
    wanted = [each for each in ables if asked in (None, each.layout.name)]
    best = _best(wanted)
    if best is None:
        return [_not_asked(each, asked) for each in found]
    others = [each for each in ables if each is not best]
    judged = []
    for each in found:
        if each.able is best:
            why = f"--layout {asked} asks for it" if asked else _why(best, others, demand.rate)
            judged.append(replace(each, why=why))
        elif each.able is not None and asked is None:
            judged.append(replace(each, why_not=_why_not(each.able, best, demand.rate)))
        else:
            judged.append(_not_asked(each, asked))
    return judged


def _weighed(layout: Layout, question: FleetQuestion, demand: Demand) -> Compared:
    why_not = layout.why_not or short_host(layout.workers)
    if why_not is not None:
        return Compared(layout=layout, able=None, why_not=why_not)
    figures = figures_of(layout, question.fleet, demand)
    return Compared(layout=layout, able=Able(layout=layout, figures=figures, keeps_up=_keeps_up(figures, demand)))


def _keeps_up(figures: LayoutFigures, demand: Demand) -> bool:
    span_s = demand.arrivals[-1] - demand.arrivals[0]
    behind_s = figures.outcome.makespan_s - span_s
    return demand.rate is not None and behind_s <= _BEHIND * span_s + _LAST_REQUESTS * figures.request_s.mid


def _not_asked(each: Compared, asked: LayoutName | None) -> Compared:
    return each if each.why_not else replace(each, why_not=f"--layout {asked} asks for another")


def _best(ables: Sequence[Able]) -> Able | None:
    """The best of those that surely fit, else of those that may; the first, and so the simplest, of what is as good.

    Where some keep up with what arrives, the best one is the one with which most requests end soonest.
    """
    left = [each for each in ables if each.sure] or ables
    up = [each for each in left if each.keeps_up]
    if up:
        least_s = min(each.p95_s for each in up)
        return next(each for each in up if each.p95_s <= (1 + _AS_GOOD) * least_s)
    most = max((each.per_s for each in left), default=0.0)
    return next((each for each in left if each.per_s >= (1 - _AS_GOOD) * most), None)


def _why(best: Able, others: Sequence[Able], rate: float | None) -> str:
    if not others:
        return "no other layout can be"
    near = max(others, key=lambda each: (each.sure, each.keeps_up, -each.p95_s if each.keeps_up else each.per_s))
    good = f"as good as {near.layout.name} within {_AS_GOOD:.0%}, and simpler"
    return f"{good if _near(best, near) and _simpler(best, near) else _against(best, near, rate)}{_memory(best, near)}"


def _why_not(each: Able, best: Able, rate: float | None) -> str:
    good = f"no better than {best.layout.name}, which is simpler"
    return f"{good if _near(each, best) and _simpler(best, each) else _against(each, best, rate)}{_memory(each, best)}"


def _near(one: Able, other: Able) -> bool:
    """Whether nothing but their order decides between them."""
    if (one.sure, one.keeps_up) != (other.sure, other.keeps_up):
        return False
    pair = (one.p95_s, other.p95_s) if one.keeps_up else (one.per_s, other.per_s)
    return max(pair) <= (1 + _AS_GOOD) * min(pair)


def _simpler(one: Able, other: Able) -> bool:
    return LAYOUTS.index(one.layout.name) < LAYOUTS.index(other.layout.name)


def _against(one: Able, other: Able, rate: float | None) -> str:
    """What decides between two layouts, said of the one."""
    name = other.layout.name
    if one.sure != other.sure:
        return f"it {'surely' if one.sure else 'only likely'} fits, {name} {'surely' if other.sure else 'only likely'}"
    if one.keeps_up != other.keeps_up:
        which = ("keeps up", "does not") if one.keeps_up else ("does not keep up", "does")
        return f"it {which[0]} with {rate:g} requests/s, {name} {which[1]}"
    if one.keeps_up:
        return f"95 % of requests end within {format_seconds(one.p95_s)}, with {name} {format_seconds(other.p95_s)}"
    more = one.per_s / other.per_s - 1
    return f"{abs(more):.0%} {'more' if more > 0 else 'fewer'} requests/s than {name}"


def _memory(one: Able, other: Able) -> str:
    """What it buys beside: VRAM of the workers that denoise, and host memory."""
    pairs = (
        ("VRAM where it denoises", one.denoising_bytes, other.denoising_bytes),
        ("host memory", one.figures.host_bytes.high, other.figures.host_bytes.high),
    )
    less = [f"{format_bytes(b - a)} less {where}" for where, a, b in pairs if b - a >= _LESS_MEMORY * b]
    return f"; {' and '.join(less)}" if less else ""
