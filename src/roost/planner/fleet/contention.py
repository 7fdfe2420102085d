"""The links of one host's cards together: its memory feeds them all, across its NUMA nodes."""

from __future__ import annotations

from dataclasses import replace

from roost.facts.machine import HostBandwidth
from roost.facts.rates import LINKS
from roost.plan.figures import Rate
from roost.planner.cost.rates import Rates

# How many full links a host's memory feeds at once. Eight GPUs that streamed TI2V-5B on one host ran it 4.2 times as
# long as from device memory, one alone 1.57 times (sglang#17569): each link gave 1.57/4.2 of itself. Prior.
_FULL_LINKS, _FULL_LINKS_SPREAD = 8 * 1.57 / 4.2, 1.5


def shared_links(rates: Rates, cards: int, host: HostBandwidth) -> Rates:
    """The rates of one of so many cards of a host, when all of them copy masters that lie on its nodes by turns."""
    return rates.changed({key: _capped(rates[key], cards, host) for key in LINKS})


def _capped(link: Rate, cards: int, host: HostBandwidth) -> Rate:
    memory, spread = host.memory_bytes_per_s, 1.0
    if memory is None:
        memory, spread = _FULL_LINKS * link.value, _FULL_LINKS_SPREAD
    nodes = host.interleaved_bytes_per_s
    slow = min(link.at("slow"), memory / spread / cards, nodes / cards)
    mid = min(link.value, memory / cards, nodes / cards)
    fast = min(link.at("fast"), memory * spread / cards, nodes / cards)
    if (slow, mid, fast) == (link.at("slow"), link.value, link.at("fast")):
        return link
    across = " across its host's NUMA nodes" if nodes < memory else ""
    why = f"{link.why}, of which {cards} {'cards that copy' if cards > 1 else 'card that copies'} at once{across} leave"
    return replace(link, value=mid, spread=fast / mid, down=mid / slow, why=f"{why} {mid / link.value:.0%}")
