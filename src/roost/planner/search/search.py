"""The search: the best placements within the budget, what else came close, and what more memory would buy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from roost.planner.buffers import all_buffers
from roost.planner.cost.budget import pool_bytes
from roost.planner.cost.estimate import Forecast
from roost.planner.placements import Placement
from roost.planner.rules.case import Case
from roost.planner.search.columns import (
    MORE_BYTES,
    Aim,
    Options,
    Terms,
    host_is_ample,
    limits_of,
    price_all,
    size_all,
    tileable,
)
from roost.planner.search.levels import Levels, runner_up, within
from roost.planner.search.option import Combination
from roost.planner.search.pricing import Pricer
from roost.planner.search.shortfall import Shortfall, least_vram, shared_shortfall, shortfall, split_pool
from roost.planner.search.solver import Column, Limits, possible

_FRONT_LEVELS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What the search found. ``chosen`` is None when nothing fits, and ``shortfall`` then says by how much.

    ``sure`` says whether the chosen plan was sought among those that surely fit; ``other`` is the best of those where
    it is too dear. ``tiled`` are the components that are tiled though nobody asked for it, with the seconds that this
    costs. ``unsure`` is what a plan that surely fits lacks where only likely ones are possible; ``premium`` how many
    times the least likely seconds one takes that is too dear. ``front`` has the plans that no other beats in seconds,
    VRAM and host memory at once, by falling VRAM.
    ``fastest`` is the plan of least seconds, however little it gains; ``more_vram`` the same with 2 GiB more,
    ``more_host`` with all the host memory that the weights could use, None where they have it.
    """

    ruled: Combination
    chosen: Combination | None = None
    sure: bool = False
    other: Combination | None = None
    premium: float = 1.0
    unsure: Shortfall | None = None
    tiled: tuple[tuple[str, float], ...] = ()
    runner_up: Combination | None = None
    ruled_fits: bool = False
    all_resident: Combination | None = None
    front: tuple[Combination, ...] = ()
    fastest: Combination | None = None
    more_vram: Combination | None = None
    more_host: Combination | None = None
    shortfall: Shortfall | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """The best plan on some terms, and what it was found in."""

    terms: Terms
    levels: Levels
    chosen: Combination

    @property
    def fastest_s(self) -> float:
        best = self.levels.fastest(self.levels.limits.vram_bytes)
        return (best or self.chosen).seconds


def search(case: Case, ruled: tuple[Placement, ...], forecast: Forecast, aim: Aim) -> SearchResult:
    """The best combination of placements; the rule plan is always among the candidates."""
    pricer = Pricer(forecast)
    rules = pricer.combination([pricer.option(each) for each in ruled])
    sized = size_all(case, ruled, pricer, aim)
    looked = list(_possible(sized, pricer, aim))
    found = [(terms, limits) for terms, limits in looked if isinstance(limits, Limits)]
    if not found:
        return SearchResult(ruled=rules, shortfall=_lacking(limits for _, limits in looked))
    tiled = any(terms.tiled for terms, _ in found)
    options = price_all(case, ruled, pricer, aim if tiled else replace(aim, forbid=aim.forbid | {"tiling"}))
    offers = [_offer(terms, options, pricer, limits, aim) for terms, limits in found]
    taken, other = _affordable(offers, aim)
    levels, chosen, limits = taken.levels, taken.chosen, taken.levels.limits
    shared = forecast.machine.gpu.unified  # there is no more of the one without less of the other
    alone = shared or host_is_ample(case, forecast)
    return SearchResult(
        chosen=chosen,
        sure=taken.terms.sure,
        other=other.chosen if other else None,
        premium=other.fastest_s / taken.fastest_s if other else 1.0,
        unsure=_lacking(limits for terms, limits in looked if terms.sure),
        tiled=() if "tiling" in aim.allow or aim.tiled is not None else tuple(_tiled(chosen, ruled, pricer)),
        runner_up=runner_up(levels, chosen),
        ruled=rules,
        ruled_fits=within(rules, limits),
        all_resident=_all_resident(pricer, levels.options),
        front=_front(levels, chosen),
        fastest=levels.fastest(limits.vram_bytes),
        more_vram=None if shared else levels.worthwhile(levels.at(limits.vram_bytes + MORE_BYTES)),
        more_host=None if alone else _with_ample_host(case, levels),
    )


def terms_of(aim: Aim, forecast: Forecast) -> tuple[Terms, ...]:
    """The terms to look on, from the best to the least: surely, then likely; each without tiling, then with it."""
    tiling = (False,) if "tiling" in aim.forbid else (False, True)
    if "tiling" in aim.allow or aim.tiled is not None:
        tiling = (True,)
    elif not any(tileable(name, forecast) for name in forecast.components):
        tiling = tiling[:1]
    known = forecast.trace.no_dry_run is None and not forecast.weights_only
    certainties = (True, False) if known and aim.certainty == "sure" else (False,)
    return tuple(Terms(sure=sure, tiled=tiled) for sure in certainties for tiled in tiling)


