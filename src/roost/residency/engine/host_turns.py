"""Host memory in turns: what isn't needed again gives it back, and what comes later makes its masters then."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from roost.plan.schema import HostTurn
from roost.residency.engine.component import HeldComponent

_log = logging.getLogger(__name__)


class HostTurns:
    """Follows a plan's turns as components are used; without turns every master is there all the time.

    ``gives_back`` can be turned off where later calls need again what the plan would give back.
    """

    def __init__(self, turns: Sequence[HostTurn], components: Mapping[str, HeldComponent]) -> None:
        self.gives_back = True
        self._turns, self._components = turns, components

    def begin(self, component: HeldComponent) -> None:
        """Before a use of ``component``, of which nothing is on the device yet."""
        turn = next((index for index, each in enumerate(self._turns) if each.component == component.name), None)
        if turn is not None and self.gives_back:
            self._give_back(turn)
        if component.late:
            _log.info("%s: its masters come now", component.name)
            component.make_masters()

    def _give_back(self, turn: int) -> None:
        before = {name for each in self._turns[:turn] for name in each.masters}
        needed = {name for each in self._turns[turn:] for name in each.masters}
        for name in before - needed:
            component = self._components[name]
            if not component.gone and not component.depth:
                component.give_back()
                _log.info("%s: its host memory is given back", name)
