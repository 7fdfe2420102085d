"""What the search finds for a question, with whole blocks that stream or, where those take too much, their layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from roost.planner.leaf_level import open_to_leaf_level
from roost.planner.ruling import Ruling, ruling_on
from roost.planner.search.comparison import Searched
from roost.planner.search.shortfall import Shortfall
from roost.planner.search_question import SearchQuestion
from roost.planner.slicing import search_slicing

_CLEARLY_LESS = 0.95  # of the peak: for less, blocks don't come in layers


@dataclass(frozen=True, slots=True)
class Answer:
    """What the search finds for a question."""

    asked: SearchQuestion
    ruling: Ruling
    searched: Searched


def answer_to(asked: SearchQuestion) -> Answer:
    """Blocks stream as a whole, unless streaming below them surely fits where they don't, or takes clearly less.

    Where nothing fits, it is the one that lacks less of the device's memory.
    """
    ruling = ruling_on(asked.question)
    first = Answer(asked, ruling, _searched(asked, ruling))
    if asked.at_leaf_level is None or not _wants_less(first):
        return first
    finer = asked.at_leaf_level(asked.question)
    if finer is None:
        return first
    finer = replace(
        asked,
        question=finer.question,
        trace=finer.trace,
        model=finer.model,
        trace_other=finer.trace_other,
        at_leaf_level=None,
    )
    ruling = ruling_on(finer.question)
    second = Answer(finer, ruling, _searched(finer, ruling))
    return second if _is_better(second, first) else first


def _wants_less(answer: Answer) -> bool:
    """Whether less memory on the device would help."""
    found, aim = answer.searched.found, answer.asked.aim
    if answer.asked.trace.no_dry_run is not None:
        return False
    if found.chosen is None:
        return found.shortfall is not None and found.shortfall.component in open_to_leaf_level(answer.asked.question)
    return aim.objective == "memory" or (aim.certainty == "sure" and not found.sure)


def _is_better(finer: Answer, whole: Answer) -> bool:
    found, before, aim = finer.searched.found, whole.searched.found, whole.asked.aim
    if found.shortfall is not None and before.shortfall is not None:
        return _short_vram(found.shortfall) < _short_vram(before.shortfall)
    if found.chosen is None or before.chosen is None:
        return found.chosen is not None
    if aim.objective == "memory":
        return found.chosen.vram_bytes < _CLEARLY_LESS * before.chosen.vram_bytes
    return found.sure and found.chosen.seconds <= aim.max_premium * before.chosen.seconds


def _short_vram(missing: Shortfall) -> int:
    return missing.short_bytes if missing.memory == "VRAM" else 0


def _searched(asked: SearchQuestion, ruling: Ruling) -> Searched:
    """What the search finds; a guess that nothing fits gives way to weights alone."""
    case, ruled, forecast = ruling.case, ruling.placements, asked.forecast(ruling.case)
    searched = search_slicing(case, ruled, forecast, asked.aim)
    if searched.found.chosen is not None or asked.trace.no_dry_run is None:
        return searched
    by_weights = replace(forecast, weights_only=True)
    least = replace(asked.aim, objective="memory", max_slowdown=math.inf)  # whatever is left is for activations
    return search_slicing(case, ruled, by_weights, least)
