"""Who leaves the device, by the sequence of uses of the generation before; and host memory, by the plan's turns."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from roost.facts.stage import StageKey
from roost.plan import ComponentPlan
from roost.plan.budget import HostTurn
from roost.residency.device.interface import Device
from roost.residency.engine.component import HeldComponent
from roost.residency.engine.predictor import Predictor

_GENERATION = "generation"
_log = logging.getLogger(__name__)


class Used(Protocol):
    """What a stage is of: a component that the runtime moves, or one that is apart and moves itself."""

    @property
    def name(self) -> str: ...
    @property
    def plan(self) -> ComponentPlan: ...


class UseSequence:
    """The order in which a generation's stages use components, learnt from the one before."""

    def __init__(self, names: Iterable[str]) -> None:
        self._predictor = Predictor(tuple(names))
        self._open = False

    def use(self, component: Used) -> None:
        """A stage of ``component`` begins."""
        if not self._open:
            self._predictor.begin(_GENERATION)
            self._open = True
        self._predictor.advance(component.name)

    def end(self) -> None:
        """The generation is over."""
        self._predictor.end(whole=True)
        self._open = False

    def furthest(self, components: Iterable[HeldComponent]) -> HeldComponent | None:
        """Whose next use is furthest away; those that the plan lets linger come last."""
        return max(
            components, key=lambda each: (not each.plan.linger, self._predictor.distance(each.name)), default=None
        )

    def next_after(self, current: HeldComponent, components: Mapping[str, HeldComponent]) -> HeldComponent | None:
        """The component whose stage comes next."""
        names = (name for name in self._predictor.upcoming() if name != current.name)
        return components.get(next(names, ""))


class Activations:
    """What a component's stage took beside weights, at most so far; None before such a stage is over.

    A component's stages are told apart: a VAE that encodes a picture says nothing of what its decoding needs.
    ``weights_bytes`` tells what all components hold on the device.
    """

    def __init__(self, device: Device, weights_bytes: Callable[[], int]) -> None:
        self._device, self._weights_bytes = device, weights_bytes
        self._bytes: dict[StageKey, int] = {}
        self._open: tuple[StageKey, int, int] | None = None  # its bytes in use and bytes of weights when it began

    def begin(self, stage: StageKey) -> None:
        """The stage's component is there, and the device's peak counts from here."""
        self._open = (stage, self._device.used_bytes, self._weights_bytes())

    def end(self) -> None:
        """The stage that began last is over."""
        if self._open is None:
            return
        stage, used_bytes, weights_bytes = self._open
        # Held blocks and the next component's first ones may have come during the stage.
        came_bytes = max(0, self._weights_bytes() - weights_bytes)
        taken_bytes = max(0, self._device.peak_bytes - used_bytes - came_bytes)
        self._bytes[stage] = max(taken_bytes, self._bytes.get(stage, 0))
        self._open = None

    def of(self, stage: StageKey | None) -> int | None:
        return None if stage is None else self._bytes.get(stage)


class HostTurns:
    """Follows a plan's turns as components are used; without turns every master is there all the time.

    ``gives_back`` can be turned off where later calls need again what the plan would give back. ``late_s`` are the
    seconds in which masters came late, which ``on_late`` hears of.
    """

    def __init__(
        self,
        turns: Sequence[HostTurn],
        components: Mapping[str, HeldComponent],
        on_late: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.gives_back, self.late_s = True, 0.0
        self._on_late = on_late
        self._turns, self._components = turns, components

    def begin(self, component: HeldComponent) -> None:
        """Before a use of ``component``, of which nothing is on the device yet."""
        self.reach(component)
        if component.late:
            _log.info("%s: its masters come now", component.name)
            began_s = time.perf_counter()
            component.make_masters()
            took_s = time.perf_counter() - began_s
            self.late_s += took_s
            self._on_late(took_s)

    def reach(self, component: Used) -> None:
        """Gives back what nobody needs from a use of ``component`` on."""
        turn = next((index for index, each in enumerate(self._turns) if each.component == component.name), None)
        if turn is not None and self.gives_back:
            self._give_back(turn)

    @contextmanager
    def not_now(self) -> Iterator[None]:
        """Meanwhile nothing is given back: a use out of turn."""
        before, self.gives_back = self.gives_back, False
        try:
            yield
        finally:
            self.gives_back = before

    def _give_back(self, turn: int) -> None:
        before = {name for each in self._turns[:turn] for name in each.masters}
        needed = {name for each in self._turns[turn:] for name in each.masters}
        for name in before - needed:
            component = self._components[name]
            if not component.gone and not component.depth:
                component.give_back()
                _log.info("%s: its host memory is given back", name)
