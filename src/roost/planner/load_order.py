"""In which order components load: heaviest first, so that the largest load meets the emptiest memory."""

from __future__ import annotations

from collections.abc import Iterable

from roost.facts import Component, Kind
from roost.planner.kinds import kind_of, suffix

_RISK_RANK: dict[Kind, int] = {"dit": 0, "text_encoder": 1, "image_encoder": 2, "vae": 3, "other": 10}


def load_order(components: Iterable[Component]) -> tuple[str, ...]:
    """Names by load-dtype bytes, then risk rank, then numeric suffix (largest first), then index position."""

    def key(component: Component) -> tuple[int, int, int, int]:
        rank = _RISK_RANK[kind_of(component)]
        return -component.load_bytes, rank, -(suffix(component.name) or 0), component.position

    return tuple(component.name for component in sorted(components, key=key))
