"""What calls of a request gave, in their order: kept where they were made, given where they are made again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from roost.errors import RoostError
from roost.fleet.codec import packed, unpacked
from roost.pipelines.described_values import Unkeepable, Unsent, generators_in
from roost.residency.hold.away import WITHOUT_ROLES
from roost.residency.run.kept.answers import put_random_state, random_state
from roost.residency.run.kept.steps import plainer
from roost.residency.run.texts_ahead import comparable


def unsendable(part: str, method: str, what: Unkeepable) -> RoostError:
    """The refusal of a call that is given what no other worker can be given; ``what`` names its type."""
    return RoostError(f"{part}.{method} is given a {what}, which can't be sent to another worker; {WITHOUT_ROLES}.")


@dataclass(frozen=True, slots=True)
class Asked:
    """A call of ``part``, a component or the pipeline itself; ``digest`` is of what it was given.

    The same call has the same digest on every worker.
    """

    part: str
    method: str
    digest: str

    @classmethod
    def of(cls, part: str, method: str, arguments: Any) -> Asked:
        """Raises RoostError, by its type's name, for what no other worker could be given."""
        try:
            plain = comparable(plainer(arguments))
        except Unkeepable as error:
            raise unsendable(part, method, error) from None
        return cls(part, method, hashlib.sha256(repr(plain).encode()).hexdigest())


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call gave, and the random state that it left, in ``payload``."""

    asked: Asked
    payload: bytes

    @classmethod
    def to(cls, asked: Asked, result: Any, arguments: Any, device: torch.device) -> Answer:
        """What of the result can't be sent says so to whoever uses it."""
        states = [each.get_state() for each in generators_in(arguments)]
        answer = {"result": result, "generators": states, "random": random_state(device)}
        return cls(asked, packed(answer, Unsent.describe))

    def open(self, arguments: Any, device: torch.device) -> Any:
        """The result; the generators among the arguments, and all others, are then as the call left them."""
        found = unpacked(self.payload, device)
        for generator, state in zip(generators_in(arguments), found["generators"], strict=True):
            generator.set_state(state.cpu())
        put_random_state([each.cpu() for each in found["random"]], device)
        return found["result"]


class Answers:
    """The answers to a request's calls so far; on each worker the pipeline meets them from the first one on."""

    def __init__(self, device: torch.device, known: Sequence[Answer] = ()) -> None:
        self.all = list(known)
        self.met = 0
        self._device = device

    @property
    def left(self) -> bool:
        """Whether there is one that the pipeline has not met yet."""
        return self.met < len(self.all)

    def is_next(self, asked: Asked) -> bool:
        """Whether the next one is to this very call."""
        return self.left and self.all[self.met].asked == asked

    def give(self, asked: Asked, arguments: Any) -> Any:
        """The call's result. Raises RoostError where the pipeline made another call when it was here before."""
        answer = self.all[self.met]
        if answer.asked != asked:
            raise RoostError(
                f"the pipeline calls {asked.part}.{asked.method} where on another worker it called"
                f" {answer.asked.part}.{answer.asked.method}, or with other values; {WITHOUT_ROLES}."
            )
        self.met += 1
        return answer.open(arguments, self._device)

    def keep(self, asked: Asked, result: Any, arguments: Any, first: int | None = None) -> None:
        """Adds what a call gave that was made here, in the place of those from ``first`` on, which it made."""
        self.all[len(self.all) if first is None else first :] = [Answer.to(asked, result, arguments, self._device)]
        self.met = len(self.all)
