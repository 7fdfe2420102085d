"""The memory arithmetic of a plan: what there is, what its stages and turns take, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, model_validator

from roost.facts.limits import Bytes, Label, Name
from roost.plan import earlier
from roost.plan.fields import Strict


class StageWeights(Strict):
    """Weights on the device during one stage: by component, and their sum."""

    name: Label
    components: dict[Name, Bytes]
    weights_bytes: Bytes


class HostTurn(Strict):
    """Whose masters are in host memory from the first use of ``component`` on, until the next turn; and their sum."""

    component: Name
    masters: dict[Name, Bytes]
    host_bytes: Bytes


def late_components(turns: Sequence[HostTurn]) -> frozenset[str]:
    """Whose masters are made when their turn comes; until then their weights are in the model's files alone."""
    first = turns[0].masters.keys() if turns else frozenset()
    return frozenset(each for turn in turns for each in turn.masters) - first


class Budget(Strict):
    """The arithmetic of the verdict. Stages are of weights alone.

    ``activations_known`` says whether the verdict counts activations too; None in plans from before it was written.
    ``finding`` is the verdict without what would fit, where it names that; ``lacks`` says in short which memory the
    search lacked. ``would_fit`` are changes of the asked options, each verified by planning with it; in a plan that
    likely fits those that surely would, and empty in one that surely does. ``host_reserved_bytes`` is what the system
    and the process take of the host's memory: the host's available bytes are what is left. ``host_turns`` are empty
    where all masters are there all the time; else those of a component leave when none of the turns that follow has
    them, and ``host_bytes`` is the most of any turn.
    """

    total_bytes: Bytes
    free_bytes: Bytes
    headroom_bytes: Bytes
    budget_bytes: Bytes
    stages: list[StageWeights]
    peak_weights_bytes: Bytes
    deficit_bytes: Bytes
    host_bytes: Bytes
    host_deficit_bytes: Bytes
    host_reserved_bytes: Bytes = 0
    host_turns: list[HostTurn] = Field(default_factory=list)
    verdict: str
    finding: str | None = None
    lacks: str | None = None
    would_fit: list[str] = Field(default_factory=list)
    activations_known: bool | None = None

    _from_earlier = model_validator(mode="before")(staticmethod(earlier.budget_facts))

    @property
    def all_masters_bytes(self) -> int:
        """Host memory that all masters take together."""
        together = {name: size for turn in self.host_turns for name, size in turn.masters.items()}
        return sum(together.values()) if together else self.host_bytes

    @property
    def given_back(self) -> frozenset[str]:
        """Whose masters leave host memory before a generation ends."""
        last = self.host_turns[-1].masters.keys() if self.host_turns else frozenset()
        return frozenset(each for turn in self.host_turns for each in turn.masters) - last

    @property
    def late(self) -> frozenset[str]:
        """Whose masters come late."""
        return late_components(self.host_turns)

    @property
    def verdict_alone(self) -> str:
        """The verdict without what would fit."""
        return self.finding or self.verdict