def can_fit(options: Options, pricer: Pricer, aim: Aim, *, surely: bool = False) -> bool:
    """Whether any of these candidates fits on any terms, or on those that are sure."""
    looked = _possible(options, pricer, aim)
    return any(isinstance(limits, Limits) for terms, limits in looked if terms.sure or not surely)


def _possible(options: Options, pricer: Pricer, aim: Aim) -> Iterator[tuple[Terms, Limits | Shortfall]]:
    """For each certainty the first terms on which something is possible, else what is short on the last."""
    certainties: set[bool] = set()
    for terms in terms_of(aim, pricer.forecast):
        if terms.sure not in certainties:
            limits = _possible_limits(terms.columns(options, pricer), pricer.forecast)
            if isinstance(limits, Limits):
                certainties.add(terms.sure)
            yield terms, limits


def _lacking(looked: Iterable[Limits | Shortfall]) -> Shortfall | None:
    """What is short on the last, which are the most lenient, of some terms; None where something is possible."""
    last = next(iter(reversed(list(looked))), None)
    return last if isinstance(last, Shortfall) else None


def _possible_limits(columns: Mapping[str, Column], forecast: Forecast) -> Limits | Shortfall:
    """Limits within which something is possible; of a shared memory, those that leave the device the most of it."""
    limits, pool = limits_of(forecast), pool_bytes(forecast.machine)
    if pool is None:
        return limits if possible(columns, limits) else shortfall(columns, limits)
    pool = max(0, pool - forecast.context_bytes())
    found = next((each for each in split_pool(limits, pool) if possible(columns, each)), None)
    return found or shared_shortfall(columns, limits, pool)


def _offer(terms: Terms, options: Options, pricer: Pricer, limits: Limits, aim: Aim) -> _Offer:
    levels = Levels(pricer, terms.columns(options, pricer), limits)
    chosen = levels.best() if aim.objective == "seconds" else levels.leanest(aim.max_slowdown)
    assert chosen is not None  # something is possible
    return _Offer(terms=terms, levels=levels, chosen=chosen)


def _affordable(offers: Sequence[_Offer], aim: Aim) -> tuple[_Offer, _Offer | None]:
    """The sure offer where it costs no more than it may, else the likely one, with what was too dear."""
    first, last = offers[0], offers[-1]
    if first is last or first.fastest_s <= aim.max_premium * last.fastest_s:
        return first, None
    return last, first


def _tiled(chosen: Combination, ruled: Sequence[Placement], pricer: Pricer) -> Iterator[tuple[str, float]]:
    """What is tiled though nobody typed that, and what its seconds would be less as a whole."""
    for taken, rule in zip(chosen.options, ruled, strict=True):
        if taken.placement.tiling and not rule.tiling:
            whole = pricer.option(replace(taken.placement, tiling=False))
            yield rule.component.name, taken.seconds - whole.seconds


def _with_ample_host(case: Case, levels: Levels) -> Combination | None:
    """The fastest plan if host memory were no limit; no price depends on how much there is."""
    enough = sum(map(all_buffers, case.components))
    return levels.worthwhile(replace(levels.limits, host_bytes=enough, pinned_bytes=enough))


def _all_resident(pricer: Pricer, options: Mapping[str, Column]) -> Combination | None:
    columns = [
        [each for each in column.options if each.placement.strategy == "resident"] for column in options.values()
    ]
    return pricer.combination([column[0] for column in columns]) if all(columns) else None


def _front(levels: Levels, chosen: Combination) -> tuple[Combination, ...]:
    found = [chosen]
    most_bytes, lowest = levels.limits.vram_bytes, least_vram(levels.options)[1]
    for step in reversed(range(_FRONT_LEVELS)):
        plain = levels.simplest(lowest + (most_bytes - lowest) * step // max(1, _FRONT_LEVELS - 1))
        found += [plain] if plain else []
    return pareto_front(found)


def pareto_front(combinations: Iterable[Combination]) -> tuple[Combination, ...]:
    """The combinations that no other beats in seconds, VRAM and host memory, the most VRAM first."""

    def key(each: Combination) -> tuple[int, float, int]:
        return each.vram_bytes, each.seconds, each.host_bytes

    unique = list({key(each): each for each in combinations}.values())
    front = [
        each
        for each in unique
        if not any(
            other is not each and all(a <= b for a, b in zip(key(other), key(each), strict=True)) for other in unique
        )
    ]
    return tuple(sorted(front, key=lambda each: -each.vram_bytes))
