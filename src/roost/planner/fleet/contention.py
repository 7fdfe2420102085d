"""The links of one host's cards together: its memory feeds them all."""

from __future__ import annotations

from dataclasses import replace

from roost.facts.rates import LINKS
from roost.plan.figures import Rate
from roost.planner.cost.rates import Rates

# How many full links a host's memory feeds at once. Eight GPUs that streamed TI2V-5B on one host ran it 4.2 times as
# long as from device memory, one alone 1.57 times (sglang#17569): each link gave 1.57/4.2 of itself. Prior.
_FULL_LINKS, _FULL_LINKS_SPREAD = 8 * 1.57 / 4.2, 1.5


def shared_links(rates: Rates, cards: int, memory_bytes_per_s: float | None) -> Rates:
    """The rates of one of so many cards of a host, when all of them copy; ``memory_bytes_per_s`` was typed."""
    return rates.changed({key: _capped(rates[key], cards, memory_bytes_per_s) for key in LINKS})


def _capped(link: Rate, cards: int, memory_bytes_per_s: float | None) -> Rate:
    spread = 1.0 if memory_bytes_per_s is not None else _FULL_LINKS_SPREAD
    share = (_FULL_LINKS * link.value if memory_bytes_per_s is None else memory_bytes_per_s) / cards
    slow, mid = min(link.at("slow"), share / spread), min(link.value, share)
    if slow == link.at("slow") and mid == link.value:
        return link
    fast = min(link.at("fast"), share * spread)
    why = f"{link.why}, of which {cards} cards that copy at once leave {mid / link.value:.0%}"
    return replace(link, value=mid, spread=fast / mid, down=mid / slow, why=why)
